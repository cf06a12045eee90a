"""The secrets that this process knows, and how they are kept out of text that leaves it."""

from __future__ import annotations

import base64
import os
import re
import threading
import urllib.parse
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from concil.encodings import decodings

HIDDEN = "<hidden>"
SESSION = "<session>"

_SHORTEST = 4  # characters; shorter values would be found in every text
_WORD = 6  # characters; a shorter value counts as a word of its own only, so "push" is not "pushed"
_HEAD = 32  # characters of a long value that are enough: a server may cut what it repeats
_PART = 8  # characters; shorter parts of a URL say too little to be looked for
_MOST = 1000  # values of each kind
_MOST_CHARACTERS = 1 << 20  # of all values of one kind
_LOCAL = re.compile(r"(?:oci|oci-archive|docker-archive):(?!//)")
# Greedy: up to the last @, or the last but one where a digest follows the last.
_USER = re.compile(r".*@(?!sha(?:256|512):)", re.DOTALL)
# Query keys of registries and signed URLs whose values are no secret.
_PLAIN_KEYS = frozenset(
    {"digest", "mount", "from", "n", "last", "artifactType", "service", "scope"}
)


class _Value(NamedTuple):
    """Something registered; a value that is registered again is the same."""

    text: str  # a password, a token, or a URL
    mark: str  # what stands in its place
    is_url: bool = False
    known: str = ""  # the beginning of the URL's path that is no secret


@dataclass(frozen=True, slots=True)
class _Needle:
    """One form of a value, as it is looked for."""

    head: str  # has to be there
    rest: str  # goes with it as far as the text agrees
    mark: str
    is_word: bool = False  # no letter or digit may stand beside it
    before: int = 0  # characters of Base64 in front of it that hold bits of it
    after: int = 0  # the same behind it


@dataclass(slots=True)
class _Kind:
    """The values of one kind, the one registered last at the end."""

    values: OrderedDict[_Value, list[_Needle]] = field(default_factory=OrderedDict)
    characters: int = 0


class Redactor:
    """Replaces known secrets in texts, however they are encoded there.

    Any thread may call any method. Memory is bounded: of passwords, tokens, sessions and
    signed URLs the ones registered last are remembered, a thousand and 1 MiB of each.
    Registering costs next to nothing; the work is done when a text is redacted.
    """

    def __init__(self) -> None:
        """Know no secret."""
        # Reentrant: a finalizer or a signal handler may build an exception at any place.
        self.lock = threading.RLock()  # guards all below
        self._kinds: dict[str, _Kind] = {}
        self._new: dict[_Value, _Kind] = {}  # not yet in the index
        self._index: dict[str, list[_Needle]] = {}  # by the first characters

    def register(self, *secrets: str | None, kind: str = "password") -> None:
        """Remember passwords and tokens. Those of under 4 characters are not looked for.

        Args:
            kind: whatever comes in numbers has a kind of its own, so that it does not displace
                what comes once.
        """
        for secret in secrets:
            if secret and len(secret) >= _SHORTEST:
                self._add(_Value(secret, HIDDEN), kind)

    def register_session(self, url: str, known: str = "") -> None:
        """Remember the Location of an upload session.

        Args:
            known: the beginning of its path that says no more than the request did, if it
                begins so.
        """
        self._add(_Value(url, SESSION, is_url=True, known=known), "session")

    def register_signed(self, url: str) -> None:
        """Remember a URL whose query and path parameters may be a signature; its path is none."""
        if "?" in url or ";" in url:
            self._add(_Value(url, HIDDEN, is_url=True), "signed")

    def redact(self, text: str) -> str:
        """Return the text with a mark in the place of every secret that it holds.

        Found are the value itself and the value in percent-encoding, Base64 of either alphabet
        (also as a part of something longer, as ``user:password``), with the escapes of JSON, HTML
        and Python, and in several of these at once.
        """
        with self.lock:
            if self._new:
                self._index_new()
            if not self._index:
                return text
            spans = sorted(
                (at[start], at[stop], mark)
                for decoded, at in decodings(text)
                for start, stop, mark in self._found(decoded)
            )
        return _replaced(text, spans) if spans else text

    def _add(self, value: _Value, name: str) -> None:
        with self.lock:
            kind = self._kinds.setdefault(name, _Kind())
            if value in kind.values:
                kind.values.move_to_end(value)
                return
            kind.values[value] = []
            kind.characters += len(value.text)
            self._new[value] = kind
            while len(kind.values) > _MOST or kind.characters > _MOST_CHARACTERS:
                oldest, needles = kind.values.popitem(last=False)
                kind.characters -= len(oldest.text)
                self._new.pop(oldest, None)
                self._drop(needles)

    def _index_new(self) -> None:
        while self._new:
            value, kind = self._new.popitem()
            needles = list(_needles(value))
            kind.values[value] = needles
            for needle in needles:
                self._index.setdefault(needle.head[:_SHORTEST], []).append(needle)

    def _drop(self, needles: list[_Needle]) -> None:
        for needle in needles:
            key = needle.head[:_SHORTEST]
            left = [each for each in self._index.get(key, ()) if each is not needle]
            if left:
                self._index[key] = left
            else:
                self._index.pop(key, None)

    def _found(self, text: str) -> Iterator[tuple[int, int, str]]:
        """Yield where secrets begin and end in a text, and what to put there."""
        index = self._index
        for start in range(len(text) - _SHORTEST + 1):
            for needle in index.get(text[start : start + _SHORTEST], ()):
                if text.startswith(needle.head, start):
                    stop = _end(text, start + len(needle.head), needle.rest)
                    if not (needle.is_word and _is_within_word(text, start, stop)):
                        yield (*_widened(text, start, stop, needle), needle.mark)


def without_user(address: str) -> str:
    """Return an address as it may be shown: with a mark in the place of user and password.

    Everything in front of the last @ is taken for them, unless a digest follows that, also
    what makes no valid address: a slash in the password would end the host for others.
    """
    if _LOCAL.match(address):
        return address
    scheme, mark, rest = address.rpartition("://")
    found = _USER.match(rest)
    return f"{scheme}{mark}{HIDDEN}@{rest[found.end() :]}" if found else address


def has_slash_in_user(text: str) -> bool:
    """Whether ``user:password@host/path`` has a slash in front of the @, which ends no host."""
    found = _USER.match(text)
    return found is not None and "/" in found[0] and "/" in text[found.end() :]


def _needles(value: _Value) -> Iterator[_Needle]:
    """The forms of a value that no decoding of a text leads back to each other."""
    if value.is_url:
        yield from _needles_of_url(value)
        return
    content = value.text.encode("utf-8", "surrogatepass")
    yield _needle(value.text, value.mark)
    if not value.text.isascii():
        yield _needle(content.decode("latin-1"), value.mark)  # as headers are read
    # Where it begins in a longer content decides which of three texts it becomes.
    for skipped in range(3):
        encoded = base64.b64encode(bytes(skipped) + content).decode("ascii")
        before = (0, 2, 3)[skipped]
        after = (0, 1, 1)[(skipped + len(content)) % 3]
        core = encoded.rstrip("=")[before:]
        core = core[: len(core) - after]
        for text in {core, core.translate(_URL_SAFE)}:
            if len(text) >= _SHORTEST:
                yield _Needle(text[:_HEAD], text[_HEAD:], value.mark, before=before, after=after)


_URL_SAFE = str.maketrans("+/", "-_")
_BASE64 = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_")


def _needle(text: str, mark: str) -> _Needle:
    return _Needle(text[:_HEAD], text[_HEAD:], mark, is_word=len(text) < _WORD)


def _needles_of_url(value: _Value) -> Iterator[_Needle]:
    """The path and query of a URL as a whole, and their parts: a server may repeat one."""
    try:
        parts = urllib.parse.urlsplit(value.text)
    except ValueError:
        yield _Needle(value.text, "", value.mark)
        return
    path = parts.path
    if value.mark == HIDDEN:
        path = path.partition(";")[2]
    elif value.known and path.startswith(value.known):
        path = path.removeprefix(value.known)
    elif 1 < len(path) <= _PART:
        # Alone it could be anything, "/up" as well.
        front = f"//{parts.netloc}"
        yield _Needle(f"{front}{path}", "", f"{front}/{value.mark}", is_word=True)
    asked = value.known.split("/")
    segments = [each for each in re.split("[/;]", path) if each not in asked]
    texts = [path.lstrip("/"), parts.query]
    texts += segments[-1:]  # the id is the last one nearly everywhere
    texts += re.split("[/;=&,]", urllib.parse.unquote(segments[-1])) if segments else []
    texts += [each for each in segments if any(map(str.isdigit, each))]
    fields = (each.partition("=") for each in (*segments, *parts.query.split("&")))
    texts += [content for name, _, content in fields if name not in _PLAIN_KEYS]
    forms = (form for text in texts for form in (text, urllib.parse.unquote(text)))
    for form in dict.fromkeys(forms):
        if len(form) >= _PART:
            yield _Needle(form, "", value.mark)


def _end(text: str, stop: int, rest: str) -> int:
    """Where the text stops agreeing with the rest of a value."""
    if text.startswith(rest, stop):
        return stop + len(rest)
    for here, there in zip(text[stop : stop + len(rest)], rest, strict=False):
        if here != there:
            break
        stop += 1
    return stop


def _is_within_word(text: str, start: int, stop: int) -> bool:
    return text[max(0, start - 1) : start].isalnum() or text[stop : stop + 1].isalnum()


def _widened(text: str, start: int, stop: int, needle: _Needle) -> tuple[int, int]:
    """Take along the characters of Base64 that hold bits of the secret and of its neighbours."""
    for _ in range(needle.before):
        if start and text[start - 1] in _BASE64:
            start -= 1
    for _ in range(needle.after):
        if stop < len(text) and text[stop] in _BASE64:
            stop += 1
    return start, stop


def _replaced(text: str, spans: list[tuple[int, int, str]]) -> str:
    """Put marks in the place of spans, which may overlap; a mark stays what it is."""
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
    """Whether a span lies in a mark: "hidden" may be somebody's password."""
    around = text[max(0, start - 1) : stop + 1]
    return around in (HIDDEN, SESSION)


SECRETS = Redactor()  # one for the process: an exception knows nothing of who built it


def _before_fork() -> None:
    SECRETS.lock.acquire()  # another thread may be in the middle of something


def _in_parent() -> None:
    SECRETS.lock.release()


def _in_child() -> None:
    SECRETS.lock = threading.RLock()


os.register_at_fork(before=_before_fork, after_in_parent=_in_parent, after_in_child=_in_child)
