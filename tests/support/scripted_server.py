"""A server that answers as a test tells it to, true or not."""

from __future__ import annotations

import re
import socket
import ssl
import struct
import threading
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, BinaryIO, Literal, Self, TypeAlias

import requests
import requests.adapters

from tests.support.tcp_peers import TIMEOUT, TCPServer


class ReceivedRequest:
    """One request; its body is read when somebody asks for it."""

    def __init__(self, method: str, path: str, headers: dict[str, str], file: BinaryIO) -> None:
        self.method = method
        self.path = path  # with the query, as sent
        self.headers = headers  # by lower-case name; of several the last
        self.body = b""  # as far as it was read
        self._file = file
        self._left = int(headers.get("content-length", "0"))

    def read(self, size: int | None = None) -> bytes:
        """Read some of the body, by default all that is left of it."""
        want = self._left if size is None else min(size, self._left)
        piece = self._file.read(want)
        self._left -= want
        self.body += piece
        return piece

    @property
    def query(self) -> dict[str, list[str]]:
        """The parameters of the query."""
        return urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)

    def __repr__(self) -> str:
        return f"{self.method} {self.path}"


@dataclass(frozen=True, slots=True)
class ScriptedResponse:
    """What goes back.

    Args:
        status: 0 closes the connection without an answer.
        headers: Pairs, so that a name can come twice.
        length: What Content-Length says instead of the truth; -1: nothing.
        cut: What ends the connection behind the body.
        hold: Nothing is sent until it is set.
    """

    status: int = 200
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    length: int | None = None
    cut: Literal["", "fin", "rst"] = ""
    hold: threading.Event | None = None

    def wire(self, *, head: bool) -> bytes:
        """The bytes of the answer."""
        lines = [f"HTTP/1.1 {self.status} Scripted"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        length = len(self.body) if self.length is None else self.length
        if length >= 0 and self.status != 204:
            lines.append(f"Content-Length: {length}")
        text = "\r\n".join([*lines, "", ""]).encode("latin-1")
        return text if head else text + self.body


def reply(status: int = 200, body: bytes | str = b"", **headers: str) -> ScriptedResponse:
    """Return an answer; ``Docker_Content_Digest`` names the header with dashes."""
    content = body.encode() if isinstance(body, str) else body
    pairs = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    return ScriptedResponse(status, content, pairs)


Action: TypeAlias = ScriptedResponse | Callable[[ReceivedRequest], ScriptedResponse]
NO_RESPONSE = ScriptedResponse(status=0)


@dataclass(slots=True)
class _Route:
    method: str
    path: re.Pattern[str]
    actions: list[Action]

    def next(self) -> Action:
        return self.actions.pop(0) if len(self.actions) > 1 else self.actions[0]


class ScriptedServer:
    """A server on loopback; 404 for whatever nobody told it about. Ends with its `with` block."""

    def __init__(self, *, context: ssl.SSLContext | None = None, plain: bytes = b"") -> None:
        """Serve http, or https with a context.

        Args:
            plain: what every connection gets in place of HTTP.
        """
        self._context = context
        self._plain = plain
        self._routes: list[_Route] = []
        self._seen: list[ReceivedRequest] = []
        self._failure: BaseException | None = None
        self._lock = threading.Lock()  # guards all above
        self._server = TCPServer(self._serve)
        self.port = self._server.port

    @property
    def host(self) -> str:
        """Host and port, as in an image reference."""
        return self._server.host

    @property
    def connections(self) -> int:
        """How many connections were accepted."""
        return self._server.connections

    @property
    def url(self) -> str:
        """The address without a path."""
        return f"{'https' if self._context else 'http'}://{self.host}"

    @property
    def requests(self) -> list[ReceivedRequest]:
        """What was asked, in order."""
        with self._lock:
            return list(self._seen)

    def matching_requests(self, method: str | None = None, part: str = "") -> list[ReceivedRequest]:
        """The requests of a method with a part in their path."""
        return [s for s in self.requests if method in (None, s.method) and part in s.path]

    def respond(self, method: str, path: str, *actions: Action) -> None:
        """Answer requests whose path with its query matches a pattern as a whole.

        Several answers are given one after the other, the last for ever. What was
        told last goes first.
        """
        with self._lock:
            self._routes.insert(0, _Route(method, re.compile(path), list(actions)))

    def close(self) -> None:
        """Break off every connection and end every thread."""
        self._server.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
        if self._failure is not None and error is None:
            raise self._failure

    def _serve(self, connection: socket.socket) -> None:
        try:
            self._talk(connection)
        except OSError:
            pass  # the client has gone, or the test is over
        except BaseException as error:  # noqa: BLE001 - what a test's own code raised
            self._failure = error

    def _talk(self, connection: socket.socket) -> None:
        if self._plain:
            connection.sendall(self._plain)
            connection.recv(4096)
            return
        if self._context:
            connection = self._context.wrap_socket(connection, server_side=True)
        with self._server.tracked(connection), connection.makefile("rb") as file:
            while self._exchange(connection, file):
                pass

    def _exchange(self, connection: socket.socket, file: BinaryIO) -> bool:
        seen = _read(file)
        if seen is None:
            return False
        with self._lock:
            self._seen.append(seen)
            action = self._find(seen)
        answer = action(seen) if callable(action) else action
        if answer.hold is not None:
            answer.hold.wait(TIMEOUT)
        if not answer.cut and answer.status:
            seen.read()
        if answer.status:
            connection.sendall(answer.wire(head=seen.method == "HEAD"))
        if answer.cut == "rst":
            linger = struct.pack("ii", 1, 0)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        return bool(answer.status) and not answer.cut and answer.length != -1

    def _find(self, seen: ReceivedRequest) -> Action:
        for route in self._routes:
            if route.method in ("*", seen.method) and route.path.fullmatch(seen.path):
                return route.next()
        return ScriptedResponse(404)


def _read(file: BinaryIO) -> ReceivedRequest | None:
    first = file.readline().decode("latin-1").split()
    if len(first) != 3 or not first[2].startswith("HTTP/1."):
        return None  # the end, or somebody who speaks TLS
    headers: dict[str, str] = {}
    while line := file.readline().decode("latin-1").strip():
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    return ReceivedRequest(first[0], first[1], headers, file)


class Elsewhere(requests.adapters.HTTPAdapter):
    """Brings what is meant for a host of the internet to a scripted server."""

    def __init__(self, server: ScriptedServer) -> None:
        super().__init__()
        self._server = server

    def send(
        self,
        request: requests.PreparedRequest,
        *args: Any,  # noqa: ANN401 - passed on as they come
        **kwargs: Any,  # noqa: ANN401
    ) -> requests.Response:
        asked = urllib.parse.urlsplit(request.url or "")
        moved = request.copy()
        moved.url = f"http://{self._server.host}{request.path_url}"
        moved.headers["Host"] = asked.netloc
        response = super().send(moved, *args, **kwargs)
        response.url = request.url or ""
        return response
