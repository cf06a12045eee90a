"""How many requests a second a host was found to bear: less after a refusal, then more again."""

from __future__ import annotations

from collections import deque

from concil.pace import Schedule

CUT = 0.75  # of the rate that was refused
BACK = 10.0  # seconds of full use until that rate is reached again
FORGOTTEN = 8.0  # times that rate: the host bears whatever comes
FIRST = 10.0  # requests a second; one refusal of a few is no reason to go more slowly
LEAST = 0.5  # requests a second
_SECOND = 1.0


class LearnedRate:
    """A limit that a host showed by its refusals, and that time takes away. Not locked.

    Nobody tells what a front allows, so it is felt for: at a refusal the rate drops below
    what was just accepted; then it grows fast, slowly around the rate that was refused,
    where the limit is likely to be, and fast again beyond it until it is forgotten. Time
    counts as far as requests use it: after a quiet hour nothing new is known.
    """

    def __init__(self) -> None:
        """Begin without a limit."""
        self._refused: float | None = None  # requests a second; None: no limit is known
        self._used = 0.0  # seconds of full use since the last refusal
        self._schedule = Schedule(1.0)
        self._accepted: deque[float] = deque()  # when, within the last second
        self._since: float | None = None  # the first of them since the last refusal

    @property
    def rate(self) -> float | None:
        """Requests a second; None: no limit is known."""
        if self._refused is None:
            return None
        return self._refused * (1 + (1 - CUT) * (self._used / BACK - 1) ** 3)

    def reserve(self, now: float) -> float:
        """Take the turn of the next request; return when it is."""
        rate = self.rate
        if rate is None:
            return now
        self._schedule.rate = rate
        self._used += 1 / rate
        if self._used > BACK and rate > FORGOTTEN * (self._refused or 0):
            self._refused = None
        return self._schedule.reserve(1, now)

    def accepted(self, now: float) -> None:
        """The host did what it was asked for."""
        if self._since is None:
            self._since = now
        self._accepted.append(now)
        self._trim(now)

    def refused(self, now: float) -> float:
        """The host had enough; return the rate from now on."""
        self._trim(now)
        rate, seen = self.rate, float(len(self._accepted))
        if rate is None:
            seen = max(seen, FIRST)
        else:
            whole = self._since is not None and now - self._since >= _SECOND
            # What was accepted tells where the limit is, if a second was seen. It may be
            # shared with others, or have been little that was wanted: half is enough.
            seen = min(rate, max(seen, rate / 2)) if whole else rate
        self._refused = max(seen, LEAST / CUT)
        self._used = 0.0
        self._schedule = Schedule(self._refused)
        self._accepted.clear()
        self._since = None
        return self._refused * CUT

    def _trim(self, now: float) -> None:
        while self._accepted and now - self._accepted[0] > _SECOND:
            self._accepted.popleft()
