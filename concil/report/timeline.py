"""Timeline: a progress sink that records what happened when."""

from __future__ import annotations

import threading
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

from concil.fs.atomic_file import AtomicTextFile
from concil.progress.change_log import ChangeLog
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
from concil.runtime.dataclass import dataclass
from concil.runtime.forking import register_after_fork

MAX_RECORDS = 20_000  # transfers, and images, that are recorded individually
_MAX_LANES = 512


@dataclass(frozen=True, slots=True)
class LiveChanges:
    """What has changed in a timeline."""

    document: dict[str, object]  # as `live_document`, with the changed records only
    removed: list[int]  # numbers of records that are no longer kept
    version: int  # after these changes


class Timeline:
    """A progress sink that records events. Thread-safe.

    Memory is bounded: of more than ``max_records`` transfers it keeps those that failed,
    were retried or took longest. Totals and curves include all of them.
    """

    def __init__(self, max_records: int = MAX_RECORDS, *, is_live: bool = False) -> None:
        """Start the clock.

        Args:
            max_records: transfers, and images, that are recorded individually.
            is_live: remember what changes, for `changes_since`.
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
        self._seconds: float | None = None  # that the run took; None: it goes on
        self._last_number = 0  # of a record
        self._changes: ChangeLog[Transfer | ImageSpan] | None = ChangeLog() if is_live else None
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

    def stop(self) -> None:
        """Stop the clock: the run has ended."""
        with self._lock:
            self._seconds = self._elapsed()

    @property
    def waiting_count(self) -> int:
        """Number of transfers that wait for a worker."""
        with self._lock:
            return self._queue_depth.current

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

    def live_document(self, title: str) -> tuple[dict[str, object], int]:
        """Return the data of the page while the run goes on, and its version."""
        with self._lock:
            transfers = [*self._ended_transfers.items, *self._running_transfers.values()]
            images = [*self._ended_images.items, *self._running_images.values()]
            data = self._collect(title, transfers, images, complete=self._seconds is not None)
            version = 0 if self._changes is None else self._changes.version
        return build_document(data, numbered=True), version

    def changes_since(self, version: int, limit: int) -> LiveChanges | None:
        """Return what has changed since a version; None: `live_document` has to be read again.

        Args:
            limit: at most so many records.
        """
        with self._lock:
            found = None if self._changes is None else self._changes.since(version, limit)
            if found is None:
                return None
            records = [record for _, record in found.records]
            transfers = [record for record in records if isinstance(record, Transfer)]
            images = [record for record in records if isinstance(record, ImageSpan)]
            data = self._collect("", transfers, images, complete=self._seconds is not None)
        # Without the lock: the threads that copy must not wait. A record that changes meanwhile
        # has a later version, too.
        return LiveChanges(build_document(data, numbered=True), found.removed, found.version)

    def _build_document(self, title: str, *, complete: bool) -> dict[str, object]:
        with self._lock:
            transfers = [*self._ended_transfers.items, *self._running_transfers.values()]
            images = [*self._ended_images.items, *self._running_images.values()]
            return build_document(self._collect(title, transfers, images, complete=complete))

    # The methods below require the lock.

    def _collect(
        self, title: str, transfers: list[Transfer], images: list[ImageSpan], *, complete: bool
    ) -> TimelineData:
        return TimelineData(
            title=title,
            start_time=self._start_time,
            seconds=self._elapsed(),
            complete=complete,
            lanes=list(self._lanes),
            transfers=transfers,
            images=images,
            dropped_counts=(self._ended_transfers.dropped_count, self._ended_images.dropped_count),
            counts=dict(self._counts),
            bytes=dict(self._bytes),
            destinations=self._destinations.copy(),
            interruption_count=self._interruption_count,
            expected_images=self._expected_images,
            throughput=self._throughput.copy(),
            queue_depth=self._queue_depth.copy(),
        )

    def _next_number(self) -> int:
        self._last_number += 1
        return self._last_number

    def _touch(self, record: Transfer | ImageSpan) -> None:
        if self._changes is not None:
            self._changes.touch(record.number, record)

    def _drop(self, record: Transfer | ImageSpan | None) -> None:
        if self._changes is not None and record is not None:
            self._changes.remove(record.number)

    def _elapsed(self) -> float:
        if self._seconds is not None:
            return self._seconds
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
            span.number = self._next_number()
            self._running_images[key] = span
        self._touch(span)
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
        self._drop(self._ended_images.add(span, span.weight))

    def _record_blob(self, event: Event, now: float) -> None:
        key = (event.subject, event.target)
        transfer = self._running_transfers.get(key)
        if transfer is None:
            transfer = Transfer(
                truncate(event.subject), truncate(event.target), now, last_update=now
            )
            transfer.number = self._next_number()
            self._running_transfers[key] = transfer
        self._touch(transfer)
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
        self._drop(self._ended_transfers.add(transfer, transfer.weight))


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
