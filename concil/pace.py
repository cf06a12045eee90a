"""Turns at something that gives so many units a second: requests of a host, bytes of a line."""

from __future__ import annotations

SLACK = 0.1  # seconds; what somebody is late by is caught up, and no more


class Schedule:
    """Hands out turns, evenly spaced; whoever comes first goes first. Not locked.

    A turn is a point in time that is given away at once: whoever waits for it holds
    nothing, wakes up once, and is not overtaken.
    """

    def __init__(self, rate: float) -> None:
        """Give ``rate`` units a second."""
        self.rate = rate
        self._next: float | None = None  # monotonic seconds, when the next turn is due

    def reserve(self, units: float, now: float) -> float:
        """Take the next turn, for so many units.

        Args:
            now: monotonic seconds.
        Returns:
            When it is, in monotonic seconds; it may be over.
        """
        turn = now if self._next is None else max(self._next, now - SLACK)
        self._next = turn + units / self.rate
        return turn

    def give_back(self, units: float) -> None:
        """Return units of a turn that were not needed."""
        if self._next is not None:
            self._next -= units / self.rate
