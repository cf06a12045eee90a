"""`python -m benchmarks.servers.delay HOST:PORT MILLISECONDS`: a relay that delays every byte.

It prints the address that it listens on. It runs in a process of its own and moves large pieces,
so that it takes little of the CPU time that the compared programs need.
"""

from __future__ import annotations

import select
import socket
import sys
import time
from collections import deque
from contextlib import suppress
from typing import Any

_LINUX: Any = select  # epoll, which the types of other platforms lack
PIECE = 512 * 1024  # bytes
QUEUE_LIMIT = 32 * 1024 * 1024  # bytes on their way in one direction of a connection
_IN, _OUT = _LINUX.EPOLLIN, _LINUX.EPOLLOUT


class Direction:
    """Bytes on their way from one socket to another."""

    def __init__(self, source: socket.socket, sink: socket.socket) -> None:
        self.source = source
        self.sink = sink
        self.queue: deque[tuple[float, memoryview]] = deque()  # when it is due, what
        self.queued = 0  # bytes
        self.is_ended = False  # the source has sent its last byte
        self.is_done = False  # and the sink knows
        self.is_blocked = False  # the sink takes no more for now

    @property
    def is_closed(self) -> bool:
        """Whether the connection is closed in both directions."""
        return self.source.fileno() < 0

    def receive(self, now: float, delay: float) -> None:
        """Take what has arrived, one piece."""
        try:
            piece = self.source.recv(PIECE)
        except BlockingIOError:
            return
        except OSError:
            piece = b""
        if piece:
            self.queue.append((now + delay, memoryview(piece)))
            self.queued += len(piece)
        else:
            self.is_ended = True

    def send(self, now: float) -> None:
        """Hand on what is due."""
        while self.queue and self.queue[0][0] <= now and not self.is_blocked:
            due, piece = self.queue[0]
            try:
                sent = self.sink.send(piece)
            except BlockingIOError:
                self.is_blocked = True
                return
            except OSError:
                self.queue.clear()
                self.is_ended = True
                break
            self.queued -= sent
            if sent == len(piece):
                self.queue.popleft()
            else:
                self.queue[0] = (due, piece[sent:])
        if self.is_ended and not self.queue and not self.is_done:
            self.is_done = True
            with suppress(OSError):  # the other side may have reset the connection
                self.sink.shutdown(socket.SHUT_WR)


class Relay:
    """Forwards the connections of a listener to one server, in one thread."""

    def __init__(self, server: tuple[str, int], delay: float) -> None:
        self._server = server
        self._delay = delay  # seconds in each direction
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self._poll = _LINUX.epoll()
        self._poll.register(self._listener, _IN)
        self._masks: dict[int, int] = {}
        # By file descriptor: what arrives there, and what leaves there.
        self._arriving: dict[int, Direction] = {}
        self._leaving: dict[int, Direction] = {}

    @property
    def address(self) -> str:
        """Host and port that it listens on."""
        return "{}:{}".format(*self._listener.getsockname())

    def run(self) -> None:
        """Forward until the process is killed."""
        while True:
            events = self._poll.poll(self._until_due())
            now = time.monotonic()
            for number, mask in events:
                if number == self._listener.fileno():
                    self._connect()
                    continue
                if mask & ~_OUT and number in self._arriving:
                    self._arriving[number].receive(now, self._delay)
                if mask & ~_IN and number in self._leaving:
                    self._leaving[number].is_blocked = False
            for direction in list(self._arriving.values()):
                if not direction.is_closed:
                    direction.send(now)
                    self._settle(direction)

    def _connect(self) -> None:
        client, _ = self._listener.accept()
        server = socket.create_connection(self._server)
        for end in (client, server):
            end.settimeout(0)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._poll.register(end, 0)
            self._masks[end.fileno()] = 0
        for source, sink in ((client, server), (server, client)):
            direction = Direction(source, sink)
            self._arriving[source.fileno()] = self._leaving[sink.fileno()] = direction

    def _settle(self, direction: Direction) -> None:
        """Wait for what the direction needs next; close a connection that is done."""
        source, sink = direction.source.fileno(), direction.sink.fileno()
        back = self._arriving[sink]
        if direction.is_done and back.is_done:
            for number in (source, sink):
                self._poll.unregister(number)
                del self._arriving[number], self._leaving[number], self._masks[number]
            direction.source.close()
            direction.sink.close()
            return
        for number in (source, sink):
            arriving, leaving = self._arriving[number], self._leaving[number]
            can_read = not arriving.is_ended and arriving.queued < QUEUE_LIMIT
            mask = (_IN if can_read else 0) | (_OUT if leaving.is_blocked else 0)
            if mask != self._masks[number]:
                self._masks[number] = mask
                self._poll.modify(number, mask)

    def _until_due(self) -> float | None:
        """Seconds until a piece is due."""
        due = [
            direction.queue[0][0]
            for direction in self._arriving.values()
            if direction.queue and not direction.is_blocked
        ]
        return max(min(due) - time.monotonic(), 0) if due else None


def main(arguments: list[str]) -> None:
    host, _, port = arguments[0].rpartition(":")
    relay = Relay((host, int(port)), float(arguments[1]) / 1000)
    print(f"delaying at {relay.address}", flush=True)
    relay.run()


if __name__ == "__main__":
    main(sys.argv[1:])
