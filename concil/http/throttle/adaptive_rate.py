"""Request rate that decreases after refusals and recovers with successes."""

from __future__ import annotations

from collections import deque

from concil.ratelimit.schedule import Schedule

DECREASE_FACTOR = 0.75  # of the refused rate
RECOVERY_TIME = 10.0  # seconds of full use until the refused rate is reached again
FORGET_FACTOR = 8.0  # times the refused rate; beyond it the limit is dropped
MIN_FIRST_RATE = 10.0  # requests per second; the least that a first refusal assumes
MIN_RATE = 0.5  # requests per second
_WINDOW = 1.0


class AdaptiveRate:
    """Request rate learned from refusals (429, 503). Not thread-safe.

    Registries do not publish their limits, so the rate follows a cubic curve, as in CUBIC TCP:
    a refusal drops it below the rate just accepted; then it rises fast, slowly around the
    refused rate, where the limit is likely to be, and fast again beyond it until the limit is
    dropped. Only time in use counts: an idle hour gives no new information.
    """

    def __init__(self) -> None:
        """Start without a limit."""
        self._refused_rate: float | None = None  # requests per second; None if no limit is known
        self._busy_time = 0.0  # seconds of full use since the last refusal
        self._schedule = Schedule(1.0)
        self._success_times: deque[float] = deque()  # monotonic seconds, within the last second
        self._first_success: float | None = None  # the first since the last refusal

    @property
    def rate(self) -> float | None:
        """Requests per second; None if no limit is known."""
        if self._refused_rate is None:
            return None
        return self._refused_rate * (
            1 + (1 - DECREASE_FACTOR) * (self._busy_time / RECOVERY_TIME - 1) ** 3
        )

    def reserve(self, now: float) -> float:
        """Reserve a slot for the next request and return its time in monotonic seconds."""
        rate = self.rate
        if rate is None:
            return now
        self._schedule.rate = rate
        self._busy_time += 1 / rate
        if self._busy_time > RECOVERY_TIME and rate > FORGET_FACTOR * (self._refused_rate or 0):
            self._refused_rate = None
        return self._schedule.reserve(1, now)

    def record_success(self, now: float) -> None:
        """Record an accepted request at ``now``, in monotonic seconds."""
        if self._first_success is None:
            self._first_success = now
        self._success_times.append(now)
        self._trim_window(now)

    def add_successes(self, count: int, now: float) -> None:
        """Add accepted requests of other processes in the second before ``now``."""
        self._success_times.extend([now] * count)

    def success_count(self, now: float) -> int:
        """Return the number of accepted requests in the second before ``now``."""
        self._trim_window(now)
        return len(self._success_times)

    def record_refusal(self, now: float) -> float:
        """Record a refusal and return the new rate in requests per second."""
        self._trim_window(now)
        rate, accepted = self.rate, float(len(self._success_times))
        if rate is None:
            accepted = max(accepted, MIN_FIRST_RATE)
        else:
            is_full_window = (
                self._first_success is not None and now - self._first_success >= _WINDOW
            )
            # A full second of accepted requests shows where the limit is. The count may be
            # low because few were sent or others share the limit, so halve the rate at most.
            accepted = min(rate, max(accepted, rate / 2)) if is_full_window else rate
        self._refused_rate = max(accepted, MIN_RATE / DECREASE_FACTOR)
        self._busy_time = 0.0
        self._schedule = Schedule(self._refused_rate)
        self._success_times.clear()
        self._first_success = None
        return self._refused_rate * DECREASE_FACTOR

    def _trim_window(self, now: float) -> None:
        while self._success_times and now - self._success_times[0] > _WINDOW:
            self._success_times.popleft()
