"""SingleFlight whose keys have one owner among all processes of a run."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from concurrent.futures import Future

from concil.errors import ConcilError
from concil.runtime.parent_process import ParentProcess
from concil.transfer.single_flight import SingleFlight
from concil.transfer.worker_pool import Result

IS_OWNER, IS_COMPLETE, IS_IN_FLIGHT = range(3)  # what the parent answers to a claim


class SharedSingleFlight(SingleFlight[Result]):
    """SingleFlight of one process; the parent knows the owners in the other ones.

    Any thread may call any method.
    """

    def __init__(self, parent: ParentProcess) -> None:
        """Claim keys from ``parent`` as well."""
        super().__init__()
        self._parent = parent
        parent.subscribe("settled", self._settle)
        parent.subscribe("forget", super().forget)
        parent.subscribe("forget_scope", super().forget_scope)

    def claim(self, key: Hashable) -> tuple[bool, Future[Result]]:
        """Return whether the caller becomes the owner, and the future the owner completes."""
        return self.claim_all([key])[0]

    def claim_all(self, keys: Sequence[Hashable]) -> list[tuple[bool, Future[Result]]]:
        """Claim several keys at once. Returns as `claim` for each."""
        claims = [super(SharedSingleFlight, self).claim(key) for key in keys]
        positions = [position for position, (is_owner, _) in enumerate(claims) if is_owner]
        if not positions:
            return claims
        answers = self._parent.call("claim", [keys[position] for position in positions])
        for position, (answer, result) in zip(positions, answers, strict=True):
            key, future = keys[position], claims[position][1]
            claims[position] = answer == IS_OWNER, future
            if answer == IS_COMPLETE:
                super().complete(key, future, result)
        return claims

    def complete(self, key: Hashable, future: Future[Result], result: Result) -> None:
        """Complete the future of a key, for all processes."""
        super().complete(key, future, result)
        self._parent.post("complete", key, result)

    def release(self, key: Hashable, future: Future[Result]) -> None:
        """Allow a new owner after a failure. Call it before the future is completed."""
        super().release(key, future)
        self._parent.post("release", key)

    def forget(self, key: Hashable) -> None:
        """Allow a new owner although the last one succeeded, in all processes."""
        super().forget(key)
        self._parent.post("forget", key)

    def forget_scope(self, scope: str) -> None:
        """Allow new owners for finished keys of a scope, in all processes."""
        super().forget_scope(scope)
        self._parent.post("forget_scope", scope)

    def _settle(self, key: Hashable, result: Result | None) -> None:
        """Complete a key that another process owns; None: it has failed."""
        with self._lock:
            future = self._in_flight.get(key)
        if future is None or future.done():
            return
        if result is not None:
            super().complete(key, future, result)
            return
        super().release(key, future)
        future.set_exception(ConcilError("another process could not transfer it"))
