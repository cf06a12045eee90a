"""Timeline: a progress sink that records what happened when."""

from __future__ import annotations

import threading
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

from concil.fs.atomic_file import AtomicTextFile
from concil.progress.destinations import DestinationTotals
from concil.progress.events import Event, State
from concil.report.html.document import TimelineData, build_document
from concil.report.html.records import (
    MAX_INTERRUPTIONS,
    ImageSpan,
    Interruption,
    Transfer,
    truncate,
)
from concil.report.html.render import render
from concil.report.html.sampling import LargestItems, QueueDepth, Throughput
from concil.runtime.forking import register_after_fork

MAX_RECORDS = 20_000  # transfers, and images, that are recorded individually
_MAX_LANES = 512


class Timeline:
    """A progress sink that records events. Thread-safe.

    Memory is bounded: of more than ``max_records`` transfers it keeps those that failed,
    were retried or took longest. Totals and curves include all of them.
    """

    def __init__(self, max_records: int = MAX_RECORDS) -> None:
        """Start the clock.

        Args:
            max_records: transfers, and images, that are recorded individually.
        """
        self._start_time = datetime.now(UTC)
        self._start_clock = time.monotonic()
        self._lock = threading.Lock()  # guards everything below
        self._lanes: dict[str, int] = {}  # by the name of a thread or cluster worker
        self._running_transfers: dict[tuple[str, str], Transfer] = {}
        self._running_images: dict[tuple[str, str], ImageSpan] = {}  # started, not ended
        self._ended_transfers: LargestItems[Transfer] = LargestItems(max_records)
        self._ended_images: LargestItems[ImageSpan] = LargestItems(max_records)
        self._counts: Counter[tuple[str, State]] = Counter()  # by kind and final state
        self._bytes: Counter[State] = Counter()  # of blobs, by final state
        self._destinations = DestinationTotals()
        self._throughput = Throughput()
        self._queue_depth = QueueDepth()
        self._interruption_count = 0
        self._expected_images = 0
        self._is_interrupted = False

        register_after_fork(self, Timeline._after_fork)

    def _after_fork(self) -> None:
        """Replace the lock in a forked child: the parent's threads may hold it."""
        self._lock = threading.Lock()

    def __call__(self, event: Event) -> None:
        """Record an event, in the thread that does the work."""
        with self._lock:
            now = self._elapsed()
            if event.kind == "image":
                self._record_image(event, now)
            elif event.kind == "blob":
                self._record_blob(event, now)

    def set_expected_images(self, images: int) -> None:
        """Set the expected number of images."""
        with self._lock:
            self._expected_images = images

    def add_failure(self, source: str, detail: str) -> None:
        """Record a failure that is not an image's: a repository that cannot be listed."""
        self(Event("image", source, "", State.FAILED, 0, None, detail))

    def interrupt(self) -> None:
        """Record that the run was interrupted: later failures count as unfinished."""
        with self._lock:
            self._is_interrupted = True

    def write_page(self, path: Path | str, *, title: str = "", complete: bool = True) -> None:
        """Write the recorded data as one HTML page.

        Args:
            title: title of the page.
            complete: whether the run came to its end.
        Raises:
            StoreError: the path cannot be written to.
        """
        with AtomicTextFile(Path(path)) as file:
            file.write(self.page(title=title, complete=complete))

    def page(self, *, title: str = "", complete: bool = True) -> str:
        """Return the page as text."""
        return render(self._build_document(title, complete=complete), title or "concil")

    def _build_document(self, title: str, *, complete: bool) -> dict[str, object]:
        with self._lock:
            data = TimelineData(
                title=title,
                start_time=self._start_time,
                seconds=self._elapsed(),
                complete=complete,
                lanes=list(self._lanes),
                transfers=[*self._ended_transfers.items, *self._running_transfers.values()],
                images=[*self._ended_images.items, *self._running_images.values()],
                dropped_counts=(
                    self._ended_transfers.dropped_count,
                    self._ended_images.dropped_count,
                ),
                counts=dict(self._counts),
                bytes=dict(self._bytes),
                destinations=self._destinations,
                interruption_count=self._interruption_count,
                expected_images=self._expected_images,
                throughput=self._throughput,
                queue_depth=self._queue_depth,
            )
            return build_document(data)

    # The methods below require the lock.

    def _elapsed(self) -> float:
        return time.monotonic() - self._start_clock

    def _lane_number(self, name: str) -> int:
        """Return the lane of a thread or cluster worker."""
        if name not in self._lanes and len(self._lanes) >= _MAX_LANES:
            name = "others"
        return self._lanes.setdefault(name, len(self._lanes))

    def _has_stopped(self, event: Event) -> bool:
        """Return whether a subject is unfinished: it ended because the run was interrupted."""
        is_failed = self._is_interrupted and event.state is State.FAILED
        return is_failed or event.state is State.CANCELLED

    def _record_image(self, event: Event, now: float) -> None:
        key = (event.subject, event.target)
        span = self._running_images.get(key)
        if span is None:
            span = ImageSpan(truncate(event.subject), truncate(event.target))
            self._running_images[key] = span
        if self._has_stopped(event):
            span.detail = truncate(event.detail)
            return
        span.state = event.state
        if not event.state.is_final:
            span.started = now
            return
        del self._running_images[key]
        span.ended, span.sent, span.detail = now, event.position, truncate(event.detail)
        self._counts["image", event.state] += 1
        self._destinations.add(event.target, event.state, event.position)
        self._ended_images.add(span, span.weight)

    def _record_blob(self, event: Event, now: float) -> None:
        key = (event.subject, event.target)
        transfer = self._running_transfers.get(key)
        if transfer is None:
            transfer = Transfer(
                truncate(event.subject), truncate(event.target), now, last_update=now
            )
            self._running_transfers[key] = transfer
        if event.state is State.WAITING:
            transfer.was_queued, transfer.total = True, event.total
            self._queue_depth.add(now, 1)
            return
        if self._has_stopped(event):
            transfer.detail = truncate(event.detail)
            return
        lane = self._lane_number(event.worker or threading.current_thread().name)
        if transfer.lane < 0:
            if transfer.was_queued:
                self._queue_depth.add(now, -1)
            transfer.lane = lane
            transfer.started = None if event.state.is_final else now
        self._advance(transfer, event, now)
        if event.state is State.RETRYING:
            self._record_interruption(transfer, Interruption(lane, now, truncate(event.detail)))
        elif event.state in (State.MOVING, State.RESTARTING):
            _record_lane_progress(transfer, lane, now)
        if event.state.is_final:
            del self._running_transfers[key]
            self._record_end(transfer, event, now)

    def _advance(self, transfer: Transfer, event: Event, now: float) -> None:
        """Record the bytes transferred since the last event."""
        if event.state is State.STARTED:
            transfer.resume_offset = transfer.position = event.position
        gained = event.position - transfer.position
        if gained > 0 and event.state in (State.MOVING, State.RETRYING, State.DONE):
            self._throughput.add(transfer.last_update, now, gained)
        transfer.state, transfer.position, transfer.last_update = event.state, event.position, now
        transfer.total = event.total

    def _record_interruption(self, transfer: Transfer, interruption: Interruption) -> None:
        self._interruption_count += 1
        transfer.interruption_count += 1
        _end_interruption(transfer, interruption.lane, interruption.start)
        if len(transfer.interruptions) < MAX_INTERRUPTIONS:
            transfer.interruptions.append(interruption)

    def _record_end(self, transfer: Transfer, event: Event, now: float) -> None:
        for interruption in transfer.interruptions:
            _end_interruption(transfer, interruption.lane, now)
        transfer.ended, transfer.detail = now, truncate(event.detail)
        self._counts["blob", event.state] += 1
        self._bytes[event.state] += event.total or event.position
        self._ended_transfers.add(transfer, transfer.weight)


def _record_lane_progress(transfer: Transfer, lane: int, now: float) -> None:
    """Record that a worker moved bytes of a blob, as its owner or as a helper."""
    _end_interruption(transfer, lane, now)
    if lane != transfer.lane:
        first, _ = transfer.helpers.get(lane, (now, now))
        transfer.helpers[lane] = (first, now)


def _end_interruption(transfer: Transfer, lane: int, now: float) -> None:
    """End the interruption of a worker, if there is one."""
    for interruption in transfer.interruptions:
        if interruption.lane == lane and interruption.end is None:
            interruption.end = now
