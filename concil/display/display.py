"""Chooses the display: bars, plain lines, JSON or none."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Protocol, TextIO

from concil.display.json_lines import _LineDisplay
from concil.display.modes import MODES
from concil.display.output import Output
from concil.display.plain import PlainView
from concil.errors import UsageError
from concil.progress.events import Event
from concil.progress.totals import ProgressTotals
from concil.runtime.forking import register_after_fork
from concil.runtime.limits import start_thread

if TYPE_CHECKING:
    from concil.display.bars import BarView

__all__ = ["MODES", "Display", "open_display"]


class Display(Protocol):
    """What the command line shows while it runs. Thread-safe."""

    def __call__(self, event: Event) -> None:
        """Record an event; cheap, never raises."""
        ...

    def set_expected_images(self, images: int) -> None:
        """Set the expected number of images."""
        ...

    def write(self, line: str, level: str = "") -> None:
        """Show a line of text above the progress."""
        ...

    def close(self) -> None:
        """Stop showing progress, and clear what was drawn."""
        ...


def open_display(mode: str, stream: TextIO | None) -> Display:
    """Return a display of one of MODES; the caller closes it.

    Args:
        stream: usually standard error; None if that is closed.
    Raises:
        UsageError: the mode is unknown.
    """
    if mode not in MODES:
        raise UsageError(
            f"unknown progress display: {mode!a}", remedy=f"choose one of {', '.join(MODES)}"
        )
    output = Output(stream)
    if mode == "auto":
        is_terminal = stream is not None and stream.isatty() and os.environ.get("TERM") != "dumb"
        mode = "bar" if is_terminal else "plain"
    if mode == "none" or stream is None:
        return _LineDisplay(output, as_json=False)
    if mode == "json":
        return _LineDisplay(output, as_json=True)
    if mode == "plain":
        return _RefreshingDisplay(PlainView(output))
    from concil.display.bars import BarView  # noqa: PLC0415  # imports tqdm

    return _RefreshingDisplay(BarView(output))


class _RefreshingDisplay:
    """Shows the progress totals periodically, from its own thread."""

    def __init__(self, view: PlainView | BarView) -> None:
        self._view = view
        self._totals = ProgressTotals()
        self._lock = threading.Lock()  # held while the view writes, so that lines do not mix
        self._closed = threading.Event()
        self._thread = threading.Thread(
            target=self._refresh_loop, name="concil-display", daemon=True
        )
        register_after_fork(self, _RefreshingDisplay.after_fork)
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
