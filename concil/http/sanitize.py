"""Removes secrets from server messages, responses and foreign exceptions."""

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

from concil.http.urls import redact_url
from concil.runtime.redaction import SECRETS

_MAX_TEXT_LENGTH = 4096  # characters of a server's message; the rest is cut
_URL = re.compile(r"https?://(?:[^\s\"'<>]|<hidden>|<session>)+")
_CREDENTIALS = re.compile(r"\b(Bearer|Basic)\s+[\w.~+/=-]{6,}", re.IGNORECASE)
# urllib3's messages contain the path and query of a failed request.
_WITH_URL = re.compile(r"(?<=with url: )\S+")
_ADDRESSES = ("Location", "Content-Location", "Link", "Refresh", "Referer")
_REQUEST_HEADERS = frozenset(
    {"accept", "content-type", "content-length", "content-range", "range", "user-agent"}
)


def clean_text(text: str) -> str:
    """Return one line of printable text without secrets, safe to print on a terminal.

    Error messages of storage services repeat the signed URL, others the Authorization header.
    """
    text = _hide_credentials(text, _MAX_TEXT_LENGTH)
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def clean_response(response: requests.Response, content: bytes) -> requests.Response:
    """Return a copy of a response for an exception: status, headers and body without secrets.

    Args:
        content: the part of the body that was read.
    """
    register_request(response.request)
    cleaned = requests.Response()
    cleaned.status_code = response.status_code
    cleaned.reason = SECRETS.redact(response.reason or "")
    cleaned.url = redact_url(response.url)
    cleaned.headers = CaseInsensitiveDict(
        (name, redact_url(value) if name.title() in _ADDRESSES else SECRETS.redact(value))
        for name, value in response.headers.items()
    )
    cleaned.encoding, cleaned.elapsed = response.encoding, response.elapsed
    # latin-1 maps each byte to one character and back.
    content = SECRETS.redact(content.decode("latin-1")).encode("latin-1")
    cleaned.raw = io.BytesIO(content)
    _ = cleaned.content  # it stays, even if the response is closed
    if response.request is not None:
        cleaned.request = _clean_request(response.request)
    return cleaned


def clean_exceptions(error: BaseException) -> None:
    """Remove secrets from an exception of the HTTP stack and from its causes.

    It becomes the cause of a concil exception, and tracebacks print it.
    """
    for exception in iter_exception_chain(error):
        request = getattr(exception, "request", None)
        if isinstance(request, requests.PreparedRequest):
            register_request(request)
    for exception in iter_exception_chain(error):
        with contextlib.suppress(AttributeError, TypeError):  # read-only attributes hold no secrets
            _sanitize(exception)


def iter_exception_chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and its causes, contexts, reasons and exceptions in ``args``."""
    seen_ids: set[int] = set()
    pending = [error]
    while pending:
        exception = pending.pop()
        if id(exception) in seen_ids:
            continue
        seen_ids.add(id(exception))
        yield exception
        linked = [
            exception.__cause__,
            exception.__context__,
            getattr(exception, "reason", None),
            *exception.args,
        ]
        pending.extend(e for e in linked if isinstance(e, BaseException))


def register_request(request: requests.PreparedRequest | None) -> None:
    """Register a request's credentials as secrets, even if the caller's session set them."""
    for name in ("Authorization", "Proxy-Authorization"):
        headers: Mapping[str, str | bytes] = (request.headers if request else None) or {}
        value = headers.get(name, "")
        if isinstance(value, bytes):  # requests accepts both
            value = value.decode("latin-1")
        scheme, _, token = value.partition(" ")
        SECRETS.register(token.strip(), kind="token")
        if scheme.lower() == "basic":
            with contextlib.suppress(ValueError):
                pair = base64.b64decode(token).decode("utf-8", "replace")
                SECRETS.register(pair.partition(":")[2])


def register_user(url: str) -> None:
    """Register the password in a URL as a secret; proxy URLs may lack a scheme."""
    authority = url.partition("://")[2] if "://" in url else url
    name, _, password = authority.rpartition("@")[0].partition(":")
    unquoted = urllib.parse.unquote(password)
    SECRETS.register(password, unquoted)
    if unquoted:
        pair = f"{urllib.parse.unquote(name)}:{unquoted}".encode("utf-8", "replace")
        SECRETS.register(base64.b64encode(pair).decode("ascii"))


def _sanitize(error: BaseException) -> None:
    if isinstance(error, UnicodeError):
        # It holds the text that could not be encoded, such as a header with a password.
        error.args = (type(error).__name__,)
        for name in ("object", "reason"):
            setattr(error, name, "")
        return
    error.args = tuple(
        _hide_credentials(arg) if isinstance(arg, str) else arg for arg in error.args
    )
    if isinstance(error, http.client.IncompleteRead):
        error.partial, error.args = b"", (b"",)  # the partial body may contain secrets
    if isinstance(error, http.client.BadStatusLine):
        vars(error)["line"] = (
            "" if "line" not in vars(error) else _hide_credentials(str(vars(error)["line"]))
        )
    if isinstance(error, urllib3.exceptions.RequestError):
        error.url = redact_url(error.url) if error.url else error.url
    if isinstance(error, urllib3.exceptions.LocationParseError):
        error.location = _hide_credentials(error.location)
    if isinstance(error, requests.RequestException):
        error.response = None
        if isinstance(error.request, requests.PreparedRequest):
            error.request = _clean_request(error.request)


def _clean_request(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Return a copy with the method, the redacted URL and harmless headers."""
    cleaned = requests.PreparedRequest()
    cleaned.method = request.method
    cleaned.url = redact_url(request.url or "")
    headers = (request.headers or {}).items()
    cleaned.headers = CaseInsensitiveDict(
        (name, value) for name, value in headers if name.lower() in _REQUEST_HEADERS
    )
    return cleaned


def _hide_credentials(text: str, limit: int | None = None) -> str:
    # Redact before cutting: a truncated secret would not be recognized.
    text = SECRETS.redact(text)[:limit]
    text = _URL.sub(lambda match: redact_url(match[0]), text)
    text = _WITH_URL.sub(lambda match: redact_url(match[0]), text)
    return _CREDENTIALS.sub(r"\1 <hidden>", text)
