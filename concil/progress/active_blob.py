"""Follows one blob by its progress events: rate, stalls, resumption and restarts."""

from __future__ import annotations

from collections import deque

from concil.progress.events import Event, State
from concil.progress.snapshot import BlobProgress

_RATE_WINDOW = 5.0  # seconds over which the rate is averaged
_MIN_RATE_TIME = 0.5  # seconds before a rate is known
_MIN_STALL = 3.0  # seconds without a byte
_STALL_FACTOR = 4.0  # times the usual time between two events: a slow link is not a stalled one
_SMOOTHING = 0.3  # weight of the latest event in that average


class ActiveBlob:
    """A blob that is being transferred, or is waiting for it. Not thread-safe."""

    def __init__(self, event: Event, now: float) -> None:
        """Begin with the first event of a blob; times are monotonic seconds."""
        self.start_time = now
        self.position = 0  # bytes
        self.total = event.total
        self.state = event.state
        self.bytes_present = 0  # bytes that were transferred before this run
        self._event = event
        self._resumed_at = 0
        self._retry_reason = self._restart_reason = ""
        self._last_gain = now  # time of the last byte
        self._usual_gap: float | None = None  # seconds between two gains; None: nothing moved
        self._samples: deque[tuple[float, int]] = deque([(now, 0)])

    @property
    def size(self) -> int:
        """Bytes of the blob as far as they are known."""
        return self.position if self.total is None else self.total

    def record_event(self, event: Event, now: float) -> None:
        """Record a later event of the blob."""
        if self.state is State.WAITING:
            self.start_time = now
        gained = event.position - self.position
        if event.state is State.STARTED:
            self.bytes_present = self._resumed_at = event.position
            self._restart_rate(event.position, now)
        elif gained < 0 or event.state is State.RESTARTING:
            self._restart_rate(event.position, now)
        elif gained > 0:
            self._record_gain(event.position, now)
        self.bytes_present = min(self.bytes_present, event.position)
        if event.state is State.RETRYING:
            self._retry_reason, self._resumed_at = event.detail, 0
        elif event.state is State.RESTARTING:
            self._restart_reason, self._resumed_at = event.detail, 0
        self.position, self.total = event.position, event.total
        self.state = event.state

    def progress(self, now: float, *, is_paused: bool) -> BlobProgress:
        """Return the progress at a moment.

        Args:
            is_paused: a host is paused, so that nothing may move.
        """
        first_time, first_position = self._samples[0]
        duration = now - first_time
        rate = (self.position - first_position) / duration if duration > _MIN_RATE_TIME else None
        return BlobProgress(
            self._event.image,
            self._event.subject,
            self._event.target,
            self.state,
            self.position,
            self.total,
            None if self._usual_gap is None else rate,
            now - self.start_time,
            self.bytes_present,
            self._resumed_at,
            0.0 if is_paused else self._stalled_seconds(now),
            self._retry_reason if self.state is State.RETRYING else self._restart_reason,
        )

    def _record_gain(self, position: int, now: float) -> None:
        gap = now - self._last_gain
        if self._is_stall(gap):
            self._restart_rate(position, now)
            return
        usual = gap if self._usual_gap is None else self._usual_gap
        self._usual_gap = usual + _SMOOTHING * (gap - usual)
        self._last_gain = now
        self._samples.append((now, position))
        while len(self._samples) > 2 and now - self._samples[1][0] > _RATE_WINDOW:
            self._samples.popleft()

    def _restart_rate(self, position: int, now: float) -> None:
        """Forget the speed: the position is another one for another reason."""
        self._last_gain, self._usual_gap = now, None
        self._samples = deque([(now, position)])

    def _stalled_seconds(self, now: float) -> float:
        """Return the seconds without a byte; 0 if that is no stall."""
        is_complete = self.total is not None and self.position >= self.total
        if self.state is not State.MOVING or is_complete:
            return 0.0
        idle = now - self._last_gain
        return idle if self._is_stall(idle) else 0.0

    def _is_stall(self, seconds: float) -> bool:
        """Return whether a time without a byte is long for this link."""
        if self._usual_gap is None:
            return False
        return seconds >= max(_MIN_STALL, _STALL_FACTOR * self._usual_gap)
