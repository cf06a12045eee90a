"""Virtual scheduling (GCRA): reserve the next time slot at a fixed rate."""

from __future__ import annotations

MAX_CATCH_UP = 0.1  # seconds of unused time that later requests may still use


class Schedule:
    """Assigns evenly spaced time slots, first come, first served. Not thread-safe.

    A slot is assigned immediately, so a waiting caller holds no lock, wakes up once and cannot
    be overtaken.
    """

    def __init__(self, rate: float) -> None:
        """Allow ``rate`` units per second."""
        self.rate = rate
        self._next_time: float | None = None  # monotonic seconds of the next slot

    def reserve(self, units: float, now: float) -> float:
        """Reserve the next slot for ``units``.

        Args:
            now: monotonic seconds.
        Returns:
            The time of the slot in monotonic seconds; it may be in the past.
        """
        slot_time = now if self._next_time is None else max(self._next_time, now - MAX_CATCH_UP)
        self._next_time = slot_time + units / self.rate
        return slot_time

    def release(self, units: float) -> None:
        """Release reserved units that were not used."""
        if self._next_time is not None:
            self._next_time -= units / self.rate
