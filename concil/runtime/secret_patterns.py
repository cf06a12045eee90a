"""Finds the encoded forms of secrets in a text."""

from __future__ import annotations

import base64
import re
import urllib.parse
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from concil.runtime.dataclass import dataclass
from concil.runtime.encodings import decodings
from concil.runtime.marks import HIDDEN, MIN_LENGTH, SESSION

# Characters; a shorter value matches whole words only, so "push" does not match "pushed".
_MIN_PART_OF_WORD = 6
# Characters; enough of a long value, because a server may truncate what it repeats.
_PREFIX_LENGTH = 32
_MIN_URL_PART = 8  # characters; shorter parts of a URL are too common to be redacted
# Query keys of registries and signed URLs whose values are not secret.
_PLAIN_KEYS = frozenset(
    {"digest", "mount", "from", "n", "last", "artifactType", "service", "scope"}
)


class _Value(NamedTuple):
    text: str
    mark: str
    is_url: bool
    known: str


@dataclass(frozen=True, slots=True)
class Pattern:
    """One form in which a value is searched."""

    head: str  # must match exactly
    rest: str  # redacted as far as the text matches it
    mark: str
    is_word: bool = False  # no letter or digit may be adjacent
    before: int = 0  # Base64 characters before it that contain bits of it
    after: int = 0  # Base64 characters after it that contain bits of it


def create_patterns(text: str, mark: str, is_url: bool, known: str) -> list[Pattern]:  # noqa: FBT001 - of a tuple
    """Return the forms of a value that decoding a text does not reduce to each other.

    Args:
        text: a password, a token, or a URL.
        mark: the replacement.
        known: the public beginning of the URL's path.
    """
    return list(_patterns(_Value(text, mark, is_url, known)))


def find_spans(text: str, index: Mapping[str, list[Pattern]]) -> list[tuple[int, int, str]]:
    """Return start, end and replacement of each secret in a text, by start.

    Args:
        index: patterns by their first characters.
    """
    return sorted(
        (at[start], at[stop], mark)
        for decoded, at in decodings(text)
        for start, stop, mark in _find_matches(decoded, index)
    )


def _find_matches(text: str, index: Mapping[str, list[Pattern]]) -> Iterator[tuple[int, int, str]]:
    for start in range(len(text) - MIN_LENGTH + 1):
        for pattern in index.get(text[start : start + MIN_LENGTH], ()):
            if text.startswith(pattern.head, start):
                stop = _end(text, start + len(pattern.head), pattern.rest)
                if not (pattern.is_word and _is_within_word(text, start, stop)):
                    yield (*_widened(text, start, stop, pattern), pattern.mark)


def _patterns(value: _Value) -> Iterator[Pattern]:
    """Yield the forms of a value that decoding a text does not reduce to each other."""
    if value.is_url:
        yield from _url_patterns(value)
        return
    content = value.text.encode("utf-8", "surrogatepass")
    yield _pattern(value.text, value.mark)
    if not value.text.isascii():
        yield _pattern(content.decode("latin-1"), value.mark)  # as headers are decoded
    # Its offset in a longer value determines which of three Base64 texts it becomes.
    for skipped in range(3):
        encoded = base64.b64encode(bytes(skipped) + content).decode("ascii")
        before = (0, 2, 3)[skipped]
        after = (0, 1, 1)[(skipped + len(content)) % 3]
        core = encoded.rstrip("=")[before:]
        core = core[: len(core) - after]
        for text in {core, core.translate(_URL_SAFE)}:
            if len(text) >= MIN_LENGTH:
                yield Pattern(
                    text[:_PREFIX_LENGTH],
                    text[_PREFIX_LENGTH:],
                    value.mark,
                    before=before,
                    after=after,
                )


_URL_SAFE = str.maketrans("+/", "-_")
_BASE64 = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_")


def _pattern(text: str, mark: str) -> Pattern:
    return Pattern(
        text[:_PREFIX_LENGTH], text[_PREFIX_LENGTH:], mark, is_word=len(text) < _MIN_PART_OF_WORD
    )


def _url_patterns(value: _Value) -> Iterator[Pattern]:
    """Yield the path and query of a URL and their parts, because a server may repeat one alone."""
    try:
        parts = urllib.parse.urlsplit(value.text)
    except ValueError:
        yield Pattern(value.text, "", value.mark)
        return
    path = parts.path
    if value.mark == HIDDEN:
        path = path.partition(";")[2]
    elif value.known and path.startswith(value.known):
        path = path.removeprefix(value.known)
    elif 1 < len(path) <= _MIN_URL_PART:
        # On its own it could be anything, such as "/up".
        front = f"//{parts.netloc}"
        yield Pattern(f"{front}{path}", "", f"{front}/{value.mark}", is_word=True)
    known_segments = value.known.split("/")
    segments = [segment for segment in re.split("[/;]", path) if segment not in known_segments]
    texts = [path.lstrip("/"), parts.query]
    texts += segments[-1:]  # nearly all registries have the id there
    texts += re.split("[/;=&,]", urllib.parse.unquote(segments[-1])) if segments else []
    texts += [segment for segment in segments if any(map(str.isdigit, segment))]
    fields = (segment.partition("=") for segment in (*segments, *parts.query.split("&")))
    texts += [content for name, _, content in fields if name not in _PLAIN_KEYS]
    forms = (form for text in texts for form in (text, urllib.parse.unquote(text)))
    for form in dict.fromkeys(forms):
        if len(form) >= _MIN_URL_PART:
            yield Pattern(form, "", value.mark)


def _end(text: str, stop: int, rest: str) -> int:
    """Return the position up to which the text matches the rest of a value."""
    if text.startswith(rest, stop):
        return stop + len(rest)
    for character, expected in zip(text[stop : stop + len(rest)], rest, strict=False):
        if character != expected:
            break
        stop += 1
    return stop


def _is_within_word(text: str, start: int, stop: int) -> bool:
    return text[max(0, start - 1) : start].isalnum() or text[stop : stop + 1].isalnum()


def _widened(text: str, start: int, stop: int, pattern: Pattern) -> tuple[int, int]:
    """Extend a match by the Base64 characters that contain bits of the secret."""
    for _ in range(pattern.before):
        if start and text[start - 1] in _BASE64:
            start -= 1
    for _ in range(pattern.after):
        if stop < len(text) and text[stop] in _BASE64:
            stop += 1
    return start, stop


def replace_spans(text: str, spans: list[tuple[int, int, str]]) -> str:
    """Replace spans, which may overlap; existing marks are not changed."""
    pieces: list[str] = []
    position = 0
    for start, stop, mark in spans:
        if stop <= position or _is_mark(text, start, stop):
            continue
        if start >= position:
            pieces += [text[position:start], mark]
        position = stop
    return "".join([*pieces, text[position:]])


def _is_mark(text: str, start: int, stop: int) -> bool:
    """Return whether a span is within a mark: "hidden" may be somebody's password."""
    around = text[max(0, start - 1) : stop + 1]
    return around in (HIDDEN, SESSION)
