"""Parses untrusted JSON: no duplicate keys, bounded depth and size."""

from __future__ import annotations

import contextlib
import json
import os
import re
import threading
from typing import Any, NoReturn

# Lists, objects and commas in one document. An index of 10,000 manifests has 100,000 of
# them; 4 MiB of "[]," would take 90 MiB of memory.
MAX_PARTS = 300_000
# Nesting depth of lists and objects. Python can parse documents too deep for its own encoder.
MOST_NESTING = 200
# A parsed document may take twenty times the memory of its text. Python parses one at a time
# anyway, so a lock makes threads with large documents wait while they hold only the text.
_LARGE_DOCUMENT_SIZE = 256 * 1024  # bytes
# Also an unterminated string, which reaches to the end.
_STRING = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)
_NOT_BRACKET = re.compile(r"[^\[\]{}]+")
_large_document_lock = threading.Lock()


def _reset_lock_in_child() -> None:
    """Replace the lock: another thread may have held it at the fork and is not in the child."""
    global _large_document_lock  # noqa: PLW0603 - the one lock of the module
    _large_document_lock = threading.Lock()


os.register_at_fork(after_in_child=_reset_lock_in_child)


class InvalidJSON(ValueError):
    """A rejected text; the message completes "the text is ...", as in "not JSON"."""


def parse_json(content: bytes, *, max_parts: int = MAX_PARTS) -> Any:  # noqa: ANN401 - the JSON edge
    """Parse a document.

    Args:
        max_parts: maximum number of lists, objects and commas.
    Raises:
        InvalidJSON: the text is not JSON in UTF-8, nests deeper than 200 lists and objects,
            or has a duplicate key, NaN or an infinity, which parsers treat differently.
    Source: RFC 8259, 4, 8.1.
    """
    if sum(map(content.count, (b"[", b"{", b","))) > max_parts:
        raise InvalidJSON(f"JSON with more than {max_parts} parts")
    try:
        with (
            _large_document_lock
            if len(content) > _LARGE_DOCUMENT_SIZE
            else contextlib.nullcontext()
        ):
            # json.loads would also accept UTF-16 and UTF-32, which other parsers do not.
            text = content.decode()
            check_nesting(text)
            return json.loads(
                text, object_pairs_hook=_unique_object, parse_constant=_reject_constant
            )
    except InvalidJSON:
        raise
    except ValueError as error:
        raise InvalidJSON("not JSON") from error


def check_nesting(text: str) -> None:
    """Check that the first value of a text does not nest too deep, before it is parsed.

    A parser that runs into the limit of recursion is no check: whatever the garbage collector
    finalizes at that moment fails too.

    Raises:
        InvalidJSON: it nests deeper than 200 lists and objects.
    """
    if text.count("[") + text.count("{") <= MOST_NESTING:
        return
    depth = 0
    for bracket in _NOT_BRACKET.sub("", _STRING.sub("", text)):
        depth += 1 if bracket in "[{" else -1
        if depth > MOST_NESTING:
            raise InvalidJSON("JSON that is nested too deeply")
        if depth <= 0:
            return


def _unique_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise InvalidJSON("JSON with a duplicate key in an object")
    return result


def _reject_constant(_name: str) -> NoReturn:
    raise InvalidJSON("not JSON: it contains NaN or Infinity")
