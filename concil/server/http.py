"""HTTP/1.1 on one connection: requests in, replies out, bodies as streams."""

from __future__ import annotations

import re
import socket
import ssl
import urllib.parse
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import BinaryIO

from concil.config import KIB, MIB
from concil.server.refusal import BodyBroken, Refusal

BLOCK = 1 * MIB  # bytes of one read or write of a body
_HEAD_LIMIT = 32 * KIB  # bytes of a request line and its headers
_LINE_LIMIT = 4 * KIB  # bytes of a line of the chunked coding
_DRAIN_LIMIT = 64 * MIB  # bytes of an unwanted body that are read rather than cut off
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_REQUEST_LINE = re.compile(r"([A-Z]{1,16}) (\S{1,16384}) HTTP/1\.([01])")
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;.*)?")
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@dataclass(slots=True)
class Stretch:
    """Bytes of an open file that are sent as a body; the sender closes the file."""

    file: BinaryIO
    start: int
    length: int  # bytes


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
        headers = {"Content-Type": "application/json", **refusal.headers}
        return cls(refusal.status, headers, refusal.body())


class Connection:
    """A socket with the bytes that were read ahead. One thread at a time."""

    def __init__(self, sock: socket.socket) -> None:
        """Take over ``sock``, whose timeout is the longest silence that is borne."""
        self.sock = sock
        self._ahead = bytearray()

    def fill(self) -> bool:
        """Read some more ahead; False if the other side has closed."""
        piece = self.sock.recv(64 * KIB)
        self._ahead += piece
        return bool(piece)

    def read_into(self, view: memoryview) -> int:
        """Fill some of ``view``; 0 if the other side has closed."""
        if not self._ahead:
            return self.sock.recv_into(view)
        count = min(len(view), len(self._ahead))
        view[:count] = self._ahead[:count]
        del self._ahead[:count]
        return count

    def read_until(self, end: bytes, limit: int) -> bytes | None:
        """Return the bytes in front of ``end``; None if the other side closed first."""
        searched = 0
        while True:
            found = self._ahead.find(end, searched)
            if found >= 0 and found <= limit:
                text = bytes(self._ahead[:found])
                del self._ahead[: found + len(end)]
                return text
            if len(self._ahead) > limit:
                raise Refusal("UNSUPPORTED", f"more than {limit} bytes of header", status=431)
            searched = max(0, len(self._ahead) - len(end))
            if not self.fill():
                return None

    def send(self, piece: bytes | memoryview) -> None:
        """Send all of it; the timeout counts from the last byte that went out."""
        view = memoryview(piece)
        while view:
            view = view[self.sock.send(view) :]

    def send_stretch(self, stretch: Stretch) -> int:
        """Send bytes of a file; return how many went out, fewer if the connection broke."""
        if not isinstance(self.sock, ssl.SSLSocket):
            stretch.file.seek(stretch.start)
            try:
                return self.sock.sendfile(stretch.file, stretch.start, stretch.length)
            except OSError:
                return stretch.file.tell() - stretch.start
        stretch.file.seek(stretch.start)
        buffer, sent = memoryview(bytearray(BLOCK)), 0
        while sent < stretch.length:
            piece = buffer[: min(BLOCK, stretch.length - sent)]
            count = stretch.file.readinto(piece)  # type: ignore[attr-defined]  # BinaryIO lacks it
            if not count:
                break
            try:
                self.send(piece[:count])
            except OSError:
                break
            sent += count
        return sent


class Body:
    """The body of a request, read once, in order, in either transfer coding."""

    def __init__(self, connection: Connection, length: int | None, *, expected: bool) -> None:
        """Begin in front of the first byte.

        Args:
            connection: where the body comes from; it stays open.
            length: bytes, or None for the chunked coding.
            expected: the client waits for "100 Continue" before it sends.
        """
        self.length = length
        self.received = 0  # bytes
        self.waiting = expected
        self._connection = connection
        self._left = length or 0  # bytes of the body, or of the chunk that is being read
        self._done = length == 0
        self._first = True

    @property
    def done(self) -> bool:
        """Whether the end was read."""
        return self._done

    @property
    def drainable(self) -> bool:
        """Whether the rest is worth reading to keep the connection."""
        if self._done:
            return True
        return not self.waiting and self.length is not None and self._left <= _DRAIN_LIMIT

    def readinto(self, view: memoryview) -> int:
        """Fill some of ``view``; return the number of bytes, 0 at the end.

        Raises:
            BodyBroken: no more bytes will come although there should be some.
            Refusal: the chunked coding makes no sense.
        """
        if self._done:
            return 0
        try:
            if self.waiting:
                self.waiting = False
                self._connection.send(_CONTINUE)
            if self.length is None and self._left == 0 and not self._next_chunk():
                return 0
            count = self._connection.read_into(view[: self._left])
        except OSError as error:
            raise BodyBroken(str(error) or type(error).__name__) from error
        if count == 0:
            raise BodyBroken("the connection was closed in the middle of the body")
        self.received += count
        self._left -= count
        if self._left == 0 and self.length is not None:
            self._done = True
        return count

    def read(self, limit: int) -> bytes:
        """Return all of it.

        Raises:
            Refusal: it is longer than ``limit`` bytes.
        """
        if self.length is not None and self.length > limit:
            raise Refusal("SIZE_INVALID", f"more than {limit} bytes", status=413)
        pieces, buffer = bytearray(), memoryview(bytearray(min(64 * KIB, self.length or 64 * KIB)))
        while count := self.readinto(buffer):
            pieces += buffer[:count]
            if len(pieces) > limit:
                raise Refusal("SIZE_INVALID", f"more than {limit} bytes", status=413)
        return bytes(pieces)

    def drain(self) -> bool:
        """Read and forget the rest, up to a limit; False if the connection is of no more use.

        A client that is still sending would lose the answer to a reset otherwise.
        """
        if self.waiting and not self._done:
            return False
        buffer, before = memoryview(bytearray(64 * KIB)), self.received
        try:
            while self.readinto(buffer):
                if self.received - before > _DRAIN_LIMIT:
                    return False
        except (BodyBroken, Refusal):
            return False
        return True

    def _next_chunk(self) -> bool:
        """Read up to the data of the next chunk; False behind the last one."""
        if not self._first:
            self._line()
        self._first = False
        found = _SIZE.fullmatch(self._line())
        if found is None:
            raise Refusal("BLOB_UPLOAD_INVALID", "not the chunked transfer coding")
        self._left = int(found[1], 16)
        if self._left == 0:
            while self._line():
                pass  # trailers are allowed and of no interest
            self._done = True
        return not self._done

    def _line(self) -> bytes:
        line = self._connection.read_until(b"\r\n", _LINE_LIMIT)
        if line is None:
            raise BodyBroken("the connection was closed in the middle of the body")
        return line


@dataclass(slots=True)
class Request:
    """A request whose body is still to be read."""

    method: str
    path: str  # percent-decoded, without the query
    query: dict[str, list[str]]
    headers: dict[str, str]  # names in lower case
    body: Body
    keep_alive: bool

    def first(self, name: str) -> str | None:
        """The first value of a query parameter."""
        values = self.query.get(name)
        return values[0] if values else None


def read_request(connection: Connection) -> Request | None:
    """Read up to the body of the next request; None if the client has left.

    Raises:
        Refusal: it is not HTTP/1.1, or its headers are too large or contradict themselves.
        OSError: the connection broke, or was silent for too long.
    """
    head = connection.read_until(b"\r\n\r\n", _HEAD_LIMIT)
    if head is None:
        return None
    first, *lines = head.decode("latin-1").lstrip("\r\n").split("\r\n")
    found = _REQUEST_LINE.fullmatch(first)
    if found is None:
        raise Refusal("UNSUPPORTED", "not an HTTP/1.1 request", status=400)
    method, target, minor = found.groups()
    headers = _headers(lines)
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
        if name in headers and name in ("content-length", "transfer-encoding", "content-range"):
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
