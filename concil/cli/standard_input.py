"""Standard input as the content of a blob."""

from __future__ import annotations

import sys
from io import FileIO

from concil.errors import UsageError


def open_standard_input() -> FileIO:
    """Open standard input as an unbuffered stream.

    Raises:
        UsageError: it is a terminal.
    """
    if sys.stdin is None or sys.stdin.isatty():
        raise UsageError(
            "standard input is a terminal",
            remedy="write to it from another program: PROGRAM | concil push - REF",
        )
    return FileIO(sys.stdin.fileno(), "rb", closefd=False)
