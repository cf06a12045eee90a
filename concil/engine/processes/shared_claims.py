"""Claims of the processes of a run: which of them transfers a blob."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Hashable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, Protocol

from concil.errors import ConcilError
from concil.transfer.shared_single_flight import IS_COMPLETE, IS_IN_FLIGHT, IS_OWNER
from concil.transfer.single_flight import SingleFlight


class SupportsNotify(Protocol):
    """A child process."""

    def notify(self, event: str, *arguments: Any) -> None:  # noqa: ANN401 - as the event has
        """Send an event; nothing happens if the process has ended."""
        ...


class SharedClaims:
    """One `SingleFlight` for all processes. Any thread may call any method."""

    def __init__(self) -> None:
        """Start without claims."""
        self._single_flight: SingleFlight[Any] = SingleFlight()
        self._lock = threading.Lock()  # guards the field below
        self._owned: defaultdict[SupportsNotify, dict[Hashable, Future[Any]]] = defaultdict(dict)

    def claim(self, child: SupportsNotify, keys: Sequence[Hashable]) -> list[tuple[int, Any]]:
        """Claim keys for a process; return an answer, and the result if there is one, for each.

        If the key is in flight, the process gets the event "settled" later.
        """
        answers: list[tuple[int, Any]] = []
        for key in keys:
            is_owner, future = self._single_flight.claim(key)
            if is_owner:
                with self._lock:
                    self._owned[child][key] = future
                answers.append((IS_OWNER, None))
            elif future.done() and future.exception() is None:
                answers.append((IS_COMPLETE, future.result()))
            else:
                future.add_done_callback(partial(self._settle, child, key))
                answers.append((IS_IN_FLIGHT, None))
        return answers

    def complete(self, child: SupportsNotify, key: Hashable, result: object) -> None:
        """Complete a key of a process."""
        future = self._pop(child, key)
        if future is not None:
            self._single_flight.complete(key, future, result)

    def release(self, child: SupportsNotify, key: Hashable) -> None:
        """Allow a new owner of a key after a failure."""
        future = self._pop(child, key)
        if future is not None:
            self._single_flight.release(key, future)
            future.set_exception(ConcilError("the owner has failed"))

    def release_all(self, child: SupportsNotify) -> None:
        """Allow new owners of all keys of a process that has ended."""
        with self._lock:
            keys = list(self._owned[child])
        for key in keys:
            self.release(child, key)
        with self._lock:
            del self._owned[child]

    def forget(self, key: Hashable) -> None:
        """Allow a new owner of a completed key."""
        self._single_flight.forget(key)

    def forget_scope(self, scope: str) -> None:
        """Allow new owners of the completed keys of a scope."""
        self._single_flight.forget_scope(scope)

    def _pop(self, child: SupportsNotify, key: Hashable) -> Future[Any] | None:
        with self._lock:
            return self._owned[child].pop(key, None)

    def _settle(self, child: SupportsNotify, key: Hashable, done: Future[Any]) -> None:
        child.notify("settled", key, None if done.exception() else done.result())
