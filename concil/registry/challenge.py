"""Reads WWW-Authenticate headers: several challenges in one or many, quoted or not."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import requests

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_TOKEN68 = re.compile(r"[A-Za-z0-9\-._~+/]+=*(?=\s*(?:,|$))")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"?', re.DOTALL)
# A registry writes spaces and commas unquoted only by mistake; up to them the value counts.
_BARE = re.compile(r"[^\s,\"]*")
_LIMIT = 16 * 1024  # characters of one header that are read


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way a server offers to be authenticated to."""

    scheme: str  # lower case: bearer, basic
    parameters: Mapping[str, str] = field(default_factory=dict)  # names in lower case

    def get(self, name: str) -> str:
        """A parameter, or "" if it is missing."""
        return self.parameters.get(name, "")

    @property
    def lacks_scope(self) -> bool:
        """Whether a token was good, and only not for this. Source: RFC 6750, 3.1."""
        return self.scheme == "bearer" and self.get("error") == "insufficient_scope"


def wants_more(response: requests.Response) -> bool:
    """Whether a token was good, and only not for this. Source: RFC 6750, 3.1."""
    return any(one.lacks_scope for one in read(response))


def rejects_token(response: requests.Response) -> bool:
    """Whether a token itself was no good, for anything. Source: RFC 6750, 3.1."""
    return any(one.get("error") == "invalid_token" for one in read(response))


def read(response: requests.Response) -> list[Challenge]:
    """Read the challenges of an answer, every header of its own: requests would join them."""
    raw = getattr(response.raw, "headers", None)
    many = raw.getlist("WWW-Authenticate") if raw is not None and hasattr(raw, "getlist") else []
    return parse(many or [response.headers.get("WWW-Authenticate", "")])


def parse(headers: Iterable[str]) -> list[Challenge]:
    """Read every challenge of every header, in order; what makes no sense is passed over.

    Source: RFC 9110, 11.6.1; the shapes in REGISTRIES.md 3.1.
    """
    return [challenge for header in headers for challenge in _parse_one(header[:_LIMIT])]


def _parse_one(text: str) -> list[Challenge]:
    found: list[Challenge] = []
    parameters: dict[str, str] = {}
    at = 0
    while at < len(text):
        word = _TOKEN.match(text, at)
        if word is None:
            at += 1  # a separator, or something that has no place here
            continue
        after = _skip(text, word.end())
        if text[after : after + 1] == "=":
            # Before the first scheme it goes into a dictionary that belongs to nobody.
            value, at = _value(text, _skip(text, after + 1))
            parameters.setdefault(word[0].lower(), value)
            continue
        parameters = {}
        found.append(Challenge(word[0].lower(), parameters))
        at = after
        blob = _TOKEN68.match(text, at) if after > word.end() else None
        if blob:
            at = blob.end()  # "Negotiate abc==": a token, not parameters
    return found


def _value(text: str, at: int) -> tuple[str, int]:
    quoted = _QUOTED.match(text, at)
    if quoted:
        return re.sub(r"\\(.)", r"\1", quoted[1], flags=re.DOTALL), quoted.end()
    bare = _BARE.match(text, at)
    return (bare[0], bare.end()) if bare else ("", at)


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at
