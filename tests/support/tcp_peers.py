"""Bare TCP servers and clients, for what no HTTP server would do."""

from __future__ import annotations

import queue
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

# What a connection brought, and by which error it ended.
Received: TypeAlias = tuple[bytes, type[OSError] | None]


class TCPServer:
    """A server that answers each connection by a function in a thread of its own.

    Args:
        serve: Gets the connection; it is closed afterwards.
    """

    def __init__(self, serve: Callable[[socket.socket], None]) -> None:
        self._serve = serve
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []
        self._acceptor = threading.Thread(target=self._accept)
        self._acceptor.start()
        self.host = f"127.0.0.1:{self._listener.getsockname()[1]}"

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._answer, args=(connection,))
            thread.start()
            self._threads.append(thread)

    def _answer(self, connection: socket.socket) -> None:
        with connection:
            self._serve(connection)

    def close(self) -> None:
        """Take no more connections and wait for those that are open."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._acceptor.join()
        self._listener.close()
        for thread in self._threads:
            thread.join()


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
    peer = TCPServer(lambda connection: received.put(read_all(connection)))
    try:
        yield peer.host, received
    finally:
        peer.close()


@contextmanager
def sending_server(content: bytes) -> Iterator[str]:
    """Run a server that waits for a byte and then sends everything."""

    def pour(connection: socket.socket) -> None:
        try:
            if connection.recv(1):
                connection.sendall(content)
        except OSError:
            return

    peer = TCPServer(pour)
    try:
        yield peer.host
    finally:
        peer.close()


def connect(host: str) -> socket.socket:
    """Connect to `127.0.0.1:port`."""
    name, _, port = host.rpartition(":")
    return socket.create_connection((name, int(port)), timeout=30)


def trigger_and_read(host: str) -> Received:
    """Send a byte and read to the end."""
    with connect(host) as client:
        client.sendall(b"x")
        return read_all(client)


def connect_and_read(host: str) -> None:
    """Connect and wait for what comes, which may be an error in either step."""
    with connect(host) as client:
        client.recv(1)
