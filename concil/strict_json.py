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
# In memory a document may be twenty times as large as its text. Python reads one at a time
# anyway, so threads that each have a large one wait for their turn with nothing but the text.
_LARGE = 256 * 1024  # bytes
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
        InvalidJson: no JSON in UTF-8; nested deeper than Python reads; a key twice in an
            object, NaN or an infinity: what two readers may take for two things.
    Source: RFC 8259, 4, 8.1.
    """
    if sum(map(content.count, (b"[", b"{", b","))) > most:
        raise InvalidJson(f"JSON of more than {most} parts")
    try:
        with _turn if len(content) > _LARGE else contextlib.nullcontext():
            # json.loads would also take UTF-16 and UTF-32, which others do not.
            text = content.decode()
            return json.loads(text, object_pairs_hook=_object, parse_constant=_no_number)
    except InvalidJson:
        raise
    except RecursionError as error:
        raise InvalidJson("JSON that nests too deep") from error
    except ValueError as error:
        raise InvalidJson("not JSON") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise InvalidJson("JSON with a key twice in one object")
    return found


def _no_number(_name: str) -> NoReturn:
    raise InvalidJson("not JSON: it has a number that is none")
