"""Results on standard output: text, JSON and raw bytes."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from typing import BinaryIO

from concil.errors import StoreError, UsageError

_REMEDY = "let it go to a file or a pipe that takes it"


def put_line(text: str) -> None:
    """Write one line, at once: whoever reads a pipe gets it when it is known.

    Raises:
        BrokenPipeError: nobody reads any more.
        StoreError: it cannot be written.
    """
    printable = "".join(c if c.isprintable() else " " for c in text)
    _write(printable.encode("utf-8", "backslashreplace") + b"\n")


def put_json(document: object) -> None:
    """Write a document, indented for people, ASCII only. Raises as `put_line`."""
    # The one control character that is ASCII and that JSON leaves as it is.
    _write(json.dumps(document, indent=2).replace("\x7f", "\\u007f").encode() + b"\n")


def put_bytes(content: bytes | memoryview) -> None:
    """Write bytes as they are. Raises as `put_line`."""
    _write(content)


def put_text(content: bytes) -> None:
    """Write text as it is, to a terminal without what would steer it. Raises as `put_line`."""
    if sys.stdout is not None and sys.stdout.isatty():
        text = content.decode("utf-8", "backslashreplace")
        content = "".join(c if c.isprintable() or c in "\n\t" else " " for c in text).encode()
    _write(content)


def check_binary() -> None:
    """Refuse to pour a blob onto a terminal.

    Raises:
        UsageError: standard output is one.
    """
    if sys.stdout is not None and sys.stdout.isatty():
        raise UsageError(
            "standard output is a terminal, and a blob is no text",
            remedy="redirect it, or name a file: -o FILE",
        )


def silence() -> None:
    """Let what is still in the buffers go nowhere: the reader has gone."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, sys.stdout.fileno())
        finally:
            os.close(nowhere)


def _write(content: bytes | memoryview) -> None:
    if sys.stdout is None:
        raise StoreError("cannot write the result: standard output is closed", remedy=_REMEDY)
    stream: BinaryIO | None = getattr(sys.stdout, "buffer", None)
    try:
        if stream is None:  # something that takes only text stands in for it
            sys.stdout.write(bytes(content).decode("utf-8", "backslashreplace"))
        else:
            sys.stdout.flush()
            stream.write(content)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        silence()
        cause = error.strerror or type(error).__name__
        raise StoreError(
            f"cannot write the result to standard output: {cause}", remedy=_REMEDY
        ) from error
