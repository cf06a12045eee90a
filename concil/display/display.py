"""Chooses the display: bars, plain lines, JSON or none."""

from __future__ import annotations

import os
from typing import Protocol, TextIO

from concil.display.json_lines import _LineDisplay
from concil.display.modes import MODES
from concil.display.output import Output
from concil.errors import UsageError
from concil.progress.events import Event

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
    from concil.display.refreshing import RefreshingDisplay  # noqa: PLC0415  # for transfers only

    if mode == "plain":
        from concil.display.plain import PlainView  # noqa: PLC0415

        return RefreshingDisplay(PlainView(output))
    from concil.display.bars import BarView  # noqa: PLC0415  # imports tqdm

    return RefreshingDisplay(BarView(output))
