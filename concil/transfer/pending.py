"""Images that are not in place yet when they are written: their outcomes wait for that."""

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
from concil.limits import start_thread

_IN_MEMORY = MIB  # bytes

Key = TypeVar("Key")
Value = TypeVar("Value")


class Saving(Protocol):
    """What an image in a layout waits for: its entry is written together with others."""

    @property
    def is_over(self) -> bool:
        """Whether it is written, or cannot be."""
        ...

    @property
    def error(self) -> ConcilError | None:
        """Why it could not be written; None: it was."""
        ...


class Pending(Protocol):
    """Destinations that are not in place at once. Any thread may call any method.

    Archives appear as a whole at the end; the index of a layout is saved now and then.
    """

    def begin(self, destination: str) -> int:
        """Return what `saving` has to know, before anything is asked of a destination."""
        ...

    def saving(self, destination: str, begun: int) -> Saving | None:
        """What an image in a layout waits for; None: it is in place."""
        ...

    def on_save(self, saved: Callable[[], object]) -> None:
        """Call ``saved``, in any thread, whenever a `Saving` may be over."""
        ...

    def save(self) -> None:
        """Save the indexes of layouts now; one that cannot be saved has an error."""
        ...

    def is_pending(self, destination: str) -> bool:
        """Whether an image is there only after `finish`."""
        ...

    def finish(self) -> None:
        """Let them appear; one that cannot has a `failure`. Raises Cancelled."""
        ...

    def failure(self, destination: str) -> ConcilError | None:
        """Why an image is not there; None: it is."""
        ...


class Unsaved(Generic[Value]):
    """What waits for layouts to be saved. Any thread may call any method.

    What waits no more is handed over by a thread of its own, which ends when nothing waits: those
    that copy may be busy for hours.
    """

    def __init__(self, end: Callable[[Value, ConcilError | None], object]) -> None:
        """Begin without any.

        Args:
            end: gets what waits no more, with what went wrong. What it raises is dropped.
        """
        self._end = end
        self._lock = threading.Condition()  # guards the fields below
        self._waiting: list[tuple[Value, Saving]] = []
        self._thread: threading.Thread | None = None

    def add(self, value: Value, saving: Saving) -> None:
        """Add one."""
        with self._lock:
            self._waiting.append((value, saving))
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="concil-outcomes")
                if not start_thread(self._thread, ""):
                    self._thread = None
            self._lock.notify_all()

    @contextlib.contextmanager
    def saved_at_end(self, pending: Pending | None) -> Iterator[None]:
        """Save layouts at the end of the block, however it ends, and hand over what waits."""
        maker = os.getpid()
        if pending is not None:
            pending.on_save(self._look)
        try:
            yield
        finally:
            # In a child that is forked within the block locks stay taken, and its parent saves.
            if pending is not None and os.getpid() == maker:
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
                over = self._pop_over()
                while self._waiting and not over:
                    self._lock.wait()
                    over = self._pop_over()
                if not over:
                    self._thread = None
                    return
            for value, error in over:
                with contextlib.suppress(BaseException):
                    self._end(value, error)

    def _pop_over(self) -> list[tuple[Value, ConcilError | None]]:
        """Remove what waits no more. Holds the lock."""
        waiting, self._waiting = self._waiting, []
        over: list[tuple[Value, ConcilError | None]] = []
        for value, saving in waiting:
            if saving.is_over:
                over.append((value, saving.error))
            else:
                self._waiting.append((value, saving))
        return over


class Spool(Generic[Key, Value]):
    """Pairs in their order; of the values only a MiB is in memory. One thread at a time."""

    def __init__(self) -> None:
        """Begin without any; the file that takes the values has no name."""
        self._keys: list[Key] = []
        self._values: IO[bytes] | None = None

    def add(self, key: Key, value: Value) -> None:
        """Add a pair."""
        if self._values is None:
            self._values = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115 - by `close`
        self._keys.append(key)
        pickle.dump(value, self._values)

    def __iter__(self) -> Iterator[tuple[Key, Value]]:
        """Yield all pairs; nothing may be added any more."""
        if self._values is not None:
            self._values.seek(0)
            for key in self._keys:
                yield key, pickle.load(self._values)  # noqa: S301 - what `add` has written

    def close(self) -> None:
        """Drop all."""
        self._keys = []
        if self._values is not None:
            self._values.close()
        self._values = None
