"""Turns the keywords of ``requests.request`` into a repeatable call."""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Callable
from dataclasses import replace
from typing import IO, Any

import requests

from concil.auth.scope import Scopes
from concil.http import errors, status_errors
from concil.http.transport import SendOptions, read_error
from concil.http.urls import redact_url
from concil.oci.manifest import Digest
from concil.oci.media_types import ACCEPTED_TYPES
from concil.oci.reference import check_tag
from concil.registry.endpoint import Call
from concil.runtime import arguments

# Keywords that make up the body, that belong to the request, and that affect its sending.
_BODY_KEYS = ("params", "data", "json", "files")
_REQUEST_KEYS = ("auth", "cookies", "hooks")
_SEND_KEYS = ("timeout", "verify", "cert", "proxies")
_ALL_STATUSES = frozenset(range(100, 600))
ANY_MEDIA_TYPE = "*/*"  # the default Accept header of requests
_MANIFEST_PATH = re.compile(r"/v2/.+/manifests/[^/]+")


def build_call(method: str, url: str, scopes: Scopes, keywords: dict[str, Any]) -> Call:
    """Return the call for keywords of ``requests.request``.

    Forms, files and JSON become bytes, and an open file is rewound before it is sent again.
    Only the body of a generator cannot be repeated.

    Raises:
        TypeError: ``requests.request`` has no such keyword.
    """
    remaining = dict(keywords)
    allow_redirects = bool(remaining.pop("allow_redirects", True))
    overrides = {name: remaining.pop(name) for name in _SEND_KEYS if name in remaining}
    request_options = {name: remaining.pop(name) for name in _REQUEST_KEYS if name in remaining}
    headers: dict[str, Any] = dict(remaining.pop("headers", None) or {})
    body_options = {name: remaining.pop(name) for name in _BODY_KEYS if name in remaining}
    if remaining:
        raise TypeError(f"request() got an unexpected keyword argument {next(iter(remaining))!r}")
    prepared = requests.Request(method, url, **body_options).prepare()
    body: Any = prepared.body
    if "Content-Type" in prepared.headers:
        headers.setdefault("Content-Type", prepared.headers["Content-Type"])
    rewind = None
    if isinstance(body, str):
        body = body.encode()
    elif hasattr(body, "seek") and hasattr(body, "tell"):
        rewind = _create_rewind(body)
    return Call(
        method,
        prepared.url or url,
        scopes,
        headers,
        body,
        _ALL_STATUSES,
        SendOptions(allow_redirects=allow_redirects, overrides=overrides),
        request_options,
        rewind,
    )


def _create_rewind(body: IO[bytes]) -> Callable[[], None]:
    position = body.tell()

    def rewind() -> None:
        body.seek(position)

    return rewind


def accept_header(accept: str | None) -> str:
    """Return the Accept header of a request for a manifest; None: accept every type.

    Unless their types are listed, distribution hides OCI manifests and indexes.
    """
    return arguments.check_optional_str("accept", accept) or ", ".join(
        (*ACCEPTED_TYPES, ANY_MEDIA_TYPE)
    )


def with_manifest_accept(call: Call) -> Call:
    """Return the call; a request for a manifest without an Accept header accepts every type."""
    has_accept = any(name.lower() == "accept" for name in call.headers)
    if has_accept or call.method.upper() not in ("GET", "HEAD"):
        return call
    if not _MANIFEST_PATH.fullmatch(urllib.parse.urlsplit(call.url).path):
        return call
    return replace(call, headers={**call.headers, "Accept": accept_header(None)})


def manifest_reference(reference: str | Digest | None, default: str) -> str:
    """Return a tag or digest after checking it; 64 hex digits are a sha256 digest."""
    if isinstance(reference, Digest):
        return str(reference)
    name = arguments.check_optional_str("hash", reference) or default
    if len(name) == 64 and all(c in "0123456789abcdef" for c in name):
        name = f"sha256:{name}"
    return str(Digest.parse(name)) if ":" in name else check_tag(name)


def raise_for_status(response: requests.Response) -> requests.Response:
    """Return the response, or raise StatusError if its status is 400 or higher."""
    if response.status_code < 400:
        return response
    raise status_errors.create_status_error(response, read_error(response))


def read_body(response: requests.Response) -> None:
    """Read the whole body, as requests does without ``stream``."""
    try:
        _ = response.content
    except requests.RequestException as error:
        action = f"the response of {redact_url(response.url)}"
        raise errors.translate(error, action, has_answered=True) from error
