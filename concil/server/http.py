"""HTTP/1.1 requests as they come in and replies as they go out."""

from __future__ import annotations

import re
import urllib.parse
from dataclasses import dataclass, field
from http import HTTPStatus

from concil.config import KIB
from concil.errors import shown
from concil.redaction import SESSION
from concil.server.connection import Body, Connection, Stretch
from concil.server.refusal import JSON, Refusal

_HEAD_LIMIT = 32 * KIB  # bytes of a request line and its headers
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_SESSION = re.compile(r"(?<=/blobs/uploads/).+", re.DOTALL)
_STRAY = re.compile(r"[\r\n\0]")
_SINGLE = frozenset({"content-length", "content-range", "host", "transfer-encoding"})
_REQUEST_LINE = re.compile(r"([A-Z]{1,16}) (\S{1,16384}) HTTP/1\.([01])")


@dataclass(slots=True)
class Reply:
    """An answer: a status, headers, and a body in memory or in a file."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    stretch: Stretch | None = None

    @property
    def length(self) -> int:
        """Bytes of the body."""
        return self.stretch.length if self.stretch else len(self.body)

    def close(self) -> None:
        """Close the file, if there is one."""
        if self.stretch is not None:
            self.stretch.file.close()

    @classmethod
    def of(cls, refusal: Refusal) -> Reply:
        """An error in the form the specification gives it."""
        headers = {"Content-Type": JSON, **refusal.headers}
        return cls(refusal.status, headers, refusal.body())


@dataclass(slots=True)
class Request:
    """A request whose body is still to be read."""

    method: str
    path: str  # percent-decoded, without the query
    query: dict[str, list[str]]
    headers: dict[str, str]  # names in lower case
    body: Body
    keep_alive: bool

    @property
    def told(self) -> str:
        """The path for a log: one line of ASCII, for a client may write anything."""
        return path_for_log(self.path)

    def first(self, name: str) -> str | None:
        """The first value of a query parameter."""
        values = self.query.get(name)
        return values[0] if values else None


def path_for_log(path: str) -> str:
    """A path in one line of ASCII, and without the id of an upload session."""
    return shown(_SESSION.sub(SESSION, path), 300)[1:-1]


def read_request(connection: Connection) -> Request | None:
    """Read up to the body of the next request; None if the client has left.

    Raises:
        Refusal: it is not HTTP/1.1, or its headers are too large or contradict themselves.
        OSError: the connection broke, or was silent for too long.
    """
    connection.activity.await_header()
    start = connection.peek()
    if start and not (start.isalpha() or start.isspace()):
        # Clients try TLS first and wait for the end of a handshake that nobody answers.
        raise Refusal("UNSUPPORTED", "this is a plain HTTP server", status=400)
    head = connection.read_until(b"\r\n\r\n", _HEAD_LIMIT)
    if head is None:
        return None
    connection.activity.begin_request()
    first, *lines = head.decode("latin-1").lstrip("\r\n").split("\r\n")
    if any(_STRAY.search(line) for line in lines):
        # To a proxy in front it may have been the end of a line (RFC 9112, 2.2).
        raise Refusal("UNSUPPORTED", "a stray CR, LF or NUL in a header", status=400)
    found = _REQUEST_LINE.fullmatch(first)
    if found is None:
        raise Refusal("UNSUPPORTED", "not an HTTP/1.1 request", status=400)
    method, target, minor = found.groups()
    headers = _headers(lines)
    if minor == "1" and "host" not in headers:
        # Required even where it is of no use, so that a proxy and we read the same (RFC 9112, 3.2).
        raise Refusal("UNSUPPORTED", "no Host header", status=400)
    path, _, query = _origin_form(target).partition("?")
    try:
        parameters = urllib.parse.parse_qs(query, keep_blank_values=True, max_num_fields=64)
    except ValueError as error:
        raise Refusal("UNSUPPORTED", "too many query parameters", status=400) from error
    keep = minor == "1" and "close" not in headers.get("connection", "").lower()
    expected = headers.get("expect", "").lower() == "100-continue"
    body = Body(connection, _length(headers), expected=expected)
    return Request(method, urllib.parse.unquote(path), parameters, headers, body, keep)


def write_reply(connection: Connection, reply: Reply, *, head: bool, close: bool) -> int:
    """Send a reply; return the bytes of its body that went out.

    Raises:
        OSError: the connection broke before the body.
    """
    length = reply.length
    bodyless = head or reply.status in (204, 304)
    headers = {"Docker-Distribution-Api-Version": "registry/2.0", **reply.headers}
    if reply.status not in (204, 304):
        headers.setdefault("Content-Length", str(length))
    headers["Connection"] = "close" if close else "keep-alive"
    lines = [f"HTTP/1.1 {reply.status} {_phrase(reply.status)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    front = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")
    if bodyless:
        connection.send(front)
        return 0
    if reply.stretch is None:
        connection.send(front + reply.body)
        return length
    connection.send(front)
    return connection.send_stretch(reply.stretch)


def _headers(lines: list[str]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not _TOKEN.fullmatch(name):
            raise Refusal("UNSUPPORTED", "not a header line", status=400)
        name, value = name.lower(), value.strip()
        if name in headers and name in _SINGLE:
            raise Refusal("UNSUPPORTED", f"two {name} headers", status=400)
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def _length(headers: dict[str, str]) -> int | None:
    """The length of the body; None for the chunked coding."""
    coding, length = headers.get("transfer-encoding"), headers.get("content-length")
    if coding is not None:
        # Both at once is how requests are smuggled past a proxy (RFC 9112, 6.1).
        if length is not None or coding.lower() != "chunked":
            raise Refusal("UNSUPPORTED", "unusable Transfer-Encoding", status=400)
        return None
    if length is None:
        return 0
    if not length.isascii() or not length.isdigit() or len(length) > 18:
        raise Refusal("SIZE_INVALID", "not a Content-Length")
    return int(length)


def _origin_form(target: str) -> str:
    """The path and query of a target, which a client of a proxy sends with scheme and host."""
    if target.startswith("/"):
        return target
    _, found, rest = target.partition("://")
    return "/" + rest.partition("/")[2] if found else target


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"
