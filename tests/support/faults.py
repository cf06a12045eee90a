"""What goes wrong on the connections of a relay, and when."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

# Python 3.11 has no `type` statement.
Action: TypeAlias = Literal["fin", "rst", "stall"]
Direction: TypeAlias = Literal["up", "down"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that goes wrong.

    Args:
        action: "fin" closes both sides in order, "rst" resets both, "stall"
            forwards no more in that direction and keeps the connection open.
        after: Bytes that pass first, exactly. 0 waits for the first byte and
            holds it back: "down" with 0 loses an answer to a whole request.
        direction: "up" is client to server.
        every: Only every k-th of the connections that reach `after`.
        times: How often at most; `None` is always.
        total: Count the bytes of all connections since the fault was added,
            not those of each one. Such a fault happens at most once.
    """

    action: Action
    after: int  # bytes
    direction: Direction = "down"
    every: int = 1
    times: int | None = 1
    total: bool = False


class _ArmedFault:
    """A fault with its counters."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.fired = 0
        self._passed = 0  # bytes of all connections
        self._reached: set[int] = set()  # connections that have been decided

    def bytes_before_fault(self, connection: int, passed: int) -> int | None:
        """Return how many more bytes may pass before the fault, `None` for no limit."""
        fault = self.fault
        if fault.total:
            return None if self.fired else fault.after - self._passed
        if fault.times is not None and self.fired >= fault.times:
            return None
        if connection in self._reached:
            return None
        return fault.after - passed

    def count(self, size: int) -> None:
        self._passed += size

    def fire(self, connection: int) -> bool:
        """Decide for a connection that has reached the fault; true if it happens."""
        self._reached.add(connection)
        if not self.fault.total and len(self._reached) % self.fault.every:
            return False
        self.fired += 1
        return True


class FaultPlan:
    """The faults of one relay. The relay serialises all calls."""

    def __init__(self, faults: Iterable[Fault] = ()) -> None:
        self._armed = [_ArmedFault(fault) for fault in faults]
        self._cleared_count = 0  # faults that happened and were cleared

    @property
    def fired_count(self) -> int:
        """How many faults have happened."""
        return self._cleared_count + sum(armed.fired for armed in self._armed)

    def add(self, fault: Fault) -> None:
        """Arm one more fault; connections that are past its byte meet it at once."""
        self._armed.append(_ArmedFault(fault))

    def clear(self) -> None:
        """Forget all faults, not how many have happened."""
        self._cleared_count = self.fired_count
        self._armed = []

    def admit(
        self, connection: int, direction: Direction, passed: int, size: int
    ) -> tuple[int, Action | None]:
        """Return how many of the next bytes may pass, and what happens after them.

        Args:
            connection: Its number.
            direction: The way of the bytes.
            passed: Bytes that went this way on this connection before.
            size: How many bytes have arrived, at least 1.
        """
        ours = [armed for armed in self._armed if armed.fault.direction == direction]
        allowed = size
        action: Action | None = None
        # The nearest fault first: one that is let off must not hide a later one.
        for armed in sorted(ours, key=lambda armed: _distance(armed, connection, passed)):
            room = armed.bytes_before_fault(connection, passed)
            if room is None or room > size:
                continue
            if armed.fire(connection):
                allowed, action = max(room, 0), armed.fault.action
                break
        for armed in ours:
            armed.count(allowed)
        return allowed, action


def _distance(armed: _ArmedFault, connection: int, passed: int) -> float:
    room = armed.bytes_before_fault(connection, passed)
    return float("inf") if room is None else room
