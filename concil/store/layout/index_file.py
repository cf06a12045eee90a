"""Batches changes of index.json."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from concil.config import MIB
from concil.errors import ConcilError, NotFound, StoreError, safe_repr
from concil.fs.nofollow_tree import NoFollowTree, StatSignature
from concil.runtime.dataclass import dataclass
from concil.runtime.forking import register_after_fork
from concil.runtime.limits import start_thread
from concil.store.layout.index import Index
from concil.store.layout.index_change import IndexChange
from concil.store.layout.index_log import ChangeLog, has_logs, stale

logger = logging.getLogger(__name__)

MAX_INDEX_SIZE = 32 * MIB  # bytes of an index.json; enough for 100,000 entries
REMEDY = "check the path; a layout contains oci-layout, index.json and blobs/"
# Writing a large index takes long. To keep a run from spending its time on that, changes are
# collected for one second, and for ten times as long as the last write took.
_WAIT = 1.0  # seconds
_SHARE = 10.0
_FEW = 1_000  # entries that are written quickly

# Returns the number of changed entries, or whether anything changed.
Change = Callable[[Index], int]
Result = TypeVar("Result")


def untyped_entries(name: str, count: int) -> str:
    """Return the warning about index entries without mediaType."""
    return f"{name}: mediaType is missing in {count} entries; it is read from their manifests"


@dataclass(frozen=True, slots=True)
class Failure:
    """Changes that were not written: those with numbers above ``after``, up to ``last``."""

    after: int
    last: int
    error: ConcilError


class IndexFile:
    """The index of a layout, in memory and on disk.

    Any thread and any process may call any method at any time; changes of other threads and
    processes are never lost. Deferred changes are visible in this process at once, and to
    others once they are written. A background thread writes them and ends when there are none.
    """

    def __init__(self, tree: NoFollowTree) -> None:
        """Prepare; nothing is read."""
        self._tree = tree
        self.name = safe_repr(str(tree.root / "index.json"))
        self._renew()
        register_after_fork(self, IndexFile._renew)

    def _renew(self) -> None:
        """Reset the state, also in a forked child: the parent writes the deferred changes."""
        self._saving = threading.Lock()  # held over disk writes: one write at a time
        self._lock = threading.Condition()  # guards the fields below
        self._index: Index | None = None  # content of the file, with the deferred changes
        self._hash = b""  # of the file when it was last read or written
        self._state: StatSignature | None = None  # of the file at that time
        self._is_writing = False  # only this thread changes the file
        self._deferred: list[Change] = []  # the last one has the number `_last`
        self._last = 0  # number of the last deferred change
        self._failures: list[Failure] = []
        self._has_warned = False
        self._thread: threading.Thread | None = None
        self._first_change_time = 0.0  # monotonic seconds
        self._earliest_save = 0.0  # monotonic seconds
        self._listeners: list[Callable[[], object]] = []
        self._logging = threading.Lock()  # held over disk writes: one log entry at a time
        self._log = ChangeLog(self._tree)

    def ask(self, question: Callable[[Index], Result]) -> Result:
        """Return the result of a function of the index.

        Raises:
            InvalidManifest, NotFound, StoreError: index.json cannot be read.
        """
        with self._lock:
            return question(self._current())

    def change(self, change: Change) -> int:
        """Apply a change, and write it together with all deferred changes.

        Returns:
            The result of ``change``.
        Raises:
            StoreError: the write fails; index.json is unchanged.
        """
        return self._write(change)

    def defer(self, change: Change) -> int:
        """Apply a change that is written later, or by `save`.

        Returns:
            The result of ``change``.
        Raises:
            InvalidManifest, NotFound, StoreError: index.json cannot be read.
        """
        with self._lock:
            result = self._is_deferring(change, self._current())
            is_alone = self._thread is None
        if is_alone:  # the thread could not be started
            self.save()
        return result

    def log(self, change: IndexChange) -> int:
        """Apply a change that is on disk on return, either in index.json or in the log.

        It goes to index.json, unless that is large and was written shortly before.

        Returns:
            The result of ``change``.
        Raises:
            StoreError: the write fails.
        """
        with self._logging:  # so that log entries have the order of the changes
            with self._lock:
                index = self._current()
                is_free = not self._deferred and time.monotonic() >= self._earliest_save
                is_logged = len(index) > _FEW and not is_free
                result = self._is_deferring(change, index) if is_logged else 0
            if is_logged and result:
                self._log.append(change)
        return result if is_logged else self.change(change)

    def recover(self) -> None:
        """Write the changes logged by killed processes. Raises StoreError if the write fails."""
        if has_logs(self._tree):
            self._write(None)

    @property
    def last(self) -> int:
        """Number of the last deferred change."""
        with self._lock:
            return self._last

    @property
    def written_number(self) -> int:
        """Number of the last change up to which all changes were written or have failed."""
        with self._lock:
            return self._last - len(self._deferred)

    def is_written(self, number: int) -> bool:
        """Return whether a deferred change and all before it were written or have failed."""
        return number <= self.written_number

    def failure(self, after: int, last: int) -> ConcilError | None:
        """Return why changes of a range were not written; None if there was no failure."""
        with self._lock:
            errors = (
                failure.error
                for failure in self._failures
                if after < failure.last and failure.after < last
            )
            return next(errors, None)

    def save(self) -> None:
        """Write the deferred changes; errors are reported by `failure`."""
        try:
            if not self.is_written(self.last):
                self._write(None)
        except ConcilError as error:
            logger.debug("%s: %s", self.name, error)

    def close(self) -> None:
        """Write the deferred changes and wait for the thread, unless more changes were deferred."""
        self.save()
        with self._saving, self._lock:
            # A log file may have got changes that index.json already had.
            logged = self._log.rotate() if not self._deferred else []
        self._log.remove(logged)
        with self._lock:
            thread = None if self._deferred else self._thread
            self._lock.notify_all()
        if thread is not None and thread is not threading.current_thread():
            thread.join(_WAIT)

    def add_listener(self, listener: Callable[[], object]) -> None:
        """Call ``listener`` after each write of deferred changes, in any thread."""
        with self._lock:
            self._listeners.append(listener)

    def forget(self, listener: Callable[[], object]) -> None:
        """Remove a listener."""
        with self._lock:
            self._listeners.remove(listener)

    # Reading -----------------------------------------------------------------------

    def _current(self) -> Index:
        """Return the index, read again if the file has changed. The caller holds the lock."""
        if self._index is not None and self._is_writing:
            return self._index
        if self._index is not None and self._tree.stat_signature("index.json") == self._state:
            return self._index
        return self._refreshed()

    def _refreshed(self) -> Index:
        """Return the index on disk plus the deferred changes. The caller holds the lock."""
        try:
            body, state = self._tree.read("index.json", MAX_INDEX_SIZE)
        except NotFound as error:
            raise StoreError(f"not a layout: {error}", remedy=REMEDY) from error
        # Compare bytes, not times: a change based on a stale index would lose entries.
        digest = hashlib.sha256(body).digest()
        if self._index is None or digest != self._hash:
            self._index = None
            index = Index.parse(body, self.name)
            self._warn(index.untyped)
            for change in self._deferred:
                change(index)
            self._index = index
        self._hash, self._state = digest, state
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
        with self._tree.locked(), stale(self._tree) as stale_changes:
            start_time = time.monotonic()
            with self._lock:
                index = self._refreshed()
                recovered = [stale_change for stale_change in stale_changes if stale_change(index)]
                result = change(index) if change is not None else 0
                if change is not None and result:
                    self._add(change)
                count = len(self._deferred)
                logged = self._log.rotate()
                body = index.to_bytes() if count or recovered else b""
                self._is_writing = bool(body)
            if body:
                self._replace(body, count, start_time)
            self._log.remove(logged)
            return result

    def _replace(self, body: bytes, count: int, began: float) -> None:
        """Replace the file, which now includes the first ``count`` deferred changes."""
        state: StatSignature | None = None
        try:
            state = self._tree.replace("index.json", body)
        finally:
            with self._lock:
                self._is_writing = False
                if state is None:
                    self._index = None  # the content is unknown until it is read again
                else:
                    self._hash, self._state = hashlib.sha256(body).digest(), state
                    del self._deferred[:count]
                    self._first_change_time = time.monotonic()
                    self._earliest_save = self._first_change_time + _SHARE * (
                        self._first_change_time - began
                    )

    def _is_deferring(self, change: Change, index: Index) -> int:
        """Apply a change and leave the write to the thread. The caller holds the lock."""
        result = change(index)
        if result:
            self._add(change)
            if self._thread is None:
                self._start()
        return result

    def _add(self, change: Change) -> None:
        """Queue a change that was applied. The caller holds the lock."""
        if not self._deferred:
            self._first_change_time = time.monotonic()
        self._deferred.append(change)
        self._last += 1

    def _failed(self, error: ConcilError) -> None:
        """Drop the deferred changes and record the failure for their callers.

        Logged changes are kept: their callers were told that they are stored.
        """
        with self._lock:
            self._index = None
            if self._log.rotate():
                logger.warning("%s: %s; retrying later", self.name, error)
                self._earliest_save = time.monotonic() + _SHARE * _WAIT
            elif self._deferred:
                after = self._last - len(self._deferred)
                self._failures.append(Failure(after, self._last, error))
                self._deferred.clear()

    # The thread --------------------------------------------------------------------

    def _start(self) -> None:
        """Start the writer thread, if the system allows it. The caller holds the lock."""
        self._thread = threading.Thread(target=self._save_later, name="concil-index", daemon=True)
        if not start_thread(self._thread, ""):
            self._thread = None

    def _save_later(self) -> None:
        while True:
            with self._lock:
                while self._deferred:
                    delay = (
                        max(self._first_change_time + _WAIT, self._earliest_save) - time.monotonic()
                    )
                    if delay <= 0:
                        break
                    self._lock.wait(min(delay, threading.TIMEOUT_MAX))
                if not self._deferred:
                    self._thread = None
                    return
            self.save()
