"""Writes results to standard output: text, JSON and raw bytes."""

from __future__ import annotations

import contextlib
import json
import os
import sys

from concil.errors import StoreError, UsageError

TYPE_CHECKING = False  # as that of typing, which takes longer to import than this module
if TYPE_CHECKING:
    from typing import BinaryIO

_REMEDY = "redirect it to a file or pipe that can be written to"


def print_line(text: str) -> None:
    """Write and flush one line, so that a reader of a pipe gets it at once.

    Raises:
        BrokenPipeError: the reader has closed the pipe.
        StoreError: it cannot be written.
    """
    printable = "".join(c if c.isprintable() else " " for c in text)
    _write_all(printable.encode("utf-8", "backslashreplace") + b"\n")


def print_json(document: object) -> None:
    """Write a document as indented ASCII JSON. Raises as `print_line`."""
    # DEL is the only ASCII control character that JSON does not escape.
    _write_all(json.dumps(document, indent=2).replace("\x7f", "\\u007f").encode() + b"\n")


def write_bytes(content: bytes | memoryview) -> None:
    """Write bytes unchanged. Raises as `print_line`."""
    _write_all(content)


def print_text(content: bytes) -> None:
    """Write text unchanged, to a terminal without control characters. Raises as `print_line`."""
    if sys.stdout is not None and sys.stdout.isatty():
        text = content.decode("utf-8", "backslashreplace")
        content = "".join(c if c.isprintable() or c in "\n\t" else " " for c in text).encode()
    _write_all(content)


def check_not_terminal() -> None:
    """Refuse to write a blob to a terminal.

    Raises:
        UsageError: standard output is a terminal.
    """
    if sys.stdout is not None and sys.stdout.isatty():
        raise UsageError(
            "standard output is a terminal, and a blob is not text",
            remedy="redirect it, or write to a file with -o FILE",
        )


def discard_output() -> None:
    """Discard buffered output after the reader has closed the pipe."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        null_descriptor = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(null_descriptor, sys.stdout.fileno())
        finally:
            os.close(null_descriptor)


def _write_all(content: bytes | memoryview) -> None:
    if sys.stdout is None:
        raise StoreError("cannot write the result: standard output is closed", remedy=_REMEDY)
    stream: BinaryIO | None = getattr(sys.stdout, "buffer", None)
    try:
        if stream is None:  # a replacement for sys.stdout that takes only text
            sys.stdout.write(bytes(content).decode("utf-8", "backslashreplace"))
        else:
            sys.stdout.flush()
            stream.write(content)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        discard_output()
        cause = error.strerror or type(error).__name__
        raise StoreError(
            f"cannot write the result to standard output: {cause}", remedy=_REMEDY
        ) from error
