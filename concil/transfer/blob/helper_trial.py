"""HelperTrial: finds out whether a further connection makes a download faster."""

from __future__ import annotations

_WINDOW = 0.25  # seconds over which a rate is measured
_WARM_UP_WINDOWS = 2  # windows that are not counted, because a new connection starts slowly
_MIN_GAIN = 1.2  # factor by which one more connection has to raise the rate
_MAX_BUSY_SHARE = 0.5  # of the time; a thread that rarely waits gains nothing by another one


class HelperTrial:
    """Decides how many helpers fetch ranges of one blob besides the primary thread.

    The primary thread starts alone. When its rate no longer grows and it mostly waits for bytes,
    one helper is tried. The helper stays if the rate of all threads rises by a fifth, and the
    next one is tried; otherwise the helper ends after its range, and the number is final.

    Not thread-safe. Times are seconds of any monotonic clock.
    """

    def __init__(self, max_helpers: int) -> None:
        """Try up to ``max_helpers`` helpers, one after another."""
        self._max_helpers = max_helpers
        self.helpers = 0  # helpers that made the download faster
        self.is_settled = max_helpers == 0  # no further helper is tried
        self._is_requested = False  # a helper was requested that has not been judged yet
        self._has_to_stop_helper = False
        self._rate = 0.0  # bytes per second without the helper on trial
        self._windows_to_skip = 0
        self._window_start: float | None = None
        self._window_cpu_time = 0.0
        self._window_bytes = 0
        self._has_started = False  # the helper on trial has sent a request

    def record(self, count: int, now: float, cpu_time: float) -> bool:
        """Record bytes received by any thread; return whether to start one more helper.

        Args:
            cpu_time: CPU seconds of the calling thread; used while there is only one.
        """
        if self.is_settled:
            return False
        if self._window_start is None:
            self._start_window(now, cpu_time)
            return False
        self._window_bytes += count
        elapsed = now - self._window_start
        if elapsed < _WINDOW:
            return False
        rate = self._window_bytes / elapsed
        busy_share = (cpu_time - self._window_cpu_time) / elapsed
        self._start_window(now, cpu_time)
        if self._has_started:
            return self._judge_helper(rate)
        return self._judge_primary(rate, busy_share)

    def record_helper_start(self) -> None:
        """Record that the helper on trial sends its first request."""
        self._has_started = True
        self._window_start = None
        self._windows_to_skip = _WARM_UP_WINDOWS

    def stop_helper(self) -> bool:
        """Return whether the calling helper has to end; True once for each failed trial."""
        has_to_stop, self._has_to_stop_helper = self._has_to_stop_helper, False
        return has_to_stop

    def _start_window(self, now: float, cpu_time: float) -> None:
        self._window_start, self._window_cpu_time, self._window_bytes = now, cpu_time, 0

    def _judge_primary(self, rate: float, busy_share: float) -> bool:
        """Request the first helper when the rate is steady; settle if it is not needed."""
        previous_rate, self._rate = self._rate, rate
        if self._is_requested:
            return False  # all workers are busy at present
        if busy_share > _MAX_BUSY_SHARE:
            self.is_settled = True
            return False
        self._is_requested = rate < previous_rate * _MIN_GAIN
        return self._is_requested

    def _judge_helper(self, rate: float) -> bool:
        """Keep the helper and request the next one, or have it stop."""
        if self._windows_to_skip:
            self._windows_to_skip -= 1
            return False
        if rate < self._rate * _MIN_GAIN:
            self.is_settled = self._has_to_stop_helper = True
            return False
        self._rate = rate
        self._has_started = False
        self.helpers += 1
        self.is_settled = self.helpers == self._max_helpers
        return not self.is_settled
