"""Output stream that tolerates write errors, and the format of sizes."""

from __future__ import annotations

import contextlib

TYPE_CHECKING = False  # as that of typing, which takes longer to import than this module
if TYPE_CHECKING:
    from typing import TextIO

__all__ = ["Output", "format_size"]


def format_size(count: float) -> str:
    """Format a number of bytes for users: ``96.0 MiB``."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if count < 1023.95 or unit == "TiB":
            break
        count /= 1024
    return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"


class Output:
    """A stream that may be broken or closed: output errors must not end a transfer."""

    def __init__(self, stream: TextIO | None) -> None:
        self.stream = stream

    def write(self, text: str) -> None:
        """Write and flush text; errors of the stream are ignored."""
        if self.stream is not None:
            with contextlib.suppress(OSError, ValueError):
                self.stream.write(text)
                self.stream.flush()
