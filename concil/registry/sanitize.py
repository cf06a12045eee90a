"""What may be kept and shown of a server's words, of its answers, and of others' exceptions."""

from __future__ import annotations

import base64
import contextlib
import http.client
import io
import re
import urllib.parse
from collections.abc import Iterator, Mapping

import requests
import urllib3.exceptions
from requests.structures import CaseInsensitiveDict

from concil.redaction import SECRETS
from concil.registry.urls import redacted

_LONGEST_TEXT = 4096  # characters of a server's words that are looked at
_URL = re.compile(r"https?://(?:[^\s\"'<>]|<hidden>|<session>)+")
_CREDENTIALS = re.compile(r"\b(Bearer|Basic)\s+[\w.~+/=-]{6,}", re.IGNORECASE)
# urllib3 names the path and query of what it could not fetch.
_WITH_URL = re.compile(r"(?<=with url: )\S+")
_ADDRESSES = ("Location", "Content-Location", "Link", "Refresh", "Referer")
_REQUEST_HEADERS = frozenset(
    {"accept", "content-type", "content-length", "content-range", "range", "user-agent"}
)


def clean_text(text: str) -> str:
    """One line of printable text without secrets: what a registry sends ends up on a terminal.

    Storage repeats the signed URL that it was asked by, others the header.
    """
    text = _hidden(text, _LONGEST_TEXT)
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def clean_response(response: requests.Response, content: bytes) -> requests.Response:
    """Return what an exception may keep of an answer: status, headers and body without secrets.

    Args:
        content: its body, as far as it was read.
    """
    register_request(response.request)
    kept = requests.Response()
    kept.status_code = response.status_code
    kept.reason = SECRETS.redact(response.reason or "")
    kept.url = redacted(response.url)
    kept.headers = CaseInsensitiveDict(
        (name, redacted(value) if name.title() in _ADDRESSES else SECRETS.redact(value))
        for name, value in response.headers.items()
    )
    kept.encoding, kept.elapsed = response.encoding, response.elapsed
    # Each byte is a character, and the other way round.
    content = SECRETS.redact(content.decode("latin-1")).encode("latin-1")
    kept.raw = io.BytesIO(content)
    kept._content = content  # noqa: SLF001 - as if it was read
    kept._content_consumed = True  # type: ignore[attr-defined]  # noqa: SLF001
    if response.request is not None:
        kept.request = _clean_request(response.request)
    return kept


def clean_exceptions(error: BaseException) -> None:
    """Take secrets out of an exception of the HTTP stack and of those behind it.

    It becomes the cause of one of concil's own, and is printed with it.
    """
    for each in chain(error):
        request = getattr(each, "request", None)
        if isinstance(request, requests.PreparedRequest):
            register_request(request)
    for each in chain(error):
        with contextlib.suppress(AttributeError, TypeError):  # what cannot be set says nothing
            _clean(each)


def chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and all that are behind it, in whatever way."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        more = [one.__cause__, one.__context__, getattr(one, "reason", None), *one.args]
        waiting.extend(e for e in more if isinstance(e, BaseException))


def register_request(request: requests.PreparedRequest | None) -> None:
    """Remember the credentials of a request, also those that came from a session's user."""
    for name in ("Authorization", "Proxy-Authorization"):
        headers: Mapping[str, str | bytes] = (request.headers if request else None) or {}
        value = headers.get(name, "")
        if isinstance(value, bytes):  # requests takes both
            value = value.decode("latin-1")
        scheme, _, token = value.partition(" ")
        SECRETS.register(token.strip(), kind="token")
        if scheme.lower() == "basic":
            with contextlib.suppress(ValueError):
                pair = base64.b64decode(token).decode("utf-8", "replace")
                SECRETS.register(pair.partition(":")[2])


def register_user(url: str) -> None:
    """Remember the password of a URL, as that of a proxy, which may be a host alone."""
    user = url.partition("://")[2] if "://" in url else url
    name, _, password = user.rpartition("@")[0].partition(":")
    plain = urllib.parse.unquote(password)
    SECRETS.register(password, plain)
    if plain:
        pair = f"{urllib.parse.unquote(name)}:{plain}".encode("utf-8", "replace")
        SECRETS.register(base64.b64encode(pair).decode("ascii"))


def _clean(error: BaseException) -> None:
    if isinstance(error, UnicodeError):
        # It holds the text that could not be encoded, as a header with a password in it.
        error.args = (type(error).__name__,)
        for name in ("object", "reason"):
            setattr(error, name, "")
        return
    error.args = tuple(_hidden(arg) if isinstance(arg, str) else arg for arg in error.args)
    if isinstance(error, http.client.IncompleteRead):
        error.partial, error.args = b"", (b"",)  # a part of anything
    if isinstance(error, http.client.BadStatusLine):
        vars(error)["line"] = "" if "line" not in vars(error) else _hidden(str(vars(error)["line"]))
    if isinstance(error, urllib3.exceptions.RequestError):
        error.url = redacted(error.url) if error.url else error.url
    if isinstance(error, urllib3.exceptions.LocationParseError):
        error.location = _hidden(error.location)
    if isinstance(error, requests.RequestException):
        error.response = None
        if isinstance(error.request, requests.PreparedRequest):
            error.request = _clean_request(error.request)


def _clean_request(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """A request's method, URL and plain headers."""
    kept = requests.PreparedRequest()
    kept.method = request.method
    kept.url = redacted(request.url or "")
    headers = (request.headers or {}).items()
    kept.headers = CaseInsensitiveDict(
        (name, value) for name, value in headers if name.lower() in _REQUEST_HEADERS
    )
    return kept


def _hidden(text: str, limit: int | None = None) -> str:
    # Before it is cut: half a secret would not be found.
    text = SECRETS.redact(text)[:limit]
    text = _URL.sub(lambda found: redacted(found[0]), text)
    text = _WITH_URL.sub(lambda found: redacted(found[0]), text)
    return _CREDENTIALS.sub(r"\1 <hidden>", text)
