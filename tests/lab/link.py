"""One connection through a relay: two sockets, and what is on its way between them."""

from __future__ import annotations

import fcntl
import selectors
import socket
import struct
import termios
import time
from collections import deque
from typing import Protocol

from tests.lab.faults import Action, Direction

READ_SIZE = 256 * 1024  # bytes a turn
QUEUE_LIMIT = 4 * 1024 * 1024  # bytes held back by latency before reading stops
TICK = 0.001  # seconds, while a cut waits for the last bytes to arrive
FLUSH_TIMEOUT = 10  # seconds that a cut waits for a receiver that does not read


class Carrier(Protocol):
    """What a link asks of its relay."""

    selector: selectors.BaseSelector
    latency: float  # seconds
    rate: int | None  # bytes a second

    def admit(
        self, number: int, direction: Direction, passed: int, arrived: bytes
    ) -> tuple[int, Action | None]:
        """Return how many bytes may pass, and what happens after them."""

    def sent(self, direction: Direction, size: int) -> None:
        """Take note that bytes were handed on."""


class _Pipe:
    """One direction of a link."""

    def __init__(
        self, direction: Direction, source: socket.socket, sink: socket.socket, rate: int | None
    ) -> None:
        self.direction = direction
        self.source = source
        self.sink = sink
        self.queue: deque[tuple[float, memoryview]] = deque()  # when it is due, what
        self.queued = 0  # bytes
        self.passed = 0  # bytes admitted
        self.held = b""  # arrived behind a stall
        self.ended = False  # the source sent its last byte
        self.shut = False  # the sink was told so
        self.stalled = False
        # A slow line carries small pieces often, not a large one now and then.
        self.read_size = min(READ_SIZE, max(rate // 50, 1024)) if rate else READ_SIZE
        self.limit = 2 * self.read_size if rate else QUEUE_LIMIT
        self._free = 0.0  # when a line with a rate has carried what it has

    def put(self, piece: bytes, latency: float, rate: int | None) -> None:
        due = time.monotonic() + latency
        if rate:
            self._free = max(due, self._free) + len(piece) / rate
            due = self._free
        self.queue.append((due, memoryview(piece)))
        self.queued += len(piece)
        self.passed += len(piece)

    def unsent(self) -> int:
        """Return the bytes that the other end's kernel has not acknowledged."""
        answer = fcntl.ioctl(self.sink, termios.TIOCOUTQ, b"\0\0\0\0")
        return int(struct.unpack("i", answer)[0])


class Link:
    """Belongs to the relay's thread."""

    def __init__(
        self, number: int, client: socket.socket, server: socket.socket, carrier: Carrier
    ) -> None:
        self.number = number
        self.closed = False
        self.due: float | None = None  # when it wants to move without an event
        self._carrier = carrier
        self._sockets = (client, server)
        self._up = _Pipe("up", client, server, carrier.rate)
        self._down = _Pipe("down", server, client, carrier.rate)
        self._pipes = (self._up, self._down)
        self._watched: dict[socket.socket, int] = {}
        self._cut: tuple[Action, _Pipe, float] | None = None  # what, behind which, until when
        for each in self._sockets:
            each.setblocking(False)
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # What lies in a buffer of the kernel is counted and may never arrive: keep it small.
            each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * 1024)

    def ready(self, ready: object, mask: int) -> None:
        """Read from a socket that the selector named; `advance` writes."""
        if self.closed or not mask & selectors.EVENT_READ:
            return
        pipe = self._up if ready is self._up.source else self._down
        if not self._reads(pipe):
            return
        try:
            arrived = pipe.source.recv(pipe.read_size)
        except BlockingIOError:
            return
        except OSError:
            self.break_off("rst")
            return
        if arrived:
            self._take(pipe, arrived)
        else:
            pipe.ended = True

    def advance(self, now: float) -> None:
        """Write what is due, pass on ends, carry out a cut, and say what to wait for."""
        for pipe in self._pipes:
            if not self.closed:
                self._write(pipe, now)
        if not self.closed and self._cut:
            self._carry_out(now)
        if not self.closed and all(pipe.shut for pipe in self._pipes):
            self.break_off("fin")
        if not self.closed:
            self._watch(now)

    def break_off(self, action: Action) -> None:
        """Break the connection at once, or stall both directions."""
        if self.closed:
            return
        if action == "stall":
            for pipe in self._pipes:
                pipe.stalled = True
            return
        self.closed = True
        self.due = None
        for each in self._sockets:
            if each in self._watched:
                self._carrier.selector.unregister(each)
            if action == "rst":
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            each.close()

    def resume(self) -> None:
        """Go on after a stall."""
        for pipe in self._pipes:
            pipe.stalled = False
            held, pipe.held = pipe.held, b""
            if held:
                self._take(pipe, held)

    def _take(self, pipe: _Pipe, arrived: bytes) -> None:
        allowed, action = self._carrier.admit(self.number, pipe.direction, pipe.passed, arrived)
        if allowed:
            pipe.put(arrived[:allowed], self._carrier.latency, self._carrier.rate)
        if action == "stall":
            pipe.stalled = True
            pipe.held = arrived[allowed:]
        elif action:
            self._cut = (action, pipe, time.monotonic() + FLUSH_TIMEOUT)

    def _write(self, pipe: _Pipe, now: float) -> None:
        while pipe.queue and pipe.queue[0][0] <= now:
            due, piece = pipe.queue.popleft()
            try:
                size = pipe.sink.send(piece)
            except BlockingIOError:
                size = 0
            except OSError:
                self.break_off("rst")
                return
            pipe.queued -= size
            self._carrier.sent(pipe.direction, size)
            if size < len(piece):
                pipe.queue.appendleft((due, piece[size:]))
                break
        if pipe.ended and not pipe.queue and not pipe.shut:
            pipe.shut = True
            try:
                pipe.sink.shutdown(socket.SHUT_WR)
            except OSError:
                self.break_off("rst")

    def _carry_out(self, now: float) -> None:
        assert self._cut is not None
        action, pipe, deadline = self._cut
        # A reset throws away what the kernel has not delivered: then the cut would not
        # be at the byte that was asked for.
        if (pipe.queue or pipe.unsent()) and now < deadline:
            return
        self.break_off(action)

    def _reads(self, pipe: _Pipe) -> bool:
        return not (pipe.ended or pipe.stalled or self._cut) and pipe.queued < pipe.limit

    def _watch(self, now: float) -> None:
        blocked = {pipe.sink for pipe in self._pipes if pipe.queue and pipe.queue[0][0] <= now}
        for pipe in self._pipes:
            mask = selectors.EVENT_READ if self._reads(pipe) else 0
            if pipe.source in blocked:
                mask |= selectors.EVENT_WRITE
            self._register(pipe.source, mask)
        waits = [pipe.queue[0][0] for pipe in self._pipes if pipe.queue]
        waits = [due for due in waits if due > now]
        if self._cut:
            waits.append(now + TICK)
        self.due = min(waits, default=None)

    def _register(self, each: socket.socket, mask: int) -> None:
        before = self._watched.get(each, 0)
        if mask == before:
            return
        if not mask:
            self._carrier.selector.unregister(each)
            del self._watched[each]
            return
        if before:
            self._carrier.selector.modify(each, mask, self.number)
        else:
            self._carrier.selector.register(each, mask, self.number)
        self._watched[each] = mask
