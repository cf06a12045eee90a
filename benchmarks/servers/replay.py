"""`python -m benchmarks.servers.replay [DIRECTORY]`: a registry of canned answers.

It isolates the clients: it hashes and stores nothing, leaves the bytes of uploads in the kernel
(MSG_TRUNC), sends layers with sendfile, and answers everything else from memory. DIRECTORY has the
content of a source: `blobs/HEX`, and `tags.json`, which names the digest of each "repository:tag".
It prints the address that it listens on. `DELETE /` forgets what was pushed and counts from 0,
`GET /count` says how many requests have come since.
"""

from __future__ import annotations

import os
import select
import socket
import sys
from pathlib import Path
from typing import Any

from benchmarks.servers.replay_content import Content
from benchmarks.servers.replay_parser import Parser

_LINUX: Any = select  # epoll, which the types of other platforms lack
READ_SIZE = 256 * 1024  # bytes
_DISCARDED = bytearray(4 * 1024 * 1024)  # where the kernel would put them, were they not left out
_TLS_HANDSHAKE = b"\x16\x03"


class Connection:
    """One connection of a client."""

    def __init__(self, client: socket.socket, content: Content) -> None:
        client.settimeout(0)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.client = client
        self._content = content
        self._parser = Parser()
        self._unsent = memoryview(b"")
        self._file: tuple[int, int, int] | None = None  # descriptor, start, stop

    @property
    def is_sending(self) -> bool:
        return bool(self._unsent) or self._file is not None

    def receive(self) -> bool:
        """Read what has arrived and answer it; return whether the connection goes on."""
        try:
            skipped = min(self._parser.skippable, len(_DISCARDED))
            if skipped:
                size = self.client.recv_into(_DISCARDED, skipped, socket.MSG_TRUNC)
                self._parser.skip(size)
            else:
                arrived = self.client.recv(READ_SIZE)
                if arrived.startswith(_TLS_HANDSHAKE):  # crane tries TLS first
                    return False
                size = len(arrived)
                self._parser.feed(arrived)
            if self._parser.wants_continue():
                self.client.send(b"HTTP/1.1 100 Continue\r\n\r\n")
            return bool(size) and self.send()
        except BlockingIOError:
            return True
        except OSError:
            return False

    def send(self) -> bool:
        """Send what is due, and answer further requests; return whether the connection goes on."""
        while True:
            try:
                if not self._flush():
                    return True
            except OSError:
                return False
            request = self._parser.next_request()
            if request is None:
                return True
            answer = self._content.answer(request)
            self._unsent = memoryview(answer.head)
            if answer.file is not None:
                self._file = (answer.file, answer.start, answer.stop)

    def _flush(self) -> bool:
        """Send as much as the socket takes; return whether that was all."""
        try:
            while self._unsent:
                self._unsent = self._unsent[self.client.send(self._unsent) :]
            while self._file is not None:
                number, start, stop = self._file
                sent = os.sendfile(self.client.fileno(), number, start, stop - start)
                self._file = (number, start + sent, stop) if start + sent < stop else None
        except BlockingIOError:
            return False
        return True


class Server:
    """Answers all connections of one listener in one thread."""

    def __init__(self, content: Content) -> None:
        self._content = content
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        content.url = f"http://{self.address}"
        self._poll = _LINUX.epoll()
        self._poll.register(self._listener, _LINUX.EPOLLIN)
        self._connections: dict[int, Connection] = {}
        self._sending: set[int] = set()

    @property
    def address(self) -> str:
        """Host and port."""
        return "{}:{}".format(*self._listener.getsockname())

    def run(self) -> None:
        """Answer until the process is killed."""
        while True:
            for number, mask in self._poll.poll():
                if number == self._listener.fileno():
                    client, _ = self._listener.accept()
                    self._connections[client.fileno()] = Connection(client, self._content)
                    self._poll.register(client, _LINUX.EPOLLIN)
                else:
                    self._serve(number, mask)

    def _serve(self, number: int, mask: int) -> None:
        connection = self._connections[number]
        goes_on = connection.send() if mask & _LINUX.EPOLLOUT else connection.receive()
        if not goes_on:
            self._poll.unregister(number)
            self._sending.discard(number)
            del self._connections[number]
            connection.client.close()
        elif connection.is_sending != (number in self._sending):
            # While an answer is being sent, the next request can wait.
            self._poll.modify(number, _LINUX.EPOLLOUT if connection.is_sending else _LINUX.EPOLLIN)
            self._sending ^= {number}


def main(arguments: list[str]) -> None:
    server = Server(Content(Path(arguments[0]) if arguments else None))
    print(f"replaying at {server.address}", flush=True)
    server.run()


if __name__ == "__main__":
    main(sys.argv[1:])
