"""Stops a relay at a request, so that a process can be killed there."""

from __future__ import annotations

from collections.abc import Sequence

from tests.resume.child_processes import TIMEOUT, start, wait_for_end
from tests.support.faults import Direction, Fault
from tests.support.relay import Relay
from tests.support.request_log import RequestLog


class StallAfterRequest:
    """Stalls one direction of a relay when the n-th request of a method has passed.

    With "up", whoever is killed then has the answer to it; with "down", the registry has
    processed it, and the answer is held back.
    """

    def __init__(self, method: str, number: int, direction: Direction, *, part: str = "") -> None:
        self.log = RequestLog()
        self.relay: Relay | None = None
        self._method, self._part, self._left = method, part, number
        self._direction = direction

    def upstream(self, connection: int, passed: bytes) -> bool:
        """See `Observer`."""
        before = self._complete()
        lost = self.log.upstream(connection, passed)
        self._left -= self._complete() - before
        if self._left <= 0 and self.relay is not None:
            self.relay.add_fault(
                Fault(action="stall", after=0, direction=self._direction, total=True)
            )
            self.relay = None
        return lost

    def _complete(self) -> int:
        requests = self.log.matching(self._method, self._part)
        return sum(request.is_complete for request in requests)


def kill_in_stall(relay: Relay, stall: StallAfterRequest, arguments: Sequence[str]) -> None:
    """Run ``concil``, and kill it when the relay stalls."""
    stall.relay = relay
    child = start(arguments)
    try:
        relay.wait_for(lambda watched: watched.fired_count > 0, timeout=TIMEOUT)
    finally:
        child.kill()
        wait_for_end(child)
    relay.break_connections()  # what is held back never arrives
