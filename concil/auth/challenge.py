"""Parses WWW-Authenticate headers with one or several challenges."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import field

import requests

from concil.runtime.dataclass import dataclass

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_TOKEN68 = re.compile(r"[A-Za-z0-9\-._~+/]+=*(?=\s*(?:,|$))")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"?', re.DOTALL)
# Unquoted spaces and commas in a value are a registry's mistake; the value ends there.
_BARE = re.compile(r"[^\s,\"]*")
_MAX_HEADER_LENGTH = 16 * 1024  # characters; the rest of a header is ignored


@dataclass(frozen=True, slots=True)
class Challenge:
    """One authentication challenge of a server."""

    scheme: str  # lower case: bearer, basic
    parameters: Mapping[str, str] = field(default_factory=dict)  # names in lower case

    def get(self, name: str) -> str:
        """Return a parameter, or "" if it is missing."""
        return self.parameters.get(name, "")

    @property
    def is_scope_insufficient(self) -> bool:
        """Whether the token is valid but lacks a scope. Source: RFC 6750, 3.1."""
        return self.scheme == "bearer" and self.get("error") == "insufficient_scope"


def is_scope_insufficient(response: requests.Response) -> bool:
    """Return whether the token is valid but lacks a scope. Source: RFC 6750, 3.1."""
    return any(challenge.is_scope_insufficient for challenge in read_challenges(response))


def is_token_invalid(response: requests.Response) -> bool:
    """Return whether the token itself was rejected. Source: RFC 6750, 3.1."""
    return any(challenge.get("error") == "invalid_token" for challenge in read_challenges(response))


def read_challenges(response: requests.Response) -> list[Challenge]:
    """Return a response's challenges from the separate headers, which requests would join."""
    raw_headers = getattr(response.raw, "headers", None)
    headers = (
        raw_headers.getlist("WWW-Authenticate")
        if raw_headers is not None and hasattr(raw_headers, "getlist")
        else []
    )
    return parse_challenges(headers or [response.headers.get("WWW-Authenticate", "")])


def parse_challenges(headers: Iterable[str]) -> list[Challenge]:
    """Return all challenges of all headers in order, skipping what cannot be parsed.

    Source: RFC 9110, 11.6.1; the shapes in REGISTRIES.md 3.1.
    """
    return [
        challenge for header in headers for challenge in _parse_header(header[:_MAX_HEADER_LENGTH])
    ]


def _parse_header(text: str) -> list[Challenge]:
    challenges: list[Challenge] = []
    parameters: dict[str, str] = {}
    position = 0
    while position < len(text):
        token = _TOKEN.match(text, position)
        if token is None:
            position += 1  # a separator, or an unexpected character
            continue
        after = _skip_whitespace(text, token.end())
        if text[after : after + 1] == "=":
            # Parameters before the first scheme go into a dictionary that is discarded.
            value, position = _parse_value(text, _skip_whitespace(text, after + 1))
            parameters.setdefault(token[0].lower(), value)
            continue
        parameters = {}
        challenges.append(Challenge(token[0].lower(), parameters))
        position = after
        token68 = _TOKEN68.match(text, position) if after > token.end() else None
        if token68:
            position = token68.end()  # "Negotiate abc==": a token, not parameters
    return challenges


def _parse_value(text: str, position: int) -> tuple[str, int]:
    quoted = _QUOTED.match(text, position)
    if quoted:
        return re.sub(r"\\(.)", r"\1", quoted[1], flags=re.DOTALL), quoted.end()
    unquoted = _BARE.match(text, position)
    return (unquoted[0], unquoted.end()) if unquoted else ("", position)


def _skip_whitespace(text: str, position: int) -> int:
    while position < len(text) and text[position] in " \t\r\n":
        position += 1
    return position
