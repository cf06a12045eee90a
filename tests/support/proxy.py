"""An HTTP proxy on loopback: plain requests, CONNECT, and a password where one is wanted."""

from __future__ import annotations

import base64
import selectors
import socket
import threading
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from tests.support.tcp_peers import TIMEOUT, TCPServer

_BLOCK = 64 * 1024  # bytes
# What is between a client and its proxy goes no further: RFC 9110, 11.7.
_PROXY_HEADERS = ("connection", "proxy-authorization", "proxy-connection")


@dataclass(frozen=True, slots=True)
class ProxiedRequest:
    """One request as the proxy got it."""

    method: str
    target: str
    headers: dict[str, str]  # by lower-case name


class Proxy:
    """A proxy that takes every name to loopback; it ends with its `with` block.

    Args:
        password: ``user:password`` that it wants; "" for none.
        refuses: The status of every CONNECT; 0 lets them pass.
        ports: Where on loopback a ``host:port`` is, if not at its own port.
    """

    def __init__(
        self, *, password: str = "", connect_status: int = 0, ports: Mapping[str, int] | None = None
    ) -> None:
        self._ports = dict(ports or {})
        self._expected_authorization = (
            "Basic " + base64.b64encode(password.encode()).decode() if password else ""
        )
        self._connect_status = connect_status
        self._user = f"{password}@" if password else ""
        self._requests: list[ProxiedRequest] = []
        self._lock = threading.Lock()  # guards the requests
        self._server = TCPServer(self._serve)
        self.port = self._server.port

    @property
    def url(self) -> str:
        """What HTTP_PROXY and HTTPS_PROXY are set to."""
        return f"http://{self._user}127.0.0.1:{self.port}"

    @property
    def requests(self) -> list[ProxiedRequest]:
        """What was asked for, in order."""
        with self._lock:
            return list(self._requests)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.close()

    def _serve(self, client: socket.socket) -> None:
        head, rest = _read_head(client)
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ")
        pairs = [line.split(":", 1) for line in lines if line]
        headers = {name.lower(): value.strip() for name, value in pairs}
        with self._lock:
            self._requests.append(ProxiedRequest(method, target, headers))
        if (
            self._expected_authorization
            and headers.get("proxy-authorization") != self._expected_authorization
        ):
            _send_response(client, "407 Proxy Authentication Required")
        elif method == "CONNECT" and self._connect_status:
            _send_response(client, f"{self._connect_status} \x1b[31mRefused")
        elif method == "CONNECT":
            port = self._ports.get(target, int(target.rpartition(":")[2]))
            with self._server.tracked(_loopback(port)) as server:
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                _relay(client, server)
        else:
            parts = urllib.parse.urlsplit(target)
            kept = [
                f"{name}:{value}" for name, value in pairs if name.lower() not in _PROXY_HEADERS
            ]
            place = urllib.parse.urlunsplit(("", "", parts.path or "/", parts.query, ""))
            # One request a connection, so that each is seen.
            ours = [f"{method} {place} HTTP/1.1", *kept, "Connection: close", "", ""]
            port = parts.port or 80
            port = self._ports.get(f"{parts.hostname}:{port}", port)
            with self._server.tracked(_loopback(port)) as server:
                server.sendall("\r\n".join(ours).encode("latin-1") + rest)
                _relay(client, server)


def _loopback(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), TIMEOUT)


def _read_head(client: socket.socket) -> tuple[bytes, bytes]:
    """The head of a request, and what came of its body."""
    received = b""
    while b"\r\n\r\n" not in received:
        piece = client.recv(_BLOCK)
        if not piece:
            raise ConnectionError("closed")
        received += piece
    head, _, rest = received.partition(b"\r\n\r\n")
    return head, rest


def _send_response(client: socket.socket, status: str) -> None:
    client.sendall(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())


def _relay(one: socket.socket, other: socket.socket) -> None:
    """Pass bytes both ways until either side ends."""
    with selectors.DefaultSelector() as ready:
        ready.register(one, selectors.EVENT_READ, other)
        ready.register(other, selectors.EVENT_READ, one)
        while found := ready.select(TIMEOUT):
            for key, _ in found:
                source: socket.socket = key.fileobj  # type: ignore[assignment]
                piece = source.recv(_BLOCK)
                if not piece:
                    return
                key.data.sendall(piece)
