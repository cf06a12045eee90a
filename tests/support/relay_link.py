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

from tests.support.faults import Action, Direction

READ_SIZE = 256 * 1024  # bytes a turn
QUEUE_LIMIT = 4 * 1024 * 1024  # bytes held back by latency before reading stops
TICK = 0.001  # seconds, while a cut waits for the last bytes to arrive
FLUSH_TIMEOUT = 10  # seconds that a cut waits for a receiver that does not read


class RelayHooks(Protocol):
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
        self.stalled_bytes = b""  # arrived behind a stall
        self.is_ended = False  # the source sent its last byte
        self.is_shut_down = False  # the sink was told so
        self.is_stalled = False
        # A slow line carries small pieces often, not a large one now and then.
        self.read_size = min(READ_SIZE, max(rate // 50, 1024)) if rate else READ_SIZE
        self.limit = 2 * self.read_size if rate else QUEUE_LIMIT
        self._next_free_time = 0.0  # when a line with a rate has carried what it has

    def put(self, piece: bytes, latency: float, rate: int | None) -> None:
        due = time.monotonic() + latency
        if rate:
            self._next_free_time = max(due, self._next_free_time) + len(piece) / rate
            due = self._next_free_time
        self.queue.append((due, memoryview(piece)))
        self.queued += len(piece)
        self.passed += len(piece)

    def unsent(self) -> int:
        """Return the bytes that the other end's kernel has not acknowledged."""
        answer = fcntl.ioctl(self.sink, termios.TIOCOUTQ, b"\0\0\0\0")
        return int(struct.unpack("i", answer)[0])


class RelayLink:
    """Belongs to the relay's thread."""

    def __init__(
        self, number: int, client: socket.socket, server: socket.socket, hooks: RelayHooks
    ) -> None:
        self.number = number
        self.closed = False
        self.due: float | None = None  # when it wants to move without an event
        self._hooks = hooks
        self._sockets = (client, server)
        self._up = _Pipe("up", client, server, hooks.rate)
        self._down = _Pipe("down", server, client, hooks.rate)
        self._pipes = (self._up, self._down)
        self._registered: dict[socket.socket, int] = {}
        self._pending_cut: tuple[Action, _Pipe, float] | None = (
            None  # what, behind which, until when
        )
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
        if not self._can_read(pipe):
            return
        try:
            arrived = pipe.source.recv(pipe.read_size)
        except BlockingIOError:
            return
        except OSError:
            self.break_off("rst")
            return
        if arrived:
            self._admit(pipe, arrived)
        else:
            pipe.is_ended = True

    def advance(self, now: float) -> None:
        """Write what is due, pass on ends, carry out a cut, and say what to wait for."""
        for pipe in self._pipes:
            if not self.closed:
                self._write(pipe, now)
        if not self.closed and self._pending_cut:
            self._perform_cut(now)
        if not self.closed and all(pipe.is_shut_down for pipe in self._pipes):
            self.break_off("fin")
        if not self.closed:
            self._update_events(now)

    def break_off(self, action: Action) -> None:
        """Break the connection at once, or stall both directions."""
        if self.closed:
            return
        if action == "stall":
            for pipe in self._pipes:
                pipe.is_stalled = True
            return
        self.closed = True
        self.due = None
        for each in self._sockets:
            if each in self._registered:
                self._hooks.selector.unregister(each)
            if action == "rst":
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            each.close()

    def resume(self) -> None:
        """Go on after a stall."""
        for pipe in self._pipes:
            pipe.is_stalled = False
            held, pipe.stalled_bytes = pipe.stalled_bytes, b""
            if held:
                self._admit(pipe, held)

    def _admit(self, pipe: _Pipe, arrived: bytes) -> None:
        allowed, action = self._hooks.admit(self.number, pipe.direction, pipe.passed, arrived)
        if allowed:
            pipe.put(arrived[:allowed], self._hooks.latency, self._hooks.rate)
        if action == "stall":
            pipe.is_stalled = True
            pipe.stalled_bytes = arrived[allowed:]
        elif action:
            self._pending_cut = (action, pipe, time.monotonic() + FLUSH_TIMEOUT)

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
            self._hooks.sent(pipe.direction, size)
            if size < len(piece):
                pipe.queue.appendleft((due, piece[size:]))
                break
        if pipe.is_ended and not pipe.queue and not pipe.is_shut_down:
            pipe.is_shut_down = True
            try:
                pipe.sink.shutdown(socket.SHUT_WR)
            except OSError:
                self.break_off("rst")

    def _perform_cut(self, now: float) -> None:
        assert self._pending_cut is not None
        action, pipe, deadline = self._pending_cut
        # A reset throws away what the kernel has not delivered: then the cut would not
        # be at the byte that was asked for.
        if (pipe.queue or pipe.unsent()) and now < deadline:
            return
        self.break_off(action)

    def _can_read(self, pipe: _Pipe) -> bool:
        return (
            not (pipe.is_ended or pipe.is_stalled or self._pending_cut) and pipe.queued < pipe.limit
        )

    def _update_events(self, now: float) -> None:
        blocked = {pipe.sink for pipe in self._pipes if pipe.queue and pipe.queue[0][0] <= now}
        for pipe in self._pipes:
            mask = selectors.EVENT_READ if self._can_read(pipe) else 0
            if pipe.source in blocked:
                mask |= selectors.EVENT_WRITE
            self._register(pipe.source, mask)
        waits = [pipe.queue[0][0] for pipe in self._pipes if pipe.queue]
        waits = [due for due in waits if due > now]
        if self._pending_cut:
            waits.append(now + TICK)
        self.due = min(waits, default=None)

    def _register(self, each: socket.socket, mask: int) -> None:
        before = self._registered.get(each, 0)
        if mask == before:
            return
        if not mask:
            self._hooks.selector.unregister(each)
            del self._registered[each]
            return
        if before:
            self._hooks.selector.modify(each, mask, self.number)
        else:
            self._hooks.selector.register(each, mask, self.number)
        self._registered[each] = mask
