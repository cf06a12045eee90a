"""Limits the requests to one host: rate, pause and quota, for all threads."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace

import requests

from concil.config import RetryPolicy
from concil.errors import Cancelled
from concil.http.throttle.adaptive_rate import AdaptiveRate
from concil.http.throttle.quota_tracker import QuotaTracker
from concil.http.throttle.ratelimit_headers import (
    BUSY_STATUSES,
    ResponseSummary,
    summarize_response,
)
from concil.oci.reference import display_host
from concil.progress.events import Event, ProgressSink, State, emit
from concil.ratelimit.schedule import Schedule
from concil.runtime.dataclass import dataclass

logger = logging.getLogger(__name__)

MAX_RETRY_AFTER = RetryPolicy().max_retry_after  # seconds
INITIAL_PAUSE = (
    0.5  # seconds after a refusal without Retry-After; doubled until a request is accepted
)
MAX_DOUBLINGS = 6
# A 503 without Retry-After may mean one broken blob, a registry that is down, or nginx limiting
# the rate. It counts as a refusal when the score reaches the maximum while other requests
# succeeded within the window; each response with another status lowers the score.
MAX_BARE_503_SCORE = 3
SUCCESS_WINDOW = 2.0
_BARE_503_DECAY = 0.05
_SAME_PAUSE = 0.5  # seconds by which the end of a pause may differ without being another one
_LONG_PAUSE = 1.0  # seconds of a pause that is worth a warning
_CANCEL_POLL_INTERVAL = 0.2  # seconds between checks of the cancel event


@dataclass(frozen=True, slots=True)
class Permit:
    """Permission for one request; return it to `HostLimiter.record_response`."""

    refusal_count: int  # at the time; the refusal of an older request adds no information
    is_counted: bool  # against the host's quota
    sequence_number: int = 0  # in the order of issue


# Arguments: host[:port], requests per second, concurrent requests, longest pause in seconds.


class HostLimiter:
    """Rate, pause and quota limits of one host. Any thread may call any method.

    A pause applies to all threads. After it they do not send all at once: the refusal has also
    lowered the adaptive rate.
    """

    def __init__(
        self,
        host: str,
        requests_per_second: float | None = None,
        max_concurrent: int | None = None,
        max_retry_after: float = MAX_RETRY_AFTER,
    ) -> None:
        """Set the configured limits.

        Args:
            requests_per_second: None for no fixed rate.
            max_concurrent: maximum number of requests that await a response; None for no limit.
            max_retry_after: seconds; longest pause for a Retry-After header.
        """
        self._host = display_host(host)
        self._max_retry_after = max_retry_after
        self._semaphore = None if max_concurrent is None else threading.Semaphore(max_concurrent)
        self._lock = threading.Lock()  # guards all below
        self._fixed_schedule = (
            None if requests_per_second is None else Schedule(requests_per_second)
        )
        self._adaptive_rate = AdaptiveRate()
        self._quota_tracker = QuotaTracker(self._host)
        self._paused_until = 0.0  # monotonic seconds; no request is sent before
        self._reported_until = 0.0  # monotonic seconds; end of the pause that was reported last
        # Receives an event for each pause that holds a request back.
        self.progress: ProgressSink | None = None
        self._refusal_count = 0
        self._consecutive_refusals = 0  # refusals since a request was accepted
        self._permit_count = 0  # permits issued
        self._last_quota_permit = 0  # permits issued when a response last reported a quota
        self._bare_503_score = 0.0  # recent 503s without Retry-After
        self._has_answered_manifest = False  # a quota would have been announced
        self.is_limiting = requests_per_second is not None  # some request had or may have to wait
        # Called once, when the host starts to limit requests.
        self.on_limiting: Callable[[], object] | None = None
        # Called with the host, the requests that are left and their limit.
        self.on_quota: Callable[[str, int, int | None], object] | None = None
        self._last_success = -SUCCESS_WINDOW  # monotonic seconds of the last successful response

    def acquire(self, cancel: threading.Event, *, is_pull: bool = False) -> Permit:
        """Wait until a request may be sent; no lock is held while waiting.

        Args:
            is_pull: whether the request is a GET of a manifest.
        Raises:
            QuotaExceeded: the quota is used up for longer than the maximum wait.
            Cancelled: ``cancel`` was set.
        """
        if self._semaphore is None:
            return self._wait_for_permit(cancel, is_pull=is_pull)
        while not self._semaphore.acquire(timeout=_CANCEL_POLL_INTERVAL):
            if cancel.is_set():
                raise self._cancelled_error()
        try:
            return self._wait_for_permit(cancel, is_pull=is_pull)
        except BaseException:
            self._semaphore.release()
            raise

    def _wait_for_permit(self, cancel: threading.Event, *, is_pull: bool) -> Permit:
        """Wait for a permit. Raises as `acquire`."""
        while True:
            now = time.monotonic()
            permit, start_time = self.reserve(now, is_pull=is_pull)
            if permit is not None and start_time <= now:
                return permit
            is_cancelled = cancel.wait(start_time - now)
            if permit is not None and self.confirm(permit, is_cancelled=is_cancelled):
                return permit
            if is_cancelled:
                raise self._cancelled_error()

    def reserve(self, now: float, *, is_pull: bool) -> tuple[Permit | None, float]:
        """Reserve the next request.

        Args:
            now: monotonic seconds.
            is_pull: whether the request is a GET of a manifest.
        Returns:
            A permit, and the time from which it may be used if `confirm` agrees; or None, and
            the time to reserve again. Monotonic seconds.
        Raises:
            QuotaExceeded: the quota is used up for longer than the maximum wait.
        """
        with self._lock:
            permit, start_time = self._reserve(now, is_pull=is_pull)
        if permit is None:
            self._report_pause(start_time, now)
        return permit, start_time

    def confirm(self, permit: Permit, *, is_cancelled: bool) -> bool:
        """Return whether a permit may be used after a wait; otherwise it is returned."""
        with self._lock:
            # A permit from before a refusal is void: reserve again, after the pause.
            is_current = (
                permit.refusal_count == self._refusal_count
                and self._paused_until <= time.monotonic()
            )
            if is_current and not is_cancelled:
                return True
            self._quota_tracker.in_flight -= permit.is_counted
            return False

    def record_response(
        self, permit: Permit, response: requests.Response | None, content: bytes = b""
    ) -> None:
        """Return a permit and adjust the limits to the response.

        Args:
            response: None if there was none.
            content: the body of a 429.
        """
        if self._semaphore is not None:
            self._semaphore.release()
        self.record(permit, None if response is None else summarize_response(response, content))

    def record(self, permit: Permit, summary: ResponseSummary | None) -> None:
        """Return a permit and adjust the limits to a response; None: there was none."""
        if summary is None:
            with self._lock:
                self._quota_tracker.in_flight -= permit.is_counted
            return
        if summary.is_limiting:
            with self._lock:
                is_first, self.is_limiting = not self.is_limiting, True
            if is_first and self.on_limiting is not None:
                self.on_limiting()
        status, throttling, now = summary.status, summary.throttling, time.monotonic()
        quota, retry_after = throttling.quota, throttling.retry_after
        with self._lock:
            self._quota_tracker.in_flight -= permit.is_counted
            self._has_answered_manifest |= summary.is_manifest
            if quota is not None and not throttling.is_quota_exhausted:
                self._quota_tracker.record(
                    quota, now, is_outdated=permit.sequence_number <= self._last_quota_permit
                )
                self._last_quota_permit = self._permit_count
            if throttling.is_quota_exhausted:
                self._quota_tracker.exhaust(quota, now)
            else:
                if retry_after is not None:
                    self._extend_pause(min(retry_after, self._max_retry_after), now)
                is_overload = retry_after is None and self._is_overload(status, permit, now)
                is_asked_for = retry_after is not None and status in BUSY_STATUSES
                if status == requests.codes.too_many or is_asked_for or is_overload:
                    self._record_refusal(permit, now, needs_pause=retry_after is None)
                elif permit.refusal_count == self._refusal_count and status not in BUSY_STATUSES:
                    self._consecutive_refusals = 0
                    self._adaptive_rate.record_success(now)
        if quota is not None or throttling.is_quota_exhausted:
            self._report_quota()

    def _report_quota(self) -> None:
        """Report the quota that counts: responses may arrive out of order."""
        with self._lock:
            quota = self._quota_tracker.quota
        if self.on_quota is not None and quota is not None:
            self.on_quota(self._host, quota.remaining, quota.limit)

    def may_pull_unannounced(self, *, is_single: bool) -> bool:
        """Return whether a GET of a manifest needs no HEAD before: it counts against no quota.

        Args:
            is_single: no other GETs follow. Otherwise the host first has to answer a request
                for a manifest, in which it can announce a quota.
        """
        with self._lock:
            has_quota = self._quota_tracker.is_counted(is_pull=True)
            return not has_quota and (is_single or self._has_answered_manifest)

    def add_successes(self, count: int) -> None:
        """Add accepted requests of other processes in the last second."""
        with self._lock:
            self._adaptive_rate.add_successes(count, time.monotonic())

    def pause(self, seconds: float) -> None:
        """Send no request for ``seconds``; a pause that ends later stays in force."""
        with self._lock:
            self._extend_pause(seconds, time.monotonic())

    def _report_pause(self, end: float, now: float) -> None:
        """Send an event, once for all threads that wait. ``end`` is in monotonic seconds."""
        with self._lock:
            is_new = end > self._reported_until + _SAME_PAUSE
            self._reported_until = max(self._reported_until, end)
            is_refused = self._paused_until >= end
        if is_new:
            reason = "too many requests" if is_refused else "the quota is used up"
            event = Event("host", self._host, "", State.PAUSED, 0, None, reason)
            emit(self.progress, replace(event, seconds=end - now))

    def _cancelled_error(self) -> Cancelled:
        return Cancelled(f"cancelled during a pause of the requests to {self._host}")

    def _reserve(self, now: float, *, is_pull: bool) -> tuple[Permit | None, float]:
        """Return a permit and its start time, or None and when to retry. Caller holds the lock."""
        if self._paused_until > now:
            return None, self._paused_until
        is_counted = self._quota_tracker.is_counted(is_pull=is_pull)
        wait = self._quota_tracker.wait_time(now) if is_counted else 0.0
        if wait > 0:
            return None, now + wait
        self._quota_tracker.in_flight += is_counted
        start_time = self._adaptive_rate.reserve(now)
        if self._fixed_schedule is not None:
            start_time = max(start_time, self._fixed_schedule.reserve(1, now))
        self._permit_count += 1
        return Permit(self._refusal_count, is_counted, self._permit_count), start_time

    def _is_overload(self, status: int, permit: Permit, now: float) -> bool:
        """Return whether repeated bare 503s mean overload. The caller holds the lock."""
        if status != requests.codes.unavailable:
            self._bare_503_score = max(0.0, self._bare_503_score - _BARE_503_DECAY)
            if status < requests.codes.server_error and status != requests.codes.too_many:
                self._last_success = now
            return False
        if (
            permit.refusal_count == self._refusal_count
        ):  # otherwise it was sent before the last refusal
            self._bare_503_score = min(MAX_BARE_503_SCORE, self._bare_503_score + 1)
        return (
            self._bare_503_score >= MAX_BARE_503_SCORE and now - self._last_success < SUCCESS_WINDOW
        )

    def _extend_pause(self, seconds: float, now: float) -> None:
        """Extend the pause to at least ``seconds`` from ``now``. The caller holds the lock."""
        self._paused_until = max(self._paused_until, now + seconds)

    def _record_refusal(self, permit: Permit, now: float, *, needs_pause: bool) -> None:
        """Slow down, once per group of concurrent requests. The caller holds the lock.

        Args:
            needs_pause: the response does not say how long to wait.
        """
        if permit.refusal_count != self._refusal_count:
            return
        self._refusal_count += 1
        if needs_pause:
            doublings = min(self._consecutive_refusals, MAX_DOUBLINGS)
            self._extend_pause(INITIAL_PAUSE * 2**doublings, now)
        self._consecutive_refusals += 1
        rate = self._adaptive_rate.record_refusal(now)
        pause = self._paused_until - now
        is_news = pause >= _LONG_PAUSE and self._consecutive_refusals == 1
        logger.log(
            logging.WARNING if is_news else logging.INFO,
            "%s: too many requests; resuming in %.1f s with %.1f requests/s",
            self._host,
            pause,
            rate,
        )
