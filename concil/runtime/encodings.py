"""Decodes percent-encoding and escapes, keeping positions in the original text."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

_MAX_DEPTH = 3  # nested encodings
_MAX_READINGS = 16  # decodings of one text
# One character in UTF-8: a single byte, or a first byte with its continuation bytes.
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
    """A decoded text."""

    text: str
    at: Sequence[int]  # original position of each character, and of the end


def decodings(text: str) -> Iterator[Reading]:
    """Yield a text unchanged and with all its encodings decoded, in every order."""
    seen = {text}
    readings = [Reading(text, range(len(text) + 1))]
    for depth in range(_MAX_DEPTH + 1):
        yield from readings
        if depth == _MAX_DEPTH:
            return
        next_readings = []
        for reading in readings:
            for mark, decode in _DECODERS:
                if mark in reading.text and len(seen) < _MAX_READINGS:
                    decoded = decode(reading)
                    if decoded.text not in seen:
                        seen.add(decoded.text)
                        next_readings.append(decoded)
        readings = next_readings


def _decoder(
    pattern: re.Pattern[str], character: Callable[[str], str]
) -> Callable[[Reading], Reading]:
    """Return a function that decodes every match of a pattern to one character."""

    def decode(reading: Reading) -> Reading:
        pieces: list[str] = []
        positions: list[int] = []
        position = 0
        for match in pattern.finditer(reading.text):
            start = match.start()
            pieces += [reading.text[position:start], character(match[0])]
            positions += [*reading.at[position:start], reading.at[start]]
            position = match.end()
        pieces.append(reading.text[position:])
        positions += reading.at[position:]
        return Reading("".join(pieces), positions)

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
    """Decode + to a space, as in form data."""
    return Reading(reading.text.replace("+", " "), reading.at)


_DECODERS: tuple[tuple[str, Callable[[Reading], Reading]], ...] = (
    ("%", _decoder(_PERCENT, _of_percent)),
    ("\\", _decoder(_BACKSLASH, _of_backslash)),
    ("&", _decoder(_ENTITY, _of_entity)),
    ("+", _of_plus),
)
