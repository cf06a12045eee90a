"""Draws progress bars on a terminal."""

from __future__ import annotations

import contextlib
import math
import os
import time

from tqdm import tqdm

from concil.display.output import Output
from concil.progress.events import State
from concil.progress.totals import ProgressSnapshot

_LABEL_WIDTH = 14  # columns of the label before a bar
_BAR_FORMAT = "{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<LEFT, {rate_fmt}]"


class BarView:
    """A bar for the total and one for each active blob, as many as fit on the screen.

    Each frame overwrites the previous one. A terminal that became narrower has wrapped the
    old lines: they are counted as it shows them.
    """

    interval = 0.1

    def __init__(self, output: Output) -> None:
        self._output = output
        self._line_widths: list[int] = []  # columns of each visible line
        self._frame = ""
        self._size = (0, 0)  # columns and rows of the last frame
        encoding = output.stream.encoding if output.stream else ""
        self._ascii = not (encoding or "").lower().startswith("utf")

    def show(self, totals: ProgressSnapshot) -> None:
        """Draw a frame."""
        if not totals.active_blobs and not totals.image_count_text:
            return
        columns, rows = self._terminal_size()
        label = totals.image_count_text or "total"
        width = columns - 1  # some terminals wrap a full line
        progress = (totals.bytes_done, totals.bytes_total)
        remaining = "{remaining}" if totals.is_total_known else "?"
        lines = [self._format_bar(label, progress, totals.elapsed, width, (totals.rate, remaining))]
        # The last row stays free, so that typed text does not scroll the bars.
        shown = totals.active_blobs[: max(0, rows - 2)]
        now = time.monotonic()
        for blob in shown:
            label = f"{blob.label} !" if blob.state is State.RETRYING else blob.label
            rate = (blob.position - blob.bytes_present) / max(now - blob.start_time, 0.01)
            progress = (blob.position, blob.total)
            lines.append(
                self._format_bar(
                    label, progress, now - blob.start_time, width, (rate, "{remaining}")
                )
            )
        if shown and len(shown) < len(totals.active_blobs):
            hidden_count = len(totals.active_blobs) - len(shown) + 1
            lines[-1] = f"and {hidden_count} more"[:width]
        cursor_home = self._cursor_home()
        if (columns, rows) != self._size:
            cursor_home += "\x1b[J"  # clears lines that the terminal has rewrapped
            self._size = (columns, rows)
        self._line_widths = [len(line) for line in lines]
        # A terminal shows ^C at the cursor: after a long line it would wrap.
        self._frame = "\n".join(f"{line}\x1b[K" for line in lines) + "\x1b[J\r"
        self._output.write(f"{cursor_home}{self._frame}")

    def write_above(self, line: str) -> None:
        """Write the line above the bars."""
        self._output.write(f"{self._cursor_home()}\x1b[J{line}\n{self._frame}")

    def clear(self) -> None:
        """Remove everything that was drawn."""
        if self._line_widths:
            self._output.write(f"{self._cursor_home()}\x1b[J")
        self._line_widths, self._frame = [], ""

    def _format_bar(
        self,
        label: str,
        progress: tuple[int, int],
        elapsed: float,
        width: int,
        rate: tuple[float | None, str],
    ) -> str:
        """Return one line: label, progress, rate and time."""
        return tqdm.format_meter(
            min(progress),
            progress[1],
            elapsed,
            ncols=width,
            prefix=f"{label:<{_LABEL_WIDTH}}",
            ascii=self._ascii,
            unit="B",
            unit_scale=True,
            unit_divisor=1024,
            rate=rate[0],
            bar_format=_BAR_FORMAT.replace("LEFT", rate[1]),
        )[:width]

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
