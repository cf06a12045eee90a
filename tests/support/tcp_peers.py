"""Bare TCP servers and clients, for what no HTTP server would do."""

from __future__ import annotations

import queue
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Self, TypeAlias

TIMEOUT = 30  # seconds; a test that waits longer has failed

# What a connection brought, and by which error it ended.
Received: TypeAlias = tuple[bytes, type[OSError] | None]


class TCPServer:
    """A server on loopback that answers each connection by a function in a thread of its own.

    It ends with its `with` block.

    Args:
        serve: Gets the connection, which is closed afterwards. An OSError only ends the connection.
    """

    def __init__(self, serve: Callable[[socket.socket], None]) -> None:
        self._serve = serve
        self._connections = 0
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()  # guards the three above
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._acceptor = threading.Thread(target=self._accept, name=f"tcp-{self.port}")
        self._acceptor.start()

    @property
    def host(self) -> str:
        """Host and port, as in an image reference."""
        return f"127.0.0.1:{self.port}"

    @property
    def connections(self) -> int:
        """How many connections were accepted."""
        with self._lock:
            return self._connections

    @contextmanager
    def tracked(self, connection: socket.socket) -> Iterator[socket.socket]:
        """Close a connection at the end of the block; until then `close` breaks it off."""
        with self._lock:
            self._open.add(connection)
        try:
            yield connection
        finally:
            with self._lock:
                self._open.discard(connection)
            connection.close()

    def close(self) -> None:
        """Break off every connection and end every thread."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._acceptor.join()
        self._listener.close()
        with self._lock:
            connections, threads = list(self._open), list(self._threads)
        for connection in connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.settimeout(TIMEOUT)
            thread = threading.Thread(target=self._answer, args=(connection,))
            with self._lock:
                self._connections += 1
                self._open.add(connection)
                self._threads.append(thread)
            thread.start()

    def _answer(self, connection: socket.socket) -> None:
        with self.tracked(connection), suppress(OSError):
            self._serve(connection)


def serve_pieces(pieces: Callable[[], Iterable[bytes]]) -> TCPServer:
    """Return a server that answers whatever each connection brings first with these pieces."""

    def serve(connection: socket.socket) -> None:
        connection.recv(65536)
        for piece in pieces():
            connection.sendall(piece)

    return TCPServer(serve)


def read_all(connection: socket.socket) -> Received:
    """Read to the end; say by which error it came."""
    parts = []
    try:
        while part := connection.recv(65536):
            parts.append(part)
    except OSError as error:
        return b"".join(parts), type(error)
    return b"".join(parts), None


@contextmanager
def receiving_server() -> Iterator[tuple[str, queue.SimpleQueue[Received]]]:
    """Run a server that keeps what each connection brought."""
    received: queue.SimpleQueue[Received] = queue.SimpleQueue()
    with TCPServer(lambda connection: received.put(read_all(connection))) as server:
        yield server.host, received


@contextmanager
def sending_server(content: bytes) -> Iterator[str]:
    """Run a server that waits for a byte and then sends everything."""

    def pour(connection: socket.socket) -> None:
        if connection.recv(1):
            connection.sendall(content)

    with TCPServer(pour) as server:
        yield server.host


def connect(host: str) -> socket.socket:
    """Connect to `127.0.0.1:port`."""
    name, _, port = host.rpartition(":")
    return socket.create_connection((name, int(port)), timeout=TIMEOUT)


def trigger_and_read(host: str) -> Received:
    """Send a byte and read to the end."""
    with connect(host) as client:
        client.sendall(b"x")
        return read_all(client)


def connect_and_read(host: str) -> None:
    """Connect and wait for what comes, which may be an error in either step."""
    with connect(host) as client:
        client.recv(1)
