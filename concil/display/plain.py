"""Prints a progress line every few seconds."""

from __future__ import annotations

from concil.display.output import Output, format_size
from concil.progress.events import State
from concil.progress.totals import ProgressSnapshot

__all__ = ["PlainView"]


class PlainView:
    """Prints a progress line every few seconds."""

    interval = 5.0

    def __init__(self, output: Output) -> None:
        self._output = output

    def show(self, totals: ProgressSnapshot) -> None:
        """Print the progress, unless no blob is active."""
        if not totals.active_blobs:
            return
        progress = f"{format_size(totals.bytes_done)} of {format_size(totals.bytes_total)}"
        if totals.bytes_total:
            progress += f" ({100 * totals.bytes_done // totals.bytes_total} %)"
        parts = [totals.image_count_text] if totals.image_count_text else []
        parts.append(progress)
        if totals.rate is not None:
            parts.append(f"{format_size(totals.rate)}/s")
        if totals.rate and totals.is_total_known and totals.bytes_total > totals.bytes_done:
            seconds_left = (totals.bytes_total - totals.bytes_done) / totals.rate
            parts.append(f"{_format_interval(seconds_left)} left")
        parts.append(f"{len(totals.active_blobs)} running")
        retrying_count = sum(blob.state is State.RETRYING for blob in totals.active_blobs)
        parts += [f"{retrying_count} retrying"] if retrying_count else []
        self._output.write(", ".join(parts) + "\n")

    def write_above(self, line: str) -> None:
        """Write the line."""
        self._output.write(line + "\n")

    def clear(self) -> None:
        """Do nothing: printed lines stay."""


def _format_interval(seconds: float) -> str:
    """Format a time as the bars do: ``01:15`` or ``1:00:15``."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute:02d}:{second:02d}"
