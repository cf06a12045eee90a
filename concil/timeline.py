"""What happened when during a run, from its progress events, and the page that shows it."""

from __future__ import annotations

import threading
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

from concil.forking import renew_in_child
from concil.page.bounded import Depth, Kept, Throughput
from concil.page.document import Account, document
from concil.page.records import MOST_LOSSES, ImageSpan, Loss, Transfer, clipped
from concil.page.render import render
from concil.progress import Event, State
from concil.report_file import ReportFile

MOST = 20_000  # transfers, and images, that are kept one by one
_MOST_LANES = 512


class Timeline:
    """A progress sink that remembers. Any thread may call any method.

    Memory is bounded: of more than MOST transfers, those stay that failed, were tried
    again or took longest. All are in the totals and curves.
    """

    def __init__(self, most: int = MOST) -> None:
        """Begin now.

        Args:
            most: transfers, and images, that are kept one by one.
        """
        self._began = datetime.now(UTC)
        self._clock = time.monotonic()
        self._lock = threading.Lock()  # guards everything below
        self._lanes: dict[str, int] = {}  # by the name of the thread, or of a cluster's worker
        self._running: dict[tuple[str, str], Transfer] = {}
        self._images: dict[tuple[str, str], ImageSpan] = {}  # that have begun and not ended
        self._transfers: Kept[Transfer] = Kept(most)
        self._spans: Kept[ImageSpan] = Kept(most)
        self._counts: Counter[tuple[str, State]] = Counter()  # by kind
        self._bytes: Counter[State] = Counter()  # of blobs, by how they ended
        self._moved = Throughput()
        self._waiting = Depth()
        self._losses = 0
        self._expected = 0  # images
        self._interrupted = False

        renew_in_child(self, Timeline._after_fork)

    def _after_fork(self) -> None:
        """Have a lock that no thread of the parent holds."""
        self._lock = threading.Lock()

    def __call__(self, event: Event) -> None:
        """Take note of an event, in the thread that does the work."""
        with self._lock:
            now = self._now()
            if event.kind == "image":
                self._take_image(event, now)
            else:
                self._take_blob(event, now)

    def expect(self, images: int) -> None:
        """Take note of how many images there will be."""
        with self._lock:
            self._expected = images

    def add_failure(self, source: str, why: str) -> None:
        """Take note of something that failed and is no image: a repository without its list."""
        self(Event("image", source, "", State.FAILED, 0, None, why))

    def interrupt(self) -> None:
        """Take note that somebody asked to stop: what fails from now on is only unfinished."""
        with self._lock:
            self._interrupted = True

    def write_page(self, path: Path | str, *, title: str = "", complete: bool = True) -> None:
        """Write everything so far as one HTML page.

        Args:
            title: what ran.
            complete: whether it came to its end.
        Raises:
            StoreError: the place cannot be written to.
        """
        with ReportFile(Path(path)) as file:
            file.write(self.page(title=title, complete=complete))

    def page(self, *, title: str = "", complete: bool = True) -> str:
        """Return the page as text."""
        return render(self._document(title, complete=complete), title or "concil")

    def _document(self, title: str, *, complete: bool) -> dict[str, object]:
        with self._lock:
            account = Account(
                title=title,
                began=self._began,
                seconds=self._now(),
                complete=complete,
                lanes=list(self._lanes),
                transfers=[*self._transfers.items, *self._running.values()],
                images=[*self._spans.items, *self._images.values()],
                left_out=(self._transfers.left_out, self._spans.left_out),
                counts=dict(self._counts),
                bytes=dict(self._bytes),
                losses=self._losses,
                expected=self._expected,
                moved=self._moved,
                waiting=self._waiting,
            )
            return document(account)

    # From here on the caller holds the lock.

    def _now(self) -> float:
        return time.monotonic() - self._clock

    def _lane(self, name: str) -> int:
        """The number of the thread that calls."""
        if name not in self._lanes and len(self._lanes) >= _MOST_LANES:
            name = "others"
        return self._lanes.setdefault(name, len(self._lanes))

    def _take_image(self, event: Event, now: float) -> None:
        key = (event.subject, event.target)
        span = self._images.get(key)
        if span is None:
            span = ImageSpan(clipped(event.subject), clipped(event.target))
            self._images[key] = span
        if self._interrupted and event.state is State.FAILED:
            span.why = clipped(event.detail)
            return
        span.state = event.state
        if not event.state.final:
            span.started = now
            return
        del self._images[key]
        span.ended, span.sent, span.why = now, event.position, clipped(event.detail)
        self._counts["image", event.state] += 1
        self._spans.add(span, span.weight)

    def _take_blob(self, event: Event, now: float) -> None:
        key = (event.subject, event.target)
        one = self._running.get(key)
        if one is None:
            one = Transfer(clipped(event.subject), clipped(event.target), now, last=now)
            self._running[key] = one
        if event.state is State.WAITING:
            one.waited, one.total = True, event.total
            self._waiting.change(now, 1)
            return
        if self._interrupted and event.state is State.FAILED:
            one.why = clipped(event.detail)
            return
        lane = self._lane(event.worker or threading.current_thread().name)
        if one.lane < 0:
            if one.waited:
                self._waiting.change(now, -1)
            one.lane = lane
            one.started = None if event.state.final else now
        self._advance(one, event, now)
        if event.state is State.RETRYING:
            self._lose(one, Loss(lane, now, clipped(event.detail)))
        elif event.state is State.MOVING:
            _go_on(one, lane, now)
        if event.state.final:
            del self._running[key]
            self._end(one, event, now)

    def _advance(self, one: Transfer, event: Event, now: float) -> None:
        """Count what has moved since the last event."""
        if event.state is State.STARTED:
            one.resumed = one.position = event.position
        gained = event.position - one.position
        if gained > 0 and event.state in (State.MOVING, State.RETRYING, State.DONE):
            self._moved.add(one.last, now, gained)
        one.state, one.position, one.last = event.state, event.position, now
        one.total = event.total

    def _lose(self, one: Transfer, loss: Loss) -> None:
        self._losses += 1
        one.lost += 1
        _close(one, loss.lane, loss.at)
        if len(one.losses) < MOST_LOSSES:
            one.losses.append(loss)

    def _end(self, one: Transfer, event: Event, now: float) -> None:
        for loss in one.losses:
            _close(one, loss.lane, now)
        one.ended, one.why = now, clipped(event.detail)
        self._counts["blob", event.state] += 1
        self._bytes[event.state] += event.total or event.position
        self._transfers.add(one, one.weight)


def _go_on(one: Transfer, lane: int, now: float) -> None:
    """A worker moves bytes of a blob: its own, or one that it helps with."""
    _close(one, lane, now)
    if lane != one.lane:
        first, _ = one.helped.get(lane, (now, now))
        one.helped[lane] = (first, now)


def _close(one: Transfer, lane: int, now: float) -> None:
    """End the time that a worker waited for another try."""
    for loss in one.losses:
        if loss.lane == lane and loss.until is None:
            loss.until = now
