"""Output stream that tolerates write errors."""

from __future__ import annotations

import contextlib

TYPE_CHECKING = False  # as that of typing, which takes longer to import than this module
if TYPE_CHECKING:
    from typing import TextIO


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
