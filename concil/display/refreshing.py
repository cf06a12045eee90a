"""Display that shows the progress totals periodically: bars or plain lines."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from concil.display.plain import PlainView
from concil.progress.events import Event
from concil.progress.totals import ProgressTotals
from concil.runtime.forking import register_after_fork
from concil.runtime.limits import start_thread

if TYPE_CHECKING:
    from concil.display.bars import BarView


class RefreshingDisplay:
    """Shows the progress totals periodically, from its own thread."""

    def __init__(self, view: PlainView | BarView) -> None:
        self._view = view
        self._totals = ProgressTotals()
        self._lock = threading.Lock()  # held while the view writes, so that lines do not mix
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
        self._closed = threading.Event()
        self._closed.set()

    def __call__(self, event: Event) -> None:
        """Add the event to the totals, which the thread shows."""
        self._totals.record_event(event)

    def set_expected_images(self, images: int) -> None:
        """Set the expected number of images."""
        self._totals.set_expected_images(images)

    def write(self, line: str, level: str = "") -> None:  # noqa: ARG002  # as the protocol has it
        """Write the line above the progress."""
        with self._lock:
            self._view.write_above(line)

    def close(self) -> None:
        """End the thread and clear what was drawn."""
        self._closed.set()
        if self._thread.ident is not None:
            self._thread.join()
        with self._lock:
            self._view.clear()

    def _refresh_loop(self) -> None:
        while not self._closed.wait(self._view.interval):
            snapshot = self._totals.snapshot()
            with self._lock:
                self._view.show(snapshot)
