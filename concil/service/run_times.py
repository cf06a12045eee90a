"""When a mirror runs: at an interval, or at the times of a cron line."""

from __future__ import annotations

import random
import time
from datetime import datetime
from typing import Protocol

from concil.errors import UsageError, safe_repr
from concil.runtime.durations import parse_duration

MIN_INTERVAL = 1.0  # seconds
MAX_INTERVAL = 366 * 24 * 3600.0  # seconds
_MAX_JITTER = 60.0  # seconds, unless it is given


class Clock:
    """The clocks of the machine."""

    def monotonic(self) -> float:
        """Return seconds that nobody sets back."""
        return time.monotonic()

    def now(self) -> float:
        """Return the seconds since the epoch, as the machine's clock is set."""
        return time.time()


class Schedule(Protocol):
    """Says when the next run begins. One thread at a time."""

    def plan_next(self) -> None:
        """Plan the run after one that has just begun, or the first one."""
        ...

    def seconds_left(self) -> float:
        """Return the seconds until the planned run; 0 or less: it is due.

        Call it from time to time while waiting: somebody may set the clock.
        """
        ...


class IntervalSchedule:
    """Runs at an interval, measured from begin to begin; the first run is due at once.

    A run that takes longer than the interval is followed by the next one without a pause: runs
    do not pile up.
    """

    def __init__(
        self, interval: float, jitter: float | None = None, clock: Clock | None = None
    ) -> None:
        """Set the interval in seconds.

        Args:
            jitter: at most so many seconds are added to each wait; None: a tenth of the
                interval, at most a minute.
        """
        self.interval = interval
        self._jitter = min(interval / 10, _MAX_JITTER) if jitter is None else jitter
        self._clock = clock or Clock()
        self._due_at: float | None = None  # monotonic seconds; None: before the first run

    def plan_next(self) -> None:
        """Plan the run after one that has just begun. See `Schedule`."""
        now = self._clock.monotonic()
        if self._due_at is None:
            self._due_at = now
            return
        self._due_at = now + self.interval + random.uniform(0, self._jitter)

    def seconds_left(self) -> float:
        """Return the seconds until the planned run. See `Schedule`."""
        if self._due_at is None:
            return 0.0
        return self._due_at - self._clock.monotonic()


class CronSchedule:
    """Runs at the times of a cron line, in the time zone of the machine.

    Times that pass during a run are left out. After the clock was set back, the next time is
    calculated again; after it was set forward over several times, there is one run.
    """

    def __init__(self, line: str, jitter: float | None = None, clock: Clock | None = None) -> None:
        """Set the cron line: five fields, or six with seconds first.

        Args:
            jitter: at most so many seconds are added to each time; None: a tenth of the time
                until then, at most a minute.
        Raises:
            UsageError: it is not a cron line, it never occurs, or cronsim is missing.
        """
        self._line = line
        self._jitter = jitter
        self._clock = clock or Clock()
        self._planned_at = self._due_at = 0.0  # seconds since the epoch
        self._find_next(self._clock.now())

    def plan_next(self) -> None:
        """Plan the next time of the line. See `Schedule`."""
        now = self._clock.now()
        due = self._find_next(now)
        most = min((due - now) / 10, _MAX_JITTER) if self._jitter is None else self._jitter
        self._planned_at, self._due_at = now, due + random.uniform(0, most)

    def seconds_left(self) -> float:
        """Return the seconds until the planned run. See `Schedule`."""
        now = self._clock.now()
        if now < self._planned_at:  # the clock was set back
            self.plan_next()
        return self._due_at - now

    def _find_next(self, moment: float) -> float:
        try:
            from cronsim import CronSim, CronSimError  # noqa: PLC0415  # an extra
        except ImportError as error:
            raise UsageError(
                "cron lines need the package cronsim", remedy="type: pip install 'concil[service]'"
            ) from error
        try:
            local = datetime.fromtimestamp(moment)  # noqa: DTZ006 - a cron line is in local time
            return next(CronSim(self._line, local)).timestamp()
        except (CronSimError, StopIteration) as error:
            raise UsageError(
                f"not a cron line: {safe_repr(self._line)}: {str(error) or 'it never occurs'}",
                remedy='write five fields, for example "*/10 * * * *": minute, hour, day of the '
                "month, month, day of the week",
            ) from error


def create_schedule(every: str | None, cron: str | None, jitter: str | None) -> Schedule:
    """Return the schedule of the options; exactly one of the first two is given.

    Raises:
        UsageError: a value is invalid.
    """
    seconds = None if jitter is None else parse_duration(jitter)
    if cron is not None:
        return CronSchedule(cron, seconds)
    interval = parse_duration(every or "")
    if not MIN_INTERVAL <= interval <= MAX_INTERVAL:
        raise UsageError(
            f"the interval {every} is not between 1 second and 366 days",
            remedy="choose another one, for example 10m",
        )
    return IntervalSchedule(interval, seconds)
