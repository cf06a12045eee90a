"""Tracks the quota of a host to stop before a request is refused."""

from __future__ import annotations

import logging
from dataclasses import replace

from concil.errors import QuotaExceeded
from concil.http.throttle.ratelimit_headers import MAX_WAIT, Quota, format_duration

logger = logging.getLogger(__name__)

LOW_PERCENT = 10  # per cent of the limit left; at or below it a warning is logged
POLL_INTERVAL = 0.05  # seconds between checks while requests in flight may use up the quota


class QuotaTracker:
    """Quota of one host. Not thread-safe: its `HostLimiter` holds the lock."""

    def __init__(self, host: str) -> None:
        """Start without a known quota.

        Args:
            host: display name, for messages.
        """
        self._host = host
        self._quota: Quota | None = None
        self._reset_time = 0.0  # monotonic seconds at which the quota renews
        self._is_exhausted = False  # for longer than the maximum wait
        self._has_warned = False
        self.in_flight = 0  # counted requests without a response yet

    @property
    def quota(self) -> Quota | None:
        """The quota that counts; None: none is known."""
        if self._quota is not None and self._is_exhausted:
            return replace(self._quota, remaining=0)
        return self._quota

    def is_counted(self, *, is_pull: bool) -> bool:
        """Return whether a request counts against the quota.

        Args:
            is_pull: whether it is a GET of a manifest.
        """
        return self._quota is not None and (is_pull or not self._quota.is_pull_quota)

    def wait_time(self, now: float) -> float:
        """Return the seconds to wait before the next counted request; 0 if it may be sent.

        Raises:
            QuotaExceeded: the quota is used up for longer than the maximum wait.
        """
        quota = self._quota
        if quota is None:
            return 0.0
        if now >= self._reset_time:
            self._quota, self._is_exhausted = None, False
            return 0.0
        if self._is_exhausted:
            raise self._exceeded_error(quota, self._reset_time - now)
        if not quota.is_standard or quota.remaining > self.in_flight:
            return 0.0
        if self.in_flight:
            return POLL_INTERVAL  # the pending responses will report the quota
        if quota.is_short:
            return self._reset_time - now
        self.exhaust(quota, now)
        raise self._exceeded_error(quota, self._reset_time - now)

    def record(self, quota: Quota, now: float, *, is_outdated: bool) -> None:
        """Record a reported quota, keeping the lowest ``remaining`` of concurrent responses.

        Args:
            is_outdated: whether the request was sent before the current quota was reported.
                Responses may arrive out of order, so a higher ``remaining`` is then older.
        """
        current = self._quota
        if current is None or quota.remaining < current.remaining or not is_outdated:
            self._quota, self._is_exhausted = quota, self._is_exhausted and not quota.remaining
            if not self._is_exhausted:
                self._reset_time = now + (MAX_WAIT if quota.wait_time is None else quota.wait_time)
        self._warn_if_low(quota)

    def exhaust(self, quota: Quota | None, now: float) -> None:
        """Block counted requests until the quota renews, or for the maximum wait if unknown."""
        self._quota = quota or self._quota or Quota(0, is_pull_quota=True)
        reset_after = self._quota.reset_after
        self._reset_time = now + (MAX_WAIT if reset_after is None else max(reset_after, 1.0))
        self._is_exhausted = True

    def _warn_if_low(self, quota: Quota) -> None:
        is_long = quota.wait_time is not None and not quota.is_short
        is_low = quota.limit is not None and quota.remaining * 100 <= quota.limit * LOW_PERCENT
        if is_long and is_low and not self._has_warned:
            self._has_warned = True
            logger.warning("%s: %s", self._host, _format_remaining(quota))

    def _exceeded_error(self, quota: Quota, seconds: float) -> QuotaExceeded:
        if quota.reset_after is not None:
            when = f"in {format_duration(seconds)}"
        else:
            when = "later" if quota.window is None else f"within {format_duration(quota.window)}"
        return QuotaExceeded(
            f"{self._host}: the quota is used up ({_format_remaining(quota)}): no further "
            "requests are sent",
            remedy=f"log in for a higher quota, or try again when it renews, {when}",
        )


def _format_remaining(quota: Quota) -> str:
    """Format the remaining quota for messages."""
    of = f" of {quota.limit}" if quota.limit else ""
    window = f" in {format_duration(quota.window)}" if quota.window else ""
    return f"{quota.remaining}{of} {'pulls' if quota.is_pull_quota else 'requests'}{window} left"
