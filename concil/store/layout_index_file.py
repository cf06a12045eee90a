"""The index.json of a layout: read when it changes, written for many changes at once."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from concil.config import MIB
from concil.errors import ConcilError, NotFound, StoreError, shown
from concil.forking import renew_in_child
from concil.limits import start_thread
from concil.store.layout_change import IndexChange
from concil.store.layout_disk import State, Tree
from concil.store.layout_index import Index
from concil.store.layout_log import ChangeLog, has_logs, stale

logger = logging.getLogger(__name__)

INDEX_LIMIT = 32 * MIB  # bytes of an index.json; a hundred thousand entries
REMEDY = "check the path; a layout holds oci-layout, index.json and blobs/"
# A file of many entries takes long to write. So that a run does not spend its time on that, a
# change waits for others: for a second, and for ten times as long as the last write took.
_WAIT = 1.0  # seconds
_SHARE = 10.0
_FEW = 1_000  # entries, with which it takes a moment

Change = Callable[[Index], int]  # returns whether, or how many times, it has changed anything
Result = TypeVar("Result")


def untyped_entries(name: str, count: int) -> str:
    """The line about entries without mediaType in an index of that name."""
    return f"{name}: mediaType is missing in {count} entries; it is taken from their manifests"


@dataclass(frozen=True, slots=True)
class Failure:
    """Changes that could not be written: those after one number up to another."""

    after: int
    last: int
    error: ConcilError


class IndexFile:
    """The index of a layout in memory and on the disk.

    Any thread and any process may call any method at any time: nothing that one of them writes
    is lost to another. Deferred changes are seen at once in this process, and by others when
    they are written, by a thread that ends when there are none.
    """

    def __init__(self, tree: Tree) -> None:
        """Name the file; nothing is read."""
        self._tree = tree
        self.name = shown(str(tree.root / "index.json"))
        self._renew()
        renew_in_child(self, IndexFile._renew)

    def _renew(self) -> None:
        """Begin anew; in a forked child, whose parent writes what is deferred."""
        self._saving = threading.Lock()  # held over the disk: one write at a time
        self._lock = threading.Condition()  # guards the fields below
        self._index: Index | None = None  # what the file holds, with the deferred changes
        self._hash = b""  # of the bytes that the file had when it was read or written last
        self._state: State | None = None  # of the file then
        self._is_writing = False  # nobody else changes the file
        self._deferred: list[Change] = []  # the last of them has the number of the last change
        self._last = 0  # number of the last deferred change
        self._failures: list[Failure] = []
        self._has_warned = False
        self._thread: threading.Thread | None = None
        self._since = 0.0  # monotonic seconds: when the first deferred change came
        self._not_before = 0.0  # monotonic seconds
        self._listeners: list[Callable[[], object]] = []
        self._logging = threading.Lock()  # held over the disk: one change is logged at a time
        self._log = ChangeLog(self._tree)

    def ask(self, question: Callable[[Index], Result]) -> Result:
        """Return what the index says.

        Raises:
            InvalidManifest, NotFound, StoreError: index.json cannot be read.
        """
        with self._lock:
            return question(self._current())

    def change(self, change: Change) -> int:
        """Make a change, and write it with all that are deferred.

        Returns:
            What ``change`` has returned.
        Raises:
            StoreError: the disk refuses; the index is as it was.
        """
        return self._write(change)

    def defer(self, change: Change) -> int:
        """Make a change that is written later, or by `save`.

        Returns:
            What ``change`` has returned.
        Raises:
            InvalidManifest, NotFound, StoreError: index.json cannot be read.
        """
        with self._lock:
            result = self._deferring(change, self._current())
            is_alone = self._thread is None
        if is_alone:  # there is no thread to be had
            self.save()
        return result

    def log(self, change: IndexChange) -> int:
        """Make a change that is on the disk when this returns, in a log if not in index.json.

        It is written at once, unless that takes long and was done shortly before.

        Returns:
            What ``change`` has returned.
        Raises:
            StoreError: the disk refuses.
        """
        with self._logging:  # the log has the order in which the changes are made
            with self._lock:
                index = self._current()
                is_free = not self._deferred and time.monotonic() >= self._not_before
                is_logged = len(index) > _FEW and not is_free
                result = self._deferring(change, index) if is_logged else 0
            if is_logged and result:
                self._log.append(change)
        return result if is_logged else self.change(change)

    def recover(self) -> None:
        """Write what killed processes have logged. Raises StoreError: the disk refuses."""
        if has_logs(self._tree):
            self._write(None)

    @property
    def last(self) -> int:
        """The number of the last deferred change."""
        with self._lock:
            return self._last

    @property
    def settled(self) -> int:
        """The number of the last change that is written or has failed, as have all before it."""
        with self._lock:
            return self._last - len(self._deferred)

    def is_settled(self, number: int) -> bool:
        """Whether a deferred change, and all before it, are written or have failed."""
        return number <= self.settled

    def failure(self, after: int, last: int) -> ConcilError | None:
        """Why changes of some numbers could not be written; None: they were, or are to be."""
        with self._lock:
            found = (one.error for one in self._failures if after < one.last and one.after < last)
            return next(found, None)

    def save(self) -> None:
        """Write what is deferred; what cannot be written has a `failure`."""
        try:
            if not self.is_settled(self.last):
                self._write(None)
        except ConcilError as error:
            logger.debug("%s: %s", self.name, error)

    def close(self) -> None:
        """Write what is deferred, and wait for the thread unless others have deferred more."""
        self.save()
        with self._saving, self._lock:
            # One that was still written to when index.json already had its changes.
            logged = self._log.rotate() if not self._deferred else []
        self._log.remove(logged)
        with self._lock:
            thread = None if self._deferred else self._thread
            self._lock.notify_all()
        if thread is not None and thread is not threading.current_thread():
            thread.join(_WAIT)

    def listen(self, listener: Callable[[], object]) -> None:
        """Call ``listener`` after each write of deferred changes, in any thread."""
        with self._lock:
            self._listeners.append(listener)

    def forget(self, listener: Callable[[], object]) -> None:
        """Call it no more."""
        with self._lock:
            self._listeners.remove(listener)

    # Reading -----------------------------------------------------------------------

    def _current(self) -> Index:
        """The index; it is read again when the file's size or times changed. Holds the lock."""
        if self._index is not None and self._is_writing:
            return self._index
        if self._index is not None and self._tree.state("index.json") == self._state:
            return self._index
        return self._refreshed()

    def _refreshed(self) -> Index:
        """The index as it is on the disk, with the deferred changes. Holds the lock."""
        try:
            body, state = self._tree.read("index.json", INDEX_LIMIT)
        except NotFound as error:
            raise StoreError(f"not a layout: {error}", remedy=REMEDY) from error
        # Bytes, not times, decide: a change that is built on a stale index would lose entries.
        found = hashlib.sha256(body).digest()
        if self._index is None or found != self._hash:
            self._index = None
            index = Index.parse(body, self.name)
            self._warn(index.untyped)
            for change in self._deferred:
                change(index)
            self._index = index
        self._hash, self._state = found, state
        return self._index

    def _warn(self, untyped: int) -> None:
        if untyped and not self._has_warned:
            self._has_warned = True
            logger.warning("%s", untyped_entries(self.name, untyped))

    # Writing -----------------------------------------------------------------------

    def _write(self, change: Change | None) -> int:
        try:
            with self._saving:
                try:
                    return self._written(change)
                except ConcilError as error:
                    self._failed(error)
                    raise
        finally:
            with self._lock:
                listeners = self._listeners[:]
                self._lock.notify_all()
            for listener in listeners:
                listener()

    def _written(self, change: Change | None) -> int:
        with self._tree.locked(), stale(self._tree) as left:
            began = time.monotonic()
            with self._lock:
                index = self._refreshed()
                is_left = [each for each in left if each(index)]
                result = change(index) if change is not None else 0
                if change is not None and result:
                    self._add(change)
                count = len(self._deferred)
                logged = self._log.rotate()
                body = index.body() if count or is_left else b""
                self._is_writing = bool(body)
            if body:
                self._replace(body, count, began)
            self._log.remove(logged)
            return result

    def _replace(self, body: bytes, count: int, began: float) -> None:
        """Replace the file; so many deferred changes are in it then."""
        state: State | None = None
        try:
            state = self._tree.replace("index.json", body)
        finally:
            with self._lock:
                self._is_writing = False
                if state is None:
                    self._index = None  # what the file holds is seen when it is read
                else:
                    self._hash, self._state = hashlib.sha256(body).digest(), state
                    del self._deferred[:count]
                    self._since = time.monotonic()
                    self._not_before = self._since + _SHARE * (self._since - began)

    def _deferring(self, change: Change, index: Index) -> int:
        """Make a change, and let the thread write it. Holds the lock."""
        result = change(index)
        if result:
            self._add(change)
            if self._thread is None:
                self._start()
        return result

    def _add(self, change: Change) -> None:
        """Take note of a change that was made, and is to be written. Holds the lock."""
        if not self._deferred:
            self._since = time.monotonic()
        self._deferred.append(change)
        self._last += 1

    def _failed(self, error: ConcilError) -> None:
        """Give up the deferred changes: whoever waits for them is told.

        What is logged is not given up: whoever it is for was told that it is there.
        """
        with self._lock:
            self._index = None
            if self._log.rotate():
                logger.warning("%s: %s; tried again later", self.name, error)
                self._not_before = time.monotonic() + _SHARE * _WAIT
            elif self._deferred:
                after = self._last - len(self._deferred)
                self._failures.append(Failure(after, self._last, error))
                self._deferred.clear()

    # The thread --------------------------------------------------------------------

    def _start(self) -> None:
        """Start the thread that writes, if there is one to be had. Holds the lock."""
        self._thread = threading.Thread(target=self._save_later, name="concil-index", daemon=True)
        if not start_thread(self._thread, ""):
            self._thread = None

    def _save_later(self) -> None:
        while True:
            with self._lock:
                while self._deferred:
                    due = max(self._since + _WAIT, self._not_before) - time.monotonic()
                    if due <= 0:
                        break
                    self._lock.wait(min(due, threading.TIMEOUT_MAX))
                if not self._deferred:
                    self._thread = None
                    return
            self.save()
