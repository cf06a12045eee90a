"""The keywords of ``requests.request`` as a call that can be made twice, and its answer."""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Callable
from dataclasses import replace
from typing import IO, Any

import requests

from concil import arguments
from concil.content import ACCEPTED_TYPES, Digest
from concil.reference import check_tag
from concil.registry import failures
from concil.registry.endpoint import Call
from concil.registry.scopes import Scopes
from concil.registry.session import Options, read_error
from concil.registry.urls import redacted

# What of the keywords settles the body, belongs to the request, or to its sending.
_BODY_KEYS = ("params", "data", "json", "files")
_REQUEST_KEYS = ("auth", "cookies", "hooks")
_SEND_KEYS = ("timeout", "verify", "cert", "proxies")
_ANY = frozenset(range(100, 600))
ANYTHING = "*/*"  # what requests sends as Accept by itself
_MANIFEST = re.compile(r"/v2/.+/manifests/[^/]+")


def settled(method: str, url: str, scopes: Scopes, keywords: dict[str, Any]) -> Call:
    """Return the call for some keywords of ``requests.request``.

    Forms, files and JSON become bytes, an open file is wound back where it must be
    sent again; only a generator is left as it is.

    Raises:
        TypeError: a keyword that ``requests.request`` does not know either.
    """
    rest = dict(keywords)
    follow = bool(rest.pop("allow_redirects", True))
    overrides = {name: rest.pop(name) for name in _SEND_KEYS if name in rest}
    extra = {name: rest.pop(name) for name in _REQUEST_KEYS if name in rest}
    headers: dict[str, Any] = dict(rest.pop("headers", None) or {})
    given = {name: rest.pop(name) for name in _BODY_KEYS if name in rest}
    if rest:
        raise TypeError(f"request() got an unexpected keyword argument {next(iter(rest))!r}")
    prepared = requests.Request(method, url, **given).prepare()
    body: Any = prepared.body
    if "Content-Type" in prepared.headers:
        headers.setdefault("Content-Type", prepared.headers["Content-Type"])
    rewind = None
    if isinstance(body, str):
        body = body.encode()
    elif hasattr(body, "seek") and hasattr(body, "tell"):
        rewind = _rewinder(body)
    return Call(
        method,
        prepared.url or url,
        scopes,
        headers,
        body,
        _ANY,
        Options(follow=follow, overrides=overrides),
        extra,
        rewind,
    )


def _rewinder(body: IO[bytes]) -> Callable[[], None]:
    position = body.tell()

    def rewind() -> None:
        body.seek(position)

    return rewind


def accepted(accept: str | None) -> str:
    """Return the Accept header of a request for a manifest; None: of every type.

    Without the list, distribution hides manifests and indexes of the image specification.
    """
    return arguments.optional_text("accept", accept) or ", ".join((*ACCEPTED_TYPES, ANYTHING))


def accepting_manifests(call: Call) -> Call:
    """Return the call, with every type accepted if it asks for a manifest and names none."""
    named = any(name.lower() == "accept" for name in call.headers)
    if named or call.method.upper() not in ("GET", "HEAD"):
        return call
    if not _MANIFEST.fullmatch(urllib.parse.urlsplit(call.url).path):
        return call
    return replace(call, headers={**call.headers, "Accept": accepted(None)})


def manifest_name(named: str | Digest | None, default: str) -> str:
    """Return a tag or digest, checked; the hex of a sha256 alone is a digest."""
    if isinstance(named, Digest):
        return str(named)
    name = arguments.optional_text("hash", named) or default
    if len(name) == 64 and all(c in "0123456789abcdef" for c in name):
        name = f"sha256:{name}"
    return str(Digest.parse(name)) if ":" in name else check_tag(name)


def checked(response: requests.Response) -> requests.Response:
    """Return an answer, or raise the StatusError that it is."""
    if response.status_code < 400:
        return response
    raise failures.status_error(response, read_error(response))


def load(response: requests.Response) -> None:
    """Read the body, as requests does without ``stream``."""
    try:
        _ = response.content
    except requests.RequestException as error:
        what = f"the answer of {redacted(response.url)}"
        raise failures.translate(error, what, answered=True) from error
