"""Redacts known secrets, in any encoding, from text that leaves the process."""

from __future__ import annotations

import _thread  # threading takes longer to import than this module
import os
import re
from collections import OrderedDict

from concil.runtime.marks import HIDDEN, MIN_LENGTH, SESSION

TYPE_CHECKING = False  # as that of typing, which takes longer to import than this module
if TYPE_CHECKING:
    from typing import TypeAlias

    from concil.runtime.secret_patterns import Pattern

    # A password, token or URL; its replacement; whether it is a URL, and the public beginning of
    # the path of that.
    _Value: TypeAlias = tuple[str, str, bool, str]

__all__ = ["HIDDEN", "SECRETS", "SESSION", "Redactor", "has_slash_in_user", "without_user"]

_MAX_VALUES = 1000  # values of each kind
_MAX_CHARACTERS = 1 << 20  # total for the values of one kind
# Compiled when they are first used: every error imports this module.
_LOCAL = r"(?:oci|oci-archive|docker-archive):(?!//)"
# Greedy: up to the last @, or the one before it if a digest follows the last.
_USER = r"(?s:.*@)(?!sha(?:256|512):)"


class _Kind:
    """The values of one kind, most recently registered last."""

    def __init__(self) -> None:
        self.values: OrderedDict[_Value, list[Pattern]] = OrderedDict()
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
        self.lock = _thread.RLock()  # guards the fields below
        self._kinds: dict[str, _Kind] = {}
        self._new: dict[_Value, _Kind] = {}  # not indexed yet
        self._index: dict[str, list[Pattern]] = {}  # by their first characters

    def register(self, *secrets: str | None, kind: str = "password") -> None:
        """Register passwords and tokens. Values of fewer than 4 characters are ignored.

        Args:
            kind: frequent values have a kind of their own, so that they do not displace rare
                ones.
        """
        for secret in secrets:
            if secret and len(secret) >= MIN_LENGTH:
                self._add((secret, HIDDEN, False, ""), kind)

    def register_session(self, url: str, known: str = "") -> None:
        """Register the Location of an upload session.

        Args:
            known: a public prefix of its path, which is in the request as well; ignored if
                the path does not begin with it.
        """
        self._add((url, SESSION, True, known), "session")

    def register_signed(self, url: str) -> None:
        """Register a URL whose query and path parameters may be a signature; its path is public."""
        if "?" in url or ";" in url:
            self._add((url, HIDDEN, True, ""), "signed")

    def redact(self, text: str) -> str:
        """Return the text with every known secret replaced by a mark.

        Secrets are recognized in plain form, in percent-encoding, in Base64 of either alphabet
        (also within a longer value, as in ``user:password``), with the escapes of JSON, HTML and
        Python, and in combinations of these.
        """
        if not self._kinds:
            return text
        # Imported without the lock: a thread that imports it may wait for the lock.
        from concil.runtime import secret_patterns  # noqa: PLC0415  # most runs have no secrets

        with self.lock:
            while self._new:
                value, kind = self._new.popitem()
                kind.values[value] = self._index_patterns(secret_patterns.create_patterns(*value))
            if not self._index:
                return text
            spans = secret_patterns.find_spans(text, self._index)
        return secret_patterns.replace_spans(text, spans) if spans else text

    def _add(self, value: _Value, name: str) -> None:
        with self.lock:
            kind = self._kinds.setdefault(name, _Kind())
            if value in kind.values:
                kind.values.move_to_end(value)
                return
            kind.values[value] = []
            kind.characters += len(value[0])
            self._new[value] = kind
            while len(kind.values) > _MAX_VALUES or kind.characters > _MAX_CHARACTERS:
                oldest, patterns = kind.values.popitem(last=False)
                kind.characters -= len(oldest[0])
                self._new.pop(oldest, None)
                self._drop(patterns)

    def _index_patterns(self, patterns: list[Pattern]) -> list[Pattern]:
        for pattern in patterns:
            self._index.setdefault(pattern.head[:MIN_LENGTH], []).append(pattern)
        return patterns

    def _drop(self, patterns: list[Pattern]) -> None:
        for dropped in patterns:
            key = dropped.head[:MIN_LENGTH]
            remaining = [pattern for pattern in self._index.get(key, ()) if pattern is not dropped]
            if remaining:
                self._index[key] = remaining
            else:
                self._index.pop(key, None)


def without_user(address: str) -> str:
    """Return an address for display, with user and password replaced by a mark.

    Everything before the last @ is replaced, unless that @ begins a digest. This includes
    invalid addresses: with a slash in the password other parsers would end the host there.
    """
    if re.match(_LOCAL, address):
        return address
    scheme, mark, rest = address.rpartition("://")
    match = re.match(_USER, rest)
    return f"{scheme}{mark}{HIDDEN}@{rest[match.end() :]}" if match else address


def has_slash_in_user(text: str) -> bool:
    """Return whether ``user:password@host/path`` has a slash before the @, which is invalid."""
    match = re.match(_USER, text)
    return match is not None and "/" in match[0] and "/" in text[match.end() :]


SECRETS = Redactor()  # one per process: an exception does not know who created it


def _before_fork() -> None:
    SECRETS.lock.acquire()  # another thread may be registering a secret


def _in_parent() -> None:
    SECRETS.lock.release()


def _in_child() -> None:
    SECRETS.lock = _thread.RLock()


os.register_at_fork(before=_before_fork, after_in_parent=_in_parent, after_in_child=_in_child)
