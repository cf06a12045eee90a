"""Prints lines: each image when it ends, resumed blobs, and the totals every few seconds."""

from __future__ import annotations

import time

from concil.display.lines import compose_header, compose_pause, compose_stopping
from concil.display.output import Output
from concil.display.stopping import Stopping
from concil.display.style import Style
from concil.progress.events import State
from concil.progress.snapshot import ProgressSnapshot

__all__ = ["PlainView"]

_WIDTH = 100_000  # columns: a log has no width


class PlainView:
    """Prints lines that stay, for logs of CI jobs and services."""

    interval = 0.5
    width = _WIDTH
    lists_resumed = True
    shortens_digests = False  # a log can be searched for them
    summary_interval = 10.0  # seconds between two lines with the totals

    def __init__(self, output: Output) -> None:
        self._output = output
        self.style = Style.of_stream(output.stream)
        self._last_line = time.monotonic()
        self._stopping: Stopping | None = None

    def show(self, snapshot: ProgressSnapshot, stopping: Stopping | None = None) -> None:
        """Print the answer to an interrupt once, and the totals after a while without a line."""
        if stopping is not None:
            if self._stopping is None:
                self._stopping = stopping
                seconds = stopping.seconds_left
                line = compose_stopping(snapshot, seconds, stopping.hint, _WIDTH)
                self.write_above("".join(segment.text for segment in line))
            return
        is_due = time.monotonic() - self._last_line >= self.summary_interval
        if is_due and (snapshot.active_blobs or snapshot.paused_hosts):
            self.write_above(", ".join(_describe(snapshot)))

    def write_above(self, line: str) -> None:
        """Write the line."""
        self._last_line = time.monotonic()
        self._output.write(line + "\n")

    def clear(self, snapshot: ProgressSnapshot) -> None:  # as the protocol has it
        """Do nothing: printed lines stay."""


def _describe(snapshot: ProgressSnapshot) -> list[str]:
    """Return the parts of the line with the totals."""
    parts = [part.text for part in compose_header(snapshot, _WIDTH) if part.text.strip()]
    blobs = snapshot.active_blobs
    parts += [f"{len(blobs)} running"] if blobs else []
    retrying_count = sum(blob.state is State.RETRYING for blob in blobs)
    stalled_count = sum(blob.stalled_seconds > 0 for blob in blobs)
    parts += [f"{retrying_count} retrying"] if retrying_count else []
    parts += [f"{stalled_count} stalled"] if stalled_count else []
    for pause in snapshot.paused_hosts:
        parts += [part.text for part in compose_pause(pause, _WIDTH)]
    return parts
