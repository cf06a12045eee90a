"""Everything that an exception shows, or hands to whoever looks at it."""

from __future__ import annotations

import base64
import json
import traceback
import urllib.parse
from collections.abc import Iterator

import requests


def texts(error: BaseException) -> str:
    """What may be printed of an exception and of all behind it: texts, arguments, requests."""
    lines = ["".join(traceback.format_exception(error))]
    for each in chain(error):
        lines += [str(each), repr(each), repr(each.args), *map(str, getattr(each, "__notes__", ()))]
        fields = {k: v for k, v in vars(each).items() if isinstance(v, (str, bytes, int, float))}
        lines.append(repr(fields))
        for name in ("request", "response"):
            value = getattr(each, name, None)
            if value is not None:
                lines += [str(value.url), repr(dict(value.headers)), repr(value)]
            if isinstance(value, requests.Response):
                lines += [value.text, repr(value.content), str(value.reason)]
                lines += [str(value.request.url), repr(dict(value.request.headers))]
    return "\n".join(lines)


def chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and all that it leads to."""
    waiting, seen = [error], set[int]()
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        more = [one.__cause__, one.__context__, *one.args, getattr(one, "reason", None)]
        waiting += [each for each in more if isinstance(each, BaseException)]


def forms(secret: str, user: str = "alice") -> dict[str, str]:
    """A secret as programs write it, by the name of the way."""
    plain, pair = secret.encode(), f"{user}:{secret}".encode()
    quoted = urllib.parse.quote(secret, safe="")
    return {
        "bare": secret,
        "percent, upper case": quoted,
        "percent, lower case": "".join(
            each.lower() if each.startswith("%") else each for each in _escapes(quoted)
        ),
        "percent, every character": "".join(f"%{byte:02x}" for byte in plain),
        "percent, twice": urllib.parse.quote(quoted, safe=""),
        "form": urllib.parse.quote_plus(secret, safe=""),
        "JSON": json.dumps(secret)[1:-1],
        "JSON in JSON": json.dumps(json.dumps(secret)[1:-1])[1:-1],
        "base64": base64.b64encode(plain).decode(),
        "base64 without padding": base64.b64encode(plain).decode().rstrip("="),
        "base64, URL-safe": base64.urlsafe_b64encode(plain).decode(),
        "base64 of user and secret": base64.b64encode(pair).decode(),
        "base64 of user and secret, URL-safe": base64.urlsafe_b64encode(pair).decode().rstrip("="),
        "base64, in percent": urllib.parse.quote(base64.b64encode(pair).decode(), safe=""),
    }


def _escapes(quoted: str) -> list[str]:
    pieces = quoted.split("%")
    return [pieces[0], *(part for each in pieces[1:] for part in (f"%{each[:2]}", each[2:]))]
