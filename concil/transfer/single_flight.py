"""SingleFlight: each key has one owner, all others wait for its result."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Future
from typing import Generic

from concil.runtime.lru_dict import MAX_ITEMS, LruDict
from concil.transfer.worker_pool import Result, wait_for

__all__ = ["SingleFlight", "exclusive"]


class SingleFlight(Generic[Result]):
    """Gives each key one owner at a time, whose result all callers share. Any thread.

    The most recently used results are kept. After the result of a blob was evicted, a
    request to the destination finds the blob there.
    """

    def __init__(self, max_results: int = MAX_ITEMS) -> None:
        """Keep up to ``max_results`` results."""
        self._in_flight: dict[Hashable, Future[Result]] = {}
        # Results, not futures: a future takes 1000 bytes, and a mirror has many.
        self._results: LruDict[Hashable, Result] = LruDict(max_results)
        self._lock = threading.Lock()

    def claim_all(self, keys: Sequence[Hashable]) -> list[tuple[bool, Future[Result]]]:
        """Claim several keys at once. Returns as `claim` for each."""
        return [self.claim(key) for key in keys]

    def claim(self, key: Hashable) -> tuple[bool, Future[Result]]:
        """Return whether the caller becomes the owner, and the future the owner completes."""
        future: Future[Result] = Future()
        with self._lock:
            if key in self._results:
                self._results.move_to_end(key)
                future.set_result(self._results[key])
                return False, future
            current = self._in_flight.setdefault(key, future)
            return current is future, current

    def complete(self, key: Hashable, future: Future[Result], result: Result) -> None:
        """Complete the future of a key, and keep its result only."""
        with self._lock:
            if self._in_flight.get(key) is future:
                del self._in_flight[key]
                self._results.store(key, result)
        future.set_result(result)

    def release(self, key: Hashable, future: Future[Result]) -> None:
        """Allow a new owner after a failure. Call it before the future is completed."""
        with self._lock:
            if self._in_flight.get(key) is future:
                del self._in_flight[key]

    def forget(self, key: Hashable) -> None:
        """Allow a new owner although the last one succeeded; no effect while one is active."""
        with self._lock:
            self._results.pop(key, None)
            current = self._in_flight.get(key)
            if current is not None and current.done():
                del self._in_flight[key]

    def forget_scope(self, scope: str) -> None:
        """Allow new owners for finished keys that are tuples and begin with ``scope``."""
        self.forget_results(lambda key: isinstance(key, tuple) and key[0] == scope)

    def forget_results(self, is_stale: Callable[[Hashable], bool]) -> None:
        """Allow new owners for finished keys that are stale."""
        with self._lock:
            for key in [key for key in self._results if is_stale(key)]:
                del self._results[key]


@contextlib.contextmanager
def exclusive(
    single_flight: SingleFlight[None], key: Hashable, cancel: threading.Event
) -> Iterator[None]:
    """Run the block alone for the first caller; later callers wait for it, then run together."""
    is_first, future = single_flight.claim(key)
    if not is_first:
        wait_for(future, cancel)
        yield
        return
    try:
        yield
    finally:
        single_flight.release(key, future)
        future.set_result(None)
