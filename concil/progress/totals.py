"""Adds up progress events to totals and rates."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass, replace

from concil.progress.events import Event, State
from concil.runtime.forking import register_after_fork

_RATE_WINDOW = 10.0  # seconds over which the rate is averaged


@dataclass(slots=True)
class ActiveBlob:
    """A blob that is being transferred, or is waiting for it."""

    label: str
    start_time: float  # monotonic seconds
    position: int = 0  # bytes
    total: int = 0  # bytes
    state: State = State.STARTED
    bytes_present: int = 0  # bytes that were transferred before this run


@dataclass(frozen=True, slots=True)
class ProgressSnapshot:
    """The totals at one moment."""

    bytes_done: int  # bytes
    bytes_total: int  # bytes
    rate: float | None  # bytes per second; None: too early to tell
    elapsed: float  # seconds
    image_count_text: str  # such as "3/10 images"; "" for a single image
    is_total_known: bool  # whether every image has started, so that the total is final
    active_blobs: tuple[ActiveBlob, ...]  # by start time


class ProgressTotals:
    """Sums up progress events. Any thread may call any method."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards the fields below
        register_after_fork(self, ProgressTotals.after_fork)
        self._start_time = time.monotonic()
        self._active_blobs: dict[tuple[str, str], ActiveBlob] = {}
        self._bytes_done = 0  # bytes of finished blobs, except failed ones
        self._bytes_present = 0  # bytes of these that this run did not transfer
        self._active_images: set[tuple[str, str]] = set()  # started and not finished
        self._ended_image_count = 0
        self._expected_image_count = 0
        self._samples: deque[tuple[float, int]] = deque([(self._start_time, 0)])

    def after_fork(self) -> None:
        """Replace the lock, which a thread of the parent may hold."""
        self._lock = threading.Lock()

    def record_event(self, event: Event) -> None:
        """Add an event to the totals."""
        key = (event.subject, event.target)
        with self._lock:
            if event.kind == "image":
                self._count_image(key, is_final=event.state.is_final)
            elif event.state.is_final:
                finished = self._active_blobs.pop(key, None)
                self._record_end(event, finished.bytes_present if finished else 0)
            else:
                blob = self._active_blobs.get(key)
                if blob is None:
                    blob = ActiveBlob(_short_name(event.subject), time.monotonic())
                    self._active_blobs[key] = blob
                if blob.state is State.WAITING:
                    blob.start_time = time.monotonic()
                if event.state is State.STARTED:
                    blob.bytes_present = event.position
                blob.bytes_present = min(blob.bytes_present, event.position)
                blob.position = event.position
                blob.total = event.total or 0
                blob.state = event.state

    def _count_image(self, image: tuple[str, str], *, is_final: bool) -> None:
        """Count an image; only active ones are stored, to save memory. The lock is held."""
        if is_final:
            self._active_images.discard(image)
            self._ended_image_count += 1
        else:
            self._active_images.add(image)

    def set_expected_images(self, images: int) -> None:
        """Set the expected number of images."""
        with self._lock:
            self._expected_image_count = images

    def _record_end(self, event: Event, bytes_present: int) -> None:
        """Add the bytes of a finished blob, unless it failed. The caller holds the lock."""
        if event.state is State.FAILED:
            return
        size = event.position if event.total is None else event.total
        self._bytes_done += size
        self._bytes_present += bytes_present if event.state is State.DONE else size

    def snapshot(self) -> ProgressSnapshot:
        """Return the current totals. Call it at regular intervals: the rate depends on them."""
        now = time.monotonic()
        with self._lock:
            blobs = [replace(blob) for blob in self._active_blobs.values()]
            ended_count, started_count = (
                self._ended_image_count,
                self._ended_image_count + len(self._active_images),
            )
            image_count = max(started_count, self._expected_image_count)
            bytes_done = self._bytes_done + sum(blob.position for blob in blobs)
            bytes_total = self._bytes_done + sum(blob.total for blob in blobs)
            bytes_present = self._bytes_present + sum(blob.bytes_present for blob in blobs)
            self._samples.append((now, bytes_done - bytes_present))
            while len(self._samples) > 2 and now - self._samples[1][0] > _RATE_WINDOW:
                self._samples.popleft()
            (first_time, first_bytes), (last_time, last_bytes) = self._samples[0], self._samples[-1]
        rate = (
            max(0, last_bytes - first_bytes) / (last_time - first_time)
            if last_time - first_time > 0.2
            else None
        )
        image_count_text = f"{ended_count}/{image_count} images" if image_count > 1 else ""
        started_blobs = sorted(
            (blob for blob in blobs if blob.state is not State.WAITING), key=_start_time
        )
        elapsed = now - self._start_time
        return ProgressSnapshot(
            bytes_done,
            bytes_total,
            rate,
            elapsed,
            image_count_text,
            started_count == image_count,
            tuple(started_blobs),
        )


def _start_time(running: ActiveBlob) -> float:
    return running.start_time


def _short_name(subject: str) -> str:
    """Return the first characters of a digest, or the end of a name."""
    algorithm, colon, value = subject.partition(":")
    if colon and algorithm in ("sha256", "sha512"):
        return value[:12]
    return "".join(c if c.isprintable() else "?" for c in subject)[-12:]
