"""Reads JSON that a stranger wrote: nothing ambiguous, nothing that fills the memory."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from typing import Any, NoReturn

# Lists, objects and commas in one document. An index of 10,000 manifests has 100,000 of
# them; 4 MiB of "[]," would be 90 MiB in memory.
MOST_PARTS = 300_000
# Lists and objects in one another. What Python has just read may be too deep for its own writer.
MOST_NESTING = 200
# In memory a document may be twenty times as large as its text. Python reads one at a time
# anyway, so threads that each have a large one wait for their turn with nothing but the text.
_LARGE = 256 * 1024  # bytes
_TOO_DEEP = "JSON that nests too deep"
_turn = threading.Lock()


def _renew_in_child() -> None:
    """Another thread may have had its turn when the process forked, and is not in the child."""
    global _turn  # noqa: PLW0603 - the one lock of the module
    _turn = threading.Lock()


os.register_at_fork(after_in_child=_renew_in_child)


class InvalidJson(ValueError):
    """A text that is not taken; the message says what it is, as in "not JSON"."""


def read_json(content: bytes, *, most: int = MOST_PARTS) -> Any:  # noqa: ANN401 - the JSON edge
    """Read a document.

    Args:
        most: lists, objects and commas that it may have.
    Raises:
        InvalidJson: no JSON in UTF-8; more than 200 lists and objects in one another; a key
            twice in an object, NaN or an infinity: what two readers may take for two things.
    Source: RFC 8259, 4, 8.1.
    """
    if sum(map(content.count, (b"[", b"{", b","))) > most:
        raise InvalidJson(f"JSON of more than {most} parts")
    try:
        with _turn if len(content) > _LARGE else contextlib.nullcontext():
            # json.loads would also take UTF-16 and UTF-32, which others do not.
            text = content.decode()
            document = json.loads(text, object_pairs_hook=_object, parse_constant=_no_number)
            if content.count(b"[") + content.count(b"{") > MOST_NESTING:
                check_nesting(document)
            return document
    except InvalidJson:
        raise
    except RecursionError as error:
        raise InvalidJson(_TOO_DEEP) from error
    except ValueError as error:
        raise InvalidJson("not JSON") from error


def check_nesting(document: object) -> None:
    """See that a document does not nest too deep for what comes after it was read.

    Raises:
        InvalidJson: it has more than 200 lists and objects in one another.
    """
    level: list[Any] = [document] if isinstance(document, (dict, list)) else []
    for _ in range(MOST_NESTING):
        level = [
            value
            for each in level
            for value in (each.values() if isinstance(each, dict) else each)
            if isinstance(value, (dict, list))
        ]
    if level:
        raise InvalidJson(_TOO_DEEP)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise InvalidJson("JSON with a key twice in one object")
    return found


def _no_number(_name: str) -> NoReturn:
    raise InvalidJson("not JSON: it has a number that is none")
