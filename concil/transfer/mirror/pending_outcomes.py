"""Outcomes of images that wait until their archive is complete."""

from __future__ import annotations

import contextlib
import os
import pickle
import tempfile
import threading
from collections.abc import Callable, Iterator
from typing import IO, Generic, Protocol, TypeVar

from concil.config import MIB
from concil.errors import ConcilError
from concil.runtime.limits import start_thread

_MAX_IN_MEMORY = MIB  # bytes

Key = TypeVar("Key")
Value = TypeVar("Value")


class Saving(Protocol):
    """A pending save of a layout's index, which writes the entries of several images."""

    @property
    def is_over(self) -> bool:
        """Whether the save has succeeded or failed."""
        ...

    @property
    def error(self) -> ConcilError | None:
        """Why the save failed; None: it succeeded or is pending."""
        ...


class PendingDestinations(Protocol):
    """Destinations that become visible later. Any thread may call any method.

    An archive appears as a whole at the end; the index of a layout is saved at intervals.
    """

    def begin(self, destination: str) -> int:
        """Return the start number for `saving`; call it before using the destination."""
        ...

    def saving(self, destination: str, start_number: int) -> Saving | None:
        """Return the save that an image in a layout waits for; None: it is in place."""
        ...

    def on_save(self, saved: Callable[[], object]) -> None:
        """Call ``saved``, in any thread, whenever a `Saving` may be over."""
        ...

    def save(self) -> None:
        """Save the indexes of layouts now; a failure becomes the error of its `Saving`."""
        ...

    def is_pending(self, destination: str) -> bool:
        """Whether an image appears only after `commit`."""
        ...

    def commit(self) -> None:
        """Complete the destinations; failures are in `commit_error`. Raises Cancelled."""
        ...

    def commit_error(self, destination: str) -> ConcilError | None:
        """Return why an image is not in place; None: it is."""
        ...


class Unsaved(Generic[Value]):
    """Values that wait for layouts to be saved. Any thread may call any method.

    A separate thread passes on finished values, because coordinators may be busy for hours. It
    ends when no value is waiting.
    """

    def __init__(self, end: Callable[[Value, ConcilError | None], object]) -> None:
        """Start empty.

        Args:
            end: called with each finished value and its error; its exceptions are ignored.
        """
        self._end = end
        self._lock = threading.Condition()  # guards the fields below
        self._waiting: list[tuple[Value, Saving]] = []
        self._thread: threading.Thread | None = None

    def add(self, value: Value, saving: Saving) -> None:
        """Add a value that waits for ``saving``."""
        with self._lock:
            self._waiting.append((value, saving))
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="concil-outcomes")
                if not start_thread(self._thread, ""):
                    self._thread = None
            self._lock.notify_all()

    @contextlib.contextmanager
    def saved_at_end(self, pending: PendingDestinations | None) -> Iterator[None]:
        """Save layouts and pass on all values at the end of the block, even after an error."""
        owner_pid = os.getpid()
        if pending is not None:
            pending.on_save(self._look)
        try:
            yield
        finally:
            # In a child forked within the block locks stay held, and the parent saves.
            if pending is not None and os.getpid() == owner_pid:
                pending.save()
                with self._lock:
                    thread = self._thread
                if thread is not None:
                    thread.join()
                self._work()

    def _look(self) -> None:
        with self._lock:
            self._lock.notify_all()

    def _work(self) -> None:
        while True:
            with self._lock:
                finished = self._pop_over()
                while self._waiting and not finished:
                    self._lock.wait()
                    finished = self._pop_over()
                if not finished:
                    self._thread = None
                    return
            for value, error in finished:
                with contextlib.suppress(BaseException):
                    self._end(value, error)

    def _pop_over(self) -> list[tuple[Value, ConcilError | None]]:
        """Remove and return the finished values. The caller holds the lock."""
        waiting, self._waiting = self._waiting, []
        finished: list[tuple[Value, ConcilError | None]] = []
        for value, saving in waiting:
            if saving.is_over:
                finished.append((value, saving.error))
            else:
                self._waiting.append((value, saving))
        return finished


class SpooledPairs(Generic[Key, Value]):
    """Ordered pairs whose values are spooled to a file after 1 MiB. One thread at a time."""

    def __init__(self) -> None:
        """Start empty; the file is created on first use and has no name."""
        self._keys: list[Key] = []
        self._values: IO[bytes] | None = None

    def add(self, key: Key, value: Value) -> None:
        """Add a pair."""
        if self._values is None:
            self._values = tempfile.SpooledTemporaryFile(_MAX_IN_MEMORY)  # noqa: SIM115 - by `close`
        self._keys.append(key)
        pickle.dump(value, self._values)

    def __iter__(self) -> Iterator[tuple[Key, Value]]:
        """Yield all pairs; no pair may be added afterwards."""
        if self._values is not None:
            self._values.seek(0)
            for key in self._keys:
                yield key, pickle.load(self._values)  # noqa: S301 - what `add` has written

    def close(self) -> None:
        """Drop all pairs and delete the file."""
        self._keys = []
        if self._values is not None:
            self._values.close()
        self._values = None
