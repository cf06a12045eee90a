"""How lines look: colours, characters and widths, as the stream and its terminal allow."""

from __future__ import annotations

import locale
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import TextIO

from concil.runtime.dataclass import dataclass

_COLOR = r"\x1b\[[0-9;]*m"
_UNIT = r"(?<=[0-9]) (?=(?:s|B|[KMGT]iB)\b)"
_INDENT = "  "  # of further rows of a line


class Color(StrEnum):
    """Colours of a terminal, as parameters of SGR (ECMA-48)."""

    NONE = ""
    GREEN = "32"
    YELLOW = "33"
    RED = "31"
    CYAN = "36"
    DIM = "2"
    BOLD = "1"


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of a line in one colour."""

    text: str
    color: Color = Color.NONE


@dataclass(frozen=True, slots=True)
class Field:
    """A part of a line that can be shortened, or left out."""

    variants: tuple[str, ...]  # from the longest to the shortest; "" leaves it out
    color: Color = Color.NONE
    # When it is shortened to each further variant: in the order of all fields' numbers.
    order: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Style:
    """What the stream can show."""

    has_color: bool = False
    is_ascii: bool = False

    @classmethod
    def of_stream(cls, stream: TextIO | None, environment: Mapping[str, str] = os.environ) -> Style:
        """Return the style for a stream.

        Colours are for terminals, unless NO_COLOR is set (https://no-color.org) or TERM is dumb.
        """
        is_terminal = stream is not None and not stream.closed and stream.isatty()
        is_plain = bool(environment.get("NO_COLOR")) or environment.get("TERM") == "dumb"
        # Python writes UTF-8 in the C locale, which does not mean that the terminal shows it.
        encodings = (getattr(stream, "encoding", None) or "", locale.getencoding())
        is_ascii = not all(encoding.lower().startswith("utf") for encoding in encodings)
        return cls(is_terminal and not is_plain, is_ascii)

    @property
    def ellipsis(self) -> str:
        """What stands for characters that were left out."""
        return ".." if self.is_ascii else "…"

    @property
    def arrow(self) -> str:
        """What stands between a source and its destination."""
        return "->" if self.is_ascii else "→"

    def render(self, segments: Sequence[Segment]) -> str:
        """Return the text of segments, with colours if there are any."""
        if not self.has_color:
            return "".join(segment.text for segment in segments)
        return "".join(
            f"\x1b[{segment.color}m{segment.text}\x1b[0m" if segment.color else segment.text
            for segment in segments
        )

    def shorten_name(self, name: str, width: int) -> str:
        """Return a name in at most ``width`` columns; the end of a name says more."""
        if display_width(name) <= width:
            return name
        kept = width - len(self.ellipsis)
        if kept <= 0:
            return ""
        while display_width(name) > kept:
            name = name[1:]
        return self.ellipsis + name


def display_width(text: str) -> int:
    """Return the columns of a text; some characters take two."""
    if text.isascii():
        return len(text)
    from tqdm.utils import disp_len  # noqa: PLC0415  # for other than ASCII text

    return int(disp_len(text))


def pad(text: str, width: int, align: Callable[[str, int], str] = str.ljust) -> str:
    """Pad a text to a number of columns."""
    return align(text, width - (display_width(text) - len(text)))


def printable(text: str) -> str:
    """Return one line of printable text: names may hold terminal escapes."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def wrap_words(text: str, columns: int) -> str:
    """Return text in rows of at most so many columns; no word is cut unless it is longer.

    A number and its unit are one word.
    """
    joined = re.sub(_UNIT, "\xa0", text)
    rows = (row for line in joined.split("\n") for row in _wrap_line(line, columns))
    return "\n".join(rows).replace("\xa0", " ")


def _wrap_line(line: str, columns: int) -> Iterator[str]:
    row, used = "", 0
    for number, word in enumerate(line.split(" ")):
        width = display_width(re.sub(_COLOR, "", word))
        if row.strip() and used + 1 + width > columns:
            yield row.rstrip()
            row, used = f"{_INDENT}{word}", len(_INDENT) + width
        else:
            row += f" {word}" if number else word
            used += width + bool(number)
        if used > columns:  # the terminal cuts a long word
            used = used % columns or columns
    yield row


def fit(fields: Sequence[Field], width: int, gap: str = "  ") -> list[Segment]:
    """Return the fields in one line of at most ``width`` columns; no field is cut."""
    steps = [
        (field.order[step] if field.order else 0, step, number)
        for number, field in enumerate(fields)
        for step in range(len(field.variants) - 1)
    ]
    texts = [field.variants[0] for field in fields]
    for _, step, number in sorted(steps):
        if sum(display_width(t) + len(gap) for t in texts if t) - len(gap) <= width:
            break
        texts[number] = fields[number].variants[step + 1]
    segments: list[Segment] = []
    for field, text in zip(fields, texts, strict=True):
        if text:
            segments += [Segment(gap)] * bool(segments) + [Segment(text, field.color)]
    return segments
