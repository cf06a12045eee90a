"""Redacts known secrets, in any encoding, from text that leaves the process."""

from __future__ import annotations

import binascii
import os
import re
import threading
from collections import OrderedDict, namedtuple
from collections.abc import Iterator

HIDDEN = "<hidden>"
SESSION = "<session>"

_MIN_LENGTH = 4  # characters; shorter values would match in every text
# Characters; a shorter value matches whole words only, so "push" does not match "pushed".
_MIN_PART_OF_WORD = 6
# Characters; enough of a long value, because a server may truncate what it repeats.
_PREFIX_LENGTH = 32
_MIN_URL_PART = 8  # characters; shorter parts of a URL are too common to be redacted
_MAX_VALUES = 1000  # values of each kind
_MAX_CHARACTERS = 1 << 20  # total for the values of one kind
_LOCAL = re.compile(r"(?:oci|oci-archive|docker-archive):(?!//)")
# Greedy: up to the last @, or the one before it if a digest follows the last.
_USER = re.compile(r".*@(?!sha(?:256|512):)", re.DOTALL)
# Query keys of registries and signed URLs whose values are not secret.
_PLAIN_KEYS = frozenset(
    {"digest", "mount", "from", "n", "last", "artifactType", "service", "scope"}
)


class _Value(
    namedtuple("_Value", "text mark is_url known", defaults=(False, ""))  # noqa: PYI024  # typing takes longer to import than this module
):
    """A registered value; registering an equal value again changes nothing."""

    __slots__ = ()

    text: str  # a password, a token, or a URL
    mark: str  # the replacement
    is_url: bool
    known: str  # the public beginning of the URL's path


class _Pattern:
    """One form in which a value is searched."""

    __slots__ = ("after", "before", "head", "is_word", "mark", "rest")

    def __init__(self, head: str, rest: str, mark: str, *, is_word: bool = False) -> None:
        self.head = head  # must match exactly
        self.rest = rest  # redacted as far as the text matches it
        self.mark = mark
        self.is_word = is_word  # no letter or digit may be adjacent
        self.before = 0  # Base64 characters before it that contain bits of it
        self.after = 0  # Base64 characters after it that contain bits of it


class _Kind:
    """The values of one kind, most recently registered last."""

    def __init__(self) -> None:
        self.values: OrderedDict[_Value, list[_Pattern]] = OrderedDict()
        self.characters = 0


class Redactor:
    """Replaces known secrets in texts, including their encoded forms.

    Any thread may call any method. Memory is bounded: for passwords, tokens, sessions and signed
    URLs the most recently registered values are kept, a thousand and 1 MiB of each.
    Registering is cheap; the work is done when a text is redacted.
    """

    def __init__(self) -> None:
        """Create a redactor without secrets."""
        # Reentrant: a finalizer or a signal handler may create an exception at any time.
        self.lock = threading.RLock()  # guards the fields below
        self._kinds: dict[str, _Kind] = {}
        self._new: dict[_Value, _Kind] = {}  # not indexed yet
        self._index: dict[str, list[_Pattern]] = {}  # by their first characters

    def register(self, *secrets: str | None, kind: str = "password") -> None:
        """Register passwords and tokens. Values of fewer than 4 characters are ignored.

        Args:
            kind: frequent values have a kind of their own, so that they do not displace rare
                ones.
        """
        for secret in secrets:
            if secret and len(secret) >= _MIN_LENGTH:
                self._add(_Value(secret, HIDDEN), kind)

    def register_session(self, url: str, known: str = "") -> None:
        """Register the Location of an upload session.

        Args:
            known: a public prefix of its path, which is in the request as well; ignored if
                the path does not begin with it.
        """
        self._add(_Value(url, SESSION, is_url=True, known=known), "session")

    def register_signed(self, url: str) -> None:
        """Register a URL whose query and path parameters may be a signature; its path is public."""
        if "?" in url or ";" in url:
            self._add(_Value(url, HIDDEN, is_url=True), "signed")

    def redact(self, text: str) -> str:
        """Return the text with every known secret replaced by a mark.

        Secrets are recognized in plain form, in percent-encoding, in Base64 of either alphabet
        (also within a longer value, as in ``user:password``), with the escapes of JSON, HTML and
        Python, and in combinations of these.
        """
        if not self._kinds:
            return text
        # Imported without the lock: a thread that imports it may wait for the lock.
        from concil.runtime.encodings import decodings  # noqa: PLC0415  # needed for a secret only

        with self.lock:
            if self._new:
                self._index_new()
            if not self._index:
                return text
            spans = sorted(
                (at[start], at[stop], mark)
                for decoded, at in decodings(text)
                for start, stop, mark in self._find_matches(decoded)
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
            while len(kind.values) > _MAX_VALUES or kind.characters > _MAX_CHARACTERS:
                oldest, patterns = kind.values.popitem(last=False)
                kind.characters -= len(oldest.text)
                self._new.pop(oldest, None)
                self._drop(patterns)

    def _index_new(self) -> None:
        while self._new:
            value, kind = self._new.popitem()
            patterns = list(_needles(value))
            kind.values[value] = patterns
            for pattern in patterns:
                self._index.setdefault(pattern.head[:_MIN_LENGTH], []).append(pattern)

    def _drop(self, needles: list[_Pattern]) -> None:
        for dropped in needles:
            key = dropped.head[:_MIN_LENGTH]
            remaining = [pattern for pattern in self._index.get(key, ()) if pattern is not dropped]
            if remaining:
                self._index[key] = remaining
            else:
                self._index.pop(key, None)

    def _find_matches(self, text: str) -> Iterator[tuple[int, int, str]]:
        """Yield start, end and replacement of each secret in a text."""
        index = self._index
        for start in range(len(text) - _MIN_LENGTH + 1):
            for pattern in index.get(text[start : start + _MIN_LENGTH], ()):
                if text.startswith(pattern.head, start):
                    stop = _end(text, start + len(pattern.head), pattern.rest)
                    if not (pattern.is_word and _is_within_word(text, start, stop)):
                        yield (*_widened(text, start, stop, pattern), pattern.mark)


def without_user(address: str) -> str:
    """Return an address for display, with user and password replaced by a mark.

    Everything before the last @ is replaced, unless that @ begins a digest. This includes
    invalid addresses: with a slash in the password other parsers would end the host there.
    """
    if _LOCAL.match(address):
        return address
    scheme, mark, rest = address.rpartition("://")
    match = _USER.match(rest)
    return f"{scheme}{mark}{HIDDEN}@{rest[match.end() :]}" if match else address


def has_slash_in_user(text: str) -> bool:
    """Return whether ``user:password@host/path`` has a slash before the @, which is invalid."""
    match = _USER.match(text)
    return match is not None and "/" in match[0] and "/" in text[match.end() :]


def _needles(value: _Value) -> Iterator[_Pattern]:
    """Yield the forms of a value that decoding a text does not reduce to each other."""
    if value.is_url:
        yield from _needles_of_url(value)
        return
    content = value.text.encode("utf-8", "surrogatepass")
    yield _needle(value.text, value.mark)
    if not value.text.isascii():
        yield _needle(content.decode("latin-1"), value.mark)  # as headers are decoded
    # Its offset in a longer value determines which of three Base64 texts it becomes.
    for skipped in range(3):
        encoded = binascii.b2a_base64(bytes(skipped) + content, newline=False).decode("ascii")
        before = (0, 2, 3)[skipped]
        after = (0, 1, 1)[(skipped + len(content)) % 3]
        core = encoded.rstrip("=")[before:]
        core = core[: len(core) - after]
        for text in {core, core.translate(_URL_SAFE)}:
            if len(text) >= _MIN_LENGTH:
                pattern = _Pattern(text[:_PREFIX_LENGTH], text[_PREFIX_LENGTH:], value.mark)
                pattern.before, pattern.after = before, after
                yield pattern


_URL_SAFE = str.maketrans("+/", "-_")
_BASE64 = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_")


def _needle(text: str, mark: str) -> _Pattern:
    return _Pattern(
        text[:_PREFIX_LENGTH], text[_PREFIX_LENGTH:], mark, is_word=len(text) < _MIN_PART_OF_WORD
    )


def _needles_of_url(value: _Value) -> Iterator[_Pattern]:
    """Yield the path and query of a URL and their parts, because a server may repeat one alone."""
    import urllib.parse  # noqa: PLC0415  # takes longer to import than this module

    try:
        parts = urllib.parse.urlsplit(value.text)
    except ValueError:
        yield _Pattern(value.text, "", value.mark)
        return
    path = parts.path
    if value.mark == HIDDEN:
        path = path.partition(";")[2]
    elif value.known and path.startswith(value.known):
        path = path.removeprefix(value.known)
    elif 1 < len(path) <= _MIN_URL_PART:
        # On its own it could be anything, such as "/up".
        front = f"//{parts.netloc}"
        yield _Pattern(f"{front}{path}", "", f"{front}/{value.mark}", is_word=True)
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
            yield _Pattern(form, "", value.mark)


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


def _widened(text: str, start: int, stop: int, needle: _Pattern) -> tuple[int, int]:
    """Extend a match by the Base64 characters that contain bits of the secret."""
    for _ in range(needle.before):
        if start and text[start - 1] in _BASE64:
            start -= 1
    for _ in range(needle.after):
        if stop < len(text) and text[stop] in _BASE64:
            stop += 1
    return start, stop


def _replaced(text: str, spans: list[tuple[int, int, str]]) -> str:
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


SECRETS = Redactor()  # one per process: an exception does not know who created it


def _before_fork() -> None:
    SECRETS.lock.acquire()  # another thread may be registering a secret


def _in_parent() -> None:
    SECRETS.lock.release()


def _in_child() -> None:
    SECRETS.lock = threading.RLock()


os.register_at_fork(before=_before_fork, after_in_parent=_in_parent, after_in_child=_in_child)
