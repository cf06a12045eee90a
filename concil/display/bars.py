"""Draws the progress on a terminal: a header, and a line for each large running blob."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Sequence

from concil.display.blob_rows import compose_rows
from concil.display.lines import compose_header, compose_pause, compose_stopping, is_shown
from concil.display.output import Output
from concil.display.stopping import Stopping
from concil.display.style import Segment, Style, display_width, wrap_words
from concil.progress.snapshot import ProgressSnapshot

_MAX_PAUSES = 3  # paused hosts that have a line


class BarView:
    """A header line, and one for each paused host and large blob, as many as fit on the screen.

    Each frame overwrites the previous one. A terminal that became narrower has wrapped the
    old lines: they are counted as it shows them.
    """

    lists_resumed = True
    shortens_digests = True
    interval = 0.1

    def __init__(self, output: Output) -> None:
        self._output = output
        self.style = Style.of_stream(output.stream)
        self._line_widths: list[int] = []  # columns of each visible line
        self._frame = ""
        self._size = (0, 0)  # columns and rows of the last frame

    @property
    def width(self) -> int:
        """Columns of a line above the bars; some terminals wrap a full line."""
        return self._terminal_size()[0] - 1

    def show(self, snapshot: ProgressSnapshot, stopping: Stopping | None = None) -> None:
        """Draw a frame."""
        if not (snapshot.active_blobs or snapshot.images.total or snapshot.paused_hosts):
            return
        columns, rows = self._terminal_size()
        # Some terminals wrap a full line. The last row stays free, so that typed text does not
        # scroll the bars.
        lines = self._compose(snapshot, stopping, max(1, columns - 1), max(1, rows - 1))
        cursor_home = self._cursor_home()
        if (columns, rows) != self._size:
            cursor_home += "\x1b[J"  # clears lines that the terminal has rewrapped
            self._size = (columns, rows)
        self._line_widths = [sum(display_width(part.text) for part in line) for line in lines]
        # A terminal shows ^C at the cursor: after a long line it would wrap.
        self._frame = "\n".join(f"{self.style.render(line)}\x1b[K" for line in lines) + "\x1b[J\r"
        self._output.write(f"{cursor_home}{self._frame}")

    def write_above(self, line: str) -> None:
        """Write the line above the bars, with no word cut at the end of a row."""
        line = wrap_words(line, self._terminal_size()[0])
        self._output.write(f"{self._cursor_home()}\x1b[J{line}\n{self._frame}")

    def clear(self, snapshot: ProgressSnapshot) -> None:  # noqa: ARG002  # as the protocol has it
        """Remove everything that was drawn."""
        if self._line_widths:
            self._output.write(f"{self._cursor_home()}\x1b[J")
        self._line_widths, self._frame = [], ""

    def _compose(
        self, snapshot: ProgressSnapshot, stopping: Stopping | None, width: int, rows: int
    ) -> list[Sequence[Segment]]:
        """Return at most ``rows`` lines of at most ``width`` columns."""
        blobs = [blob for blob in snapshot.active_blobs if is_shown(blob)]
        lines: list[Sequence[Segment]] = []
        if stopping is not None:
            lines.append(compose_stopping(snapshot, stopping.seconds_left, stopping.hint, width))
        elif snapshot.images.total or len(snapshot.active_blobs) != 1 or not blobs:
            lines.append(compose_header(snapshot, width))
        lines += [compose_pause(pause, width) for pause in snapshot.paused_hosts[:_MAX_PAUSES]]
        room = max(0, rows - len(lines))
        if len(blobs) > room:
            more = f"and {len(blobs) - max(0, room - 1)} more"
            blobs = blobs[: max(0, room - 1)]
            return [*lines, *compose_rows(blobs, width, self.style), [Segment(more[:width])]][:rows]
        return [*lines, *compose_rows(blobs, width, self.style)][:rows]

    def _cursor_home(self) -> str:
        """Return the sequence that moves the cursor to the start of the first line drawn."""
        if not self._line_widths:
            return ""
        columns, rows = self._terminal_size()
        wrapped = sum(max(1, math.ceil(length / columns)) for length in self._line_widths)
        up = min(wrapped, rows) - 1
        return f"\r\x1b[{up}A" if up > 0 else "\r"

    def _terminal_size(self) -> tuple[int, int]:
        """Return the current columns and rows."""
        stream = self._output.stream
        with contextlib.suppress(OSError, ValueError):
            if stream is not None:
                terminal_size = os.get_terminal_size(stream.fileno())
                return terminal_size.columns or 80, terminal_size.lines or 24
        return 80, 24
