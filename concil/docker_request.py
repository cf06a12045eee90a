"""The keywords of ``requests.request`` as a call that can be made twice."""

from __future__ import annotations

from collections.abc import Callable
from typing import IO, Any

import requests

from concil.registry.endpoint import Call
from concil.registry.scopes import Scopes
from concil.registry.session import Options

# What of the keywords settles the body, belongs to the request, or to its sending.
_BODY_KEYS = ("params", "data", "json", "files")
_REQUEST_KEYS = ("auth", "cookies", "hooks")
_SEND_KEYS = ("timeout", "verify", "cert", "proxies")
_ANY = frozenset(range(100, 600))


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
