"""Parses HTTP/1.1 requests and writes responses."""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Mapping
from dataclasses import field
from http import HTTPStatus

from concil.config import KIB
from concil.errors import safe_repr
from concil.runtime.dataclass import dataclass
from concil.runtime.redaction import SESSION
from concil.server.connection import Body, Connection, FileRange
from concil.server.errors import JSON_MEDIA_TYPE, ErrorResponse

_MAX_HEAD_SIZE = 32 * KIB  # bytes of a request line and its headers
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_SESSION = re.compile(r"(?<=/blobs/uploads/).+", re.DOTALL)
_FORBIDDEN_CHARACTER = re.compile(r"[\r\n\0]")
_SINGLE = frozenset({"content-length", "content-range", "host", "transfer-encoding"})
_REQUEST_LINE = re.compile(r"([A-Z]{1,16}) (\S{1,16384}) HTTP/1\.([01])")


@dataclass(slots=True)
class Response:
    """A response: status, headers, and a body in memory or in a file."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    file_range: FileRange | None = None

    @property
    def length(self) -> int:
        """Length of the body in bytes."""
        return self.file_range.length if self.file_range else len(self.body)

    def close(self) -> None:
        """Close the file, if there is one."""
        if self.file_range is not None:
            self.file_range.file.close()

    @classmethod
    def from_error(cls, error: ErrorResponse) -> Response:
        """Return an error in the form that the specification defines."""
        headers = {"Content-Type": JSON_MEDIA_TYPE, **error.headers}
        return cls(error.status, headers, error.body())


@dataclass(slots=True)
class Request:
    """A request whose body has not been read."""

    method: str
    path: str  # percent-decoded, without the query
    query: dict[str, list[str]]
    headers: dict[str, str]  # names in lower case
    body: Body
    keep_alive: bool

    @property
    def log_path(self) -> str:
        """The path as one line of ASCII for a log: clients may send any characters."""
        return path_for_log(self.path)

    def query_value(self, name: str) -> str | None:
        """Return the first value of a query parameter; None without one."""
        values = self.query.get(name)
        return values[0] if values else None


def path_for_log(path: str) -> str:
    """Return a path as one line of ASCII, without the ID of an upload session."""
    return safe_repr(_SESSION.sub(SESSION, path), 300)[1:-1]


def read_request(connection: Connection) -> Request | None:
    """Read the next request up to its body; None if the client has closed the connection.

    Raises:
        ErrorResponse: it is not HTTP/1.1, or its headers are too large or contradictory.
        OSError: the connection broke or timed out.
    """
    connection.activity.await_header()
    start = connection.peek()
    if start and not (start.isalpha() or start.isspace()):
        # Clients try TLS first, and would wait for the end of the handshake.
        raise ErrorResponse("UNSUPPORTED", "this is a plain HTTP server", status=400)
    head = connection.read_until(b"\r\n\r\n", _MAX_HEAD_SIZE)
    if head is None:
        return None
    connection.activity.begin_request()
    request_line, *lines = head.decode("latin-1").lstrip("\r\n").split("\r\n")
    if any(_FORBIDDEN_CHARACTER.search(line) for line in lines):
        # A proxy may read it as the end of a line (RFC 9112, 2.2).
        raise ErrorResponse("UNSUPPORTED", "a stray CR, LF or NUL in a header", status=400)
    match = _REQUEST_LINE.fullmatch(request_line)
    if match is None:
        raise ErrorResponse("UNSUPPORTED", "not an HTTP/1.1 request", status=400)
    method, target, minor = match.groups()
    headers = _parse_headers(lines)
    if minor == "1" and "host" not in headers:
        # Required even though it is unused, so that a proxy reads the same request (RFC 9112, 3.2).
        raise ErrorResponse("UNSUPPORTED", "no Host header", status=400)
    path, _, query = _origin_form(target).partition("?")
    try:
        parameters = urllib.parse.parse_qs(query, keep_blank_values=True, max_num_fields=64)
    except ValueError as error:
        raise ErrorResponse("UNSUPPORTED", "too many query parameters", status=400) from error
    keep_alive = minor == "1" and "close" not in headers.get("connection", "").lower()
    expects_continue = headers.get("expect", "").lower() == "100-continue"
    body = Body(connection, _body_length(headers), expects_continue=expects_continue)
    return Request(method, urllib.parse.unquote(path), parameters, headers, body, keep_alive)


def write_response(connection: Connection, response: Response, *, head: bool, close: bool) -> int:
    """Send a response; return the bytes of its body that were sent.

    Raises:
        OSError: the connection broke before the body.
    """
    length = response.length
    has_no_body = head or response.status in (204, 304)
    headers = dict(response.headers)
    if response.status not in (204, 304):
        headers.setdefault("Content-Length", str(length))
    headers["Connection"] = "close" if close else "keep-alive"
    head_bytes = _encode_head(response.status, headers)
    if has_no_body:
        connection.send(head_bytes)
        return 0
    if response.file_range is None:
        connection.send(head_bytes + response.body)
        return length
    connection.send(head_bytes)
    return connection.send_file_range(response.file_range)


def begin_stream(connection: Connection, headers: Mapping[str, str]) -> None:
    """Send the head of a response whose body ends with the connection.

    Raises:
        OSError: the connection broke.
    """
    connection.send(_encode_head(200, {**headers, "Connection": "close"}))


def _encode_head(status: int, headers: Mapping[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} {_reason_phrase(status)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")


def _parse_headers(lines: list[str]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not _TOKEN.fullmatch(name):
            raise ErrorResponse("UNSUPPORTED", "not a valid header line", status=400)
        name, value = name.lower(), value.strip()
        if name in headers and name in _SINGLE:
            raise ErrorResponse("UNSUPPORTED", f"two {name} headers", status=400)
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def _body_length(headers: dict[str, str]) -> int | None:
    """Return the length of the body; None with chunked transfer coding."""
    coding, length = headers.get("transfer-encoding"), headers.get("content-length")
    if coding is not None:
        # Both headers together are a request smuggling attack (RFC 9112, 6.1).
        if length is not None or coding.lower() != "chunked":
            raise ErrorResponse("UNSUPPORTED", "unsupported Transfer-Encoding", status=400)
        return None
    if length is None:
        return 0
    if not length.isascii() or not length.isdigit() or len(length) > 18:
        raise ErrorResponse("SIZE_INVALID", "not a valid Content-Length")
    return int(length)


def _origin_form(target: str) -> str:
    """Return path and query of a target; clients of a proxy send scheme and host, too."""
    if target.startswith("/"):
        return target
    _, separator, rest = target.partition("://")
    return "/" + rest.partition("/")[2] if separator else target


def _reason_phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"
