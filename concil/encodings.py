"""The readings of a text that undo percent-encoding and escapes, with their places in the text."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

_DEPTH = 3  # encodings on top of each other
_MOST = 16  # readings of one text
# A character of UTF-8 each: one byte, or a first one and those that continue it.
_PERCENT = re.compile(
    r"%[c-fC-F][0-9a-fA-F](?:%[89abAB][0-9a-fA-F]){1,3}|%[0-9a-fA-F]{2}",
)
_BACKSLASH = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    r"|\\u[0-9a-fA-F]{4}|\\U[0-9a-fA-F]{8}|\\x[0-9a-fA-F]{2}|\\[^uUx]",
    re.DOTALL,
)
_ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|amp|lt|gt|quot|apos);")
_LETTERS = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "0": "\0"}
_NAMED = {"amp": "&", "lt": "<", "gt": ">", "quot": '"', "apos": "'"}


class Reading(NamedTuple):
    """A text as one who decodes it reads it."""

    text: str
    at: Sequence[int]  # where each character begins in the original, and last its end


def decodings(text: str) -> Iterator[Reading]:
    """Yield a text as it is and with what may be encoded in it decoded, in every order."""
    seen = {text}
    readings = [Reading(text, range(len(text) + 1))]
    for depth in range(_DEPTH + 1):
        yield from readings
        if depth == _DEPTH:
            return
        further = []
        for reading in readings:
            for mark, decode in _DECODERS:
                if mark in reading.text and len(seen) < _MOST:
                    decoded = decode(reading)
                    if decoded.text not in seen:
                        seen.add(decoded.text)
                        further.append(decoded)
        readings = further


def _decoder(
    pattern: re.Pattern[str], character: Callable[[str], str]
) -> Callable[[Reading], Reading]:
    """Return what reads every match of a pattern as one character."""

    def decode(reading: Reading) -> Reading:
        pieces: list[str] = []
        at: list[int] = []
        position = 0
        for found in pattern.finditer(reading.text):
            start = found.start()
            pieces += [reading.text[position:start], character(found[0])]
            at += [*reading.at[position:start], reading.at[start]]
            position = found.end()
        pieces.append(reading.text[position:])
        at += reading.at[position:]
        return Reading("".join(pieces), at)

    return decode


def _of_percent(text: str) -> str:
    return bytes.fromhex(text.replace("%", "")).decode("utf-8", "replace")[:1]


def _of_backslash(text: str) -> str:
    if text[1] in "uUx":
        units = [int(unit, 16) for unit in re.split(r"\\[uUx]", text)[1:]]
        if len(units) == 2:
            return chr(0x10000 + ((units[0] - 0xD800) << 10) + (units[1] - 0xDC00))
        return chr(units[0]) if units[0] < 0x110000 else "\ufffd"
    return _LETTERS.get(text[1], text[1])


def _of_entity(text: str) -> str:
    name = text[1:-1]
    if not name.startswith("#"):
        return _NAMED[name]
    number = int(f"0{name[1:]}", 16) if name[1] in "xX" else int(name[1:])
    return chr(number) if number < 0x110000 else "\ufffd"


def _of_plus(reading: Reading) -> Reading:
    """A form writes + for a space."""
    return Reading(reading.text.replace("+", " "), reading.at)


_DECODERS: tuple[tuple[str, Callable[[Reading], Reading]], ...] = (
    ("%", _decoder(_PERCENT, _of_percent)),
    ("\\", _decoder(_BACKSLASH, _of_backslash)),
    ("&", _decoder(_ENTITY, _of_entity)),
    ("+", _of_plus),
)
