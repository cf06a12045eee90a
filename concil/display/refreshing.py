"""Display that shows the progress totals periodically: bars, widgets or plain lines."""

from __future__ import annotations

import re
import threading
from collections import deque
from typing import Protocol

from concil.display.lines import compose_image, compose_resumption, is_resumption
from concil.display.stopping import Stopping
from concil.display.style import Style
from concil.progress.events import Event
from concil.progress.snapshot import ProgressSnapshot
from concil.progress.totals import ProgressTotals
from concil.runtime.forking import register_after_fork
from concil.runtime.limits import start_thread

_DIGEST = re.compile(r"\b(sha(?:256|512):[0-9a-f]{12})[0-9a-f]{20,}")


class View(Protocol):
    """Draws or prints the progress. One thread at a time."""

    interval: float  # seconds between two calls of `show`
    style: Style
    shortens_digests: bool  # in warnings
    lists_resumed: bool  # whether a blob that is resumed has a line that stays

    @property
    def width(self) -> int:
        """Columns of a line that stays."""
        ...

    def show(self, snapshot: ProgressSnapshot, stopping: Stopping | None = None) -> None:
        """Show the progress."""
        ...

    def write_above(self, line: str) -> None:
        """Show a line of text that stays."""
        ...

    def clear(self, snapshot: ProgressSnapshot) -> None:
        """Remove what was drawn, or leave the final totals."""
        ...


class RefreshingDisplay:
    """Shows the progress totals periodically, from its own thread."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._totals = ProgressTotals()
        self._lock = threading.Lock()  # held while the view writes, so that lines do not mix
        self._lists_images = False
        self._unwritten: deque[Event] = deque()  # whose lines are not written yet
        self._stopping: Stopping | None = None
        self._closed = threading.Event()
        self._thread = threading.Thread(
            target=self._refresh_loop, name="concil-display", daemon=True
        )
        register_after_fork(self, RefreshingDisplay.after_fork)
        # Without a thread running without a progress display, but transfers run.
        if not start_thread(self._thread, "running without a progress display"):
            self._closed.set()

    def after_fork(self) -> None:
        """Draw nothing in a forked child: the parent uses the terminal."""
        self._lock = threading.Lock()
        self._unwritten.clear()
        self._closed = threading.Event()
        self._closed.set()

    def __call__(self, event: Event) -> None:
        """Add the event to the totals, which the thread shows."""
        self._totals.record_event(event)
        is_ended_image = event.kind == "image" and event.state.is_final and self._lists_images
        if is_ended_image or (self._view.lists_resumed and is_resumption(event)):
            self._unwritten.append(event)

    @property
    def lists_images(self) -> bool:
        """Whether each image that has ended has a line."""
        return self._lists_images

    def set_expected_images(self, images: int | None, *, lists_images: bool = True) -> None:
        """Count the images of a mirror, and write a line for each of them."""
        self._lists_images = lists_images
        self._totals.set_expected_images(images)

    def snapshot(self) -> ProgressSnapshot:
        """Return the totals."""
        return self._totals.snapshot()

    def show_stopping(self, stopping: Stopping) -> None:
        """Show at once that the command is about to end."""
        self._stopping = stopping
        self._refresh()

    def write(self, line: str, level: str = "") -> None:
        """Write the line above the progress; on a terminal, digests in a warning are short."""
        if level == "warning" and self._view.shortens_digests:
            line = _DIGEST.sub(rf"\1{self._view.style.ellipsis}", line)
        with self._lock:
            self._write_lines()
            self._view.write_above(line)

    def close(self) -> None:
        """End the thread and clear what was drawn."""
        self._closed.set()
        if self._thread.ident is not None:
            self._thread.join()
        with self._lock:
            self._write_lines()
            self._view.clear(self._totals.snapshot())

    def _refresh_loop(self) -> None:
        while not self._closed.wait(self._view.interval):
            self._refresh()

    def _refresh(self) -> None:
        snapshot = self._totals.snapshot()
        with self._lock:
            self._write_lines()
            if not self._closed.is_set():
                self._view.show(snapshot, self._stopping)

    def _write_lines(self) -> None:
        """Write the lines of images and resumed blobs; the caller holds the lock."""
        style, width = self._view.style, self._view.width
        while self._unwritten:
            event = self._unwritten.popleft()
            is_image = event.kind == "image"
            if is_image:
                line = compose_image(event, style, width)
            else:
                line = compose_resumption(event, is_short=self._view.shortens_digests)
            if line:
                self._view.write_above(style.render(line))
