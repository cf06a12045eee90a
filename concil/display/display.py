"""Chooses the display: bars, plain lines, JSON or none."""

from __future__ import annotations

import os
import sys
from typing import Protocol, Self, TextIO

from concil.display.json_lines import _LineDisplay
from concil.display.modes import MODES
from concil.display.output import Output
from concil.errors import UsageError

TYPE_CHECKING = False  # as that of typing, which takes longer to import than this module
if TYPE_CHECKING:
    from concil.display.stopping import Stopping
    from concil.progress.events import Event
    from concil.progress.snapshot import ProgressSnapshot

__all__ = ["MODES", "Display", "ProgressDisplay", "open_display"]


class Display(Protocol):
    """What the command line shows while it runs. Thread-safe."""

    def __call__(self, event: Event) -> None:
        """Record an event; cheap, never raises."""
        ...

    @property
    def lists_images(self) -> bool:
        """Whether each image that has ended has a line."""
        ...

    def set_expected_images(self, images: int | None, *, lists_images: bool = True) -> None:
        """Begin to count the images of a mirror, or set their number; None: not known yet.

        Args:
            lists_images: a line is written for each of them, if the display writes text.
        """
        ...

    def snapshot(self) -> ProgressSnapshot | None:
        """Return the totals; None if there were no events."""
        ...

    def show_stopping(self, stopping: Stopping) -> None:
        """Show at once that the command was interrupted and is about to end."""
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
    has_widgets = mode in ("auto", "bar") and "IPython" in sys.modules and _is_notebook()
    if mode == "auto":
        is_terminal = stream is not None and stream.isatty() and os.environ.get("TERM") != "dumb"
        mode = "bar" if is_terminal else "plain"
    if mode == "none" or stream is None:
        return _LineDisplay(output, as_json=False)
    if mode == "json":
        return _LineDisplay(output, as_json=True)
    from concil.display.refreshing import RefreshingDisplay  # noqa: PLC0415  # for transfers only

    if has_widgets:
        from concil.display.notebook import NotebookView  # noqa: PLC0415  # imports IPython

        return RefreshingDisplay(NotebookView())
    if mode == "plain":
        from concil.display.plain import PlainView  # noqa: PLC0415

        return RefreshingDisplay(PlainView(output))
    from concil.display.bars import BarView  # noqa: PLC0415  # imports tqdm

    return RefreshingDisplay(BarView(output))


def _is_notebook() -> bool:
    from concil.display.notebook import is_notebook  # noqa: PLC0415  # IPython is imported

    return is_notebook()


class ProgressDisplay:
    """Shows the progress of engines, as the command line does, or in a Jupyter notebook.

    A progress sink and a context manager::

        with ProgressDisplay() as display, Engine(progress=display) as engine:
            engine.copy("quay.io/team/app:1.4", "registry.example:5000/app:1.4")
    """

    def __init__(self, mode: str = "auto", stream: TextIO | None = None) -> None:
        """Open the display.

        Args:
            mode: "bar", "plain", "json" or "none"; "auto" shows bars on a terminal and in a
                notebook, and lines elsewhere.
            stream: where it is written; None: standard error.
        Raises:
            UsageError: the mode is unknown.
        """
        self._display = open_display(mode, sys.stderr if stream is None else stream)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the display."""
        self.close()

    def __call__(self, event: Event, /) -> None:
        """Record an event. Any thread may call it."""
        self._display(event)

    def set_expected_images(self, images: int | None) -> None:
        """Begin a mirror: count its images, and show a line for each one that has ended.

        Args:
            images: their number; None: not known yet. It may be set again during the mirror.
        """
        self._display.set_expected_images(images)

    def write(self, line: str) -> None:
        """Show a line of text above the progress."""
        self._display.write(line)

    def close(self) -> None:
        """Stop showing progress."""
        self._display.close()
