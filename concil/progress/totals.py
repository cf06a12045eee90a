"""Adds up progress events to totals and rates."""

from __future__ import annotations

import threading
import time
from collections import deque

from concil.progress.active_blob import ActiveBlob
from concil.progress.events import Event, State
from concil.progress.snapshot import BlobProgress, ImageCounts, PausedHost, ProgressSnapshot
from concil.runtime.forking import register_after_fork

_RATE_WINDOW = 5.0  # seconds over which the rate is averaged
_BEGINNINGS = (State.WAITING, State.STARTED)


class ProgressTotals:
    """Sums up progress events. Any thread may call any method."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards the fields below
        register_after_fork(self, ProgressTotals.after_fork)
        self._start_time = time.monotonic()
        self._active_blobs: dict[tuple[str, str], ActiveBlob] = {}
        self._bytes_done = 0  # bytes of finished blobs, except failed ones
        self._bytes_present = 0  # bytes of these that this run did not transfer
        self._bytes_missing = 0  # bytes that cancelled blobs lack
        # Started and not finished; True: its blobs are known.
        self._active_images: dict[tuple[str, str], bool] = {}
        self._counts = ImageCounts()
        self._expected_image_count: int | None = None
        # A thread may still move bytes of them before it notices.
        self._cancelled_blobs: set[tuple[str, str]] = set()
        self._resumable: list[BlobProgress] = []  # blobs that were cancelled on the way
        self._pause_ends: dict[str, tuple[float, str]] = {}  # monotonic seconds and reason, by host
        self._samples: deque[tuple[float, int]] = deque([(self._start_time, 0)])

    def after_fork(self) -> None:
        """Replace the lock, which a thread of the parent may hold."""
        self._lock = threading.Lock()

    def record_event(self, event: Event) -> None:
        """Add an event to the totals."""
        key = (event.subject, event.target)
        with self._lock:
            if event.kind == "image":
                self._count_image(key, event.state)
            elif event.kind == "host":
                end = time.monotonic() + (event.seconds or 0.0)
                self._pause_ends[event.subject] = (end, event.detail)
            elif event.state.is_final:
                self._record_end(event, self._active_blobs.pop(key, None))
            elif event.state in _BEGINNINGS or key not in self._cancelled_blobs:
                blob = self._active_blobs.get(key)
                if blob is None:
                    blob = self._active_blobs[key] = ActiveBlob(event, time.monotonic())
                blob.record_event(event, time.monotonic())

    def set_expected_images(self, images: int | None) -> None:
        """Begin to count the images of a mirror, or set their number.

        Args:
            images: None: not known yet.
        """
        with self._lock:
            if self._expected_image_count not in (None, images):
                self._counts = ImageCounts()  # of another mirror
            self._expected_image_count = images

    def snapshot(self) -> ProgressSnapshot:
        """Return the current totals. Call it at regular intervals: the rate depends on them."""
        now = time.monotonic()
        with self._lock:
            blobs = list(self._active_blobs.values())
            bytes_done = self._bytes_done + sum(blob.position for blob in blobs)
            bytes_total = self._bytes_done + self._bytes_missing + sum(b.size for b in blobs)
            bytes_present = self._bytes_present + sum(blob.bytes_present for blob in blobs)
            started = [blob for blob in blobs if blob.state is not State.WAITING]
            started.sort(key=lambda blob: blob.start_time)
            pauses = self._running_pauses(now)
            return ProgressSnapshot(
                bytes_done,
                bytes_total,
                self._rate(now, bytes_done - bytes_present),
                now - self._start_time,
                self._counts.with_total(len(self._active_images), self._expected_image_count),
                self._is_total_known(),
                tuple(blob.progress(now, is_paused=bool(pauses)) for blob in started),
                pauses,
                tuple(self._resumable),
            )

    # The methods below require the lock.

    def _count_image(self, image: tuple[str, str], state: State) -> None:
        """Count an image; only active ones are stored, to save memory."""
        if not state.is_final:
            self._active_images[image] = state is State.MOVING
            return
        self._active_images.pop(image, None)
        self._counts = self._counts.plus(state)

    def _record_end(self, event: Event, blob: ActiveBlob | None) -> None:
        """Add the bytes of a finished blob, unless it failed."""
        if event.state is State.FAILED:
            return
        size = event.position if event.total is None else event.total
        if event.state is State.CANCELLED:
            self._cancelled_blobs.add((event.subject, event.target))
            self._bytes_done += event.position
            self._bytes_present += min(event.position, blob.bytes_present if blob else 0)
            self._bytes_missing += size - event.position
            if event.position and blob is not None:
                blob.record_event(event, time.monotonic())
                self._resumable.append(blob.progress(time.monotonic(), is_paused=False))
            return
        self._bytes_done += size
        is_sent = event.state is State.DONE
        self._bytes_present += (blob.bytes_present if blob else 0) if is_sent else size

    def _running_pauses(self, now: float) -> tuple[PausedHost, ...]:
        """Return the hosts that are paused now, and forget the others."""
        self._pause_ends = {host: p for host, p in self._pause_ends.items() if p[0] > now}
        pauses = self._pause_ends.items()
        return tuple(PausedHost(host, reason, end - now) for host, (end, reason) in pauses)

    def _rate(self, now: float, bytes_moved: int) -> float | None:
        self._samples.append((now, bytes_moved))
        while len(self._samples) > 2 and now - self._samples[1][0] > _RATE_WINDOW:
            self._samples.popleft()
        (first_time, first_bytes), (last_time, last_bytes) = self._samples[0], self._samples[-1]
        if last_time - first_time <= 0.2:
            return None
        return max(0, last_bytes - first_bytes) / (last_time - first_time)

    def _is_total_known(self) -> bool:
        """Whether all blobs of all images are known."""
        if not all(self._active_images.values()):
            return False
        if any(blob.total is None for blob in self._active_blobs.values()):
            return False
        started = self._counts.ended + len(self._active_images)
        if self._expected_image_count is None:
            return started <= 1
        return started >= self._expected_image_count
