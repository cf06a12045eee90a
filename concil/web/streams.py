"""Server-sent events: streams to readers that may be slow, or many."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from collections.abc import Iterator, Mapping

from concil.server.connection import Connection
from concil.server.connection_table import shut_down
from concil.server.http import begin_stream

MAX_STREAMS = 64  # at a time
SEND_TIMEOUT = 30.0  # seconds for one message
RETRY_DELAY = 2000  # milliseconds until a browser connects again
_PING_INTERVAL = 15.0  # seconds without a message
_SEND_BUFFER = 128 << 10  # bytes in the kernel: a reader that does not read is soon noticed
_MAX_UNWANTED = 64 << 10  # bytes that a reader may send
_PING = b": \n\n"
_HEADERS = {"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"}


class Stream:
    """A stream to one reader. One thread at a time."""

    def __init__(self, connection: Connection) -> None:
        """Begin without a message."""
        self._connection = connection
        connection.send_timeout = SEND_TIMEOUT
        self._sock = connection.sock
        self._last_sent = time.monotonic()
        self._unwanted = 0  # bytes
        with contextlib.suppress(OSError):
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)

    def begin(self, headers: Mapping[str, str]) -> None:
        """Send the head of the response.

        Raises:
            OSError: the connection broke.
        """
        begin_stream(self._connection, {**headers, **_HEADERS})
        self.send(b"retry: %d\n\n" % RETRY_DELAY)

    def send(self, message: bytes) -> None:
        """Send a message.

        Raises:
            OSError: the connection broke, or the reader was too slow.
        """
        self._connection.send(message)
        self._last_sent = time.monotonic()

    def wait(self, seconds: float) -> bool:
        """Wait, but return False as soon as the reader has closed the connection.

        Raises:
            OSError: the connection broke.
        """
        deadline = time.monotonic() + seconds
        readable = select.poll()
        readable.register(self._sock, select.POLLIN)
        while (left := deadline - time.monotonic()) > 0:
            if readable.poll(left * 1000) and not self._discard():
                return False
        if time.monotonic() - self._last_sent > _PING_INTERVAL:
            self.send(_PING)  # finds connections that nobody has closed
        return True

    def _discard(self) -> bool:
        """Discard what the reader has sent; return False if that is the end."""
        count = len(self._sock.recv(4096))
        self._unwanted += count
        return count > 0 and self._unwanted <= _MAX_UNWANTED


class StreamTable:
    """The open streams. Thread-safe.

    Browsers connect again by themselves. Therefore the stream that has been open longest ends if
    there are too many: so that readers that do not read cannot keep others away.
    """

    def __init__(self, max_streams: int = MAX_STREAMS) -> None:
        """Create it without streams."""
        self._max_streams = max_streams
        self._lock = threading.Lock()  # guards the field below
        self._open: dict[Connection, None] = {}  # in the order of their beginnings

    def __len__(self) -> int:
        """Return the number of open streams."""
        return len(self._open)

    @contextlib.contextmanager
    def open(self, connection: Connection) -> Iterator[Stream]:
        """Open a stream on a connection; it ends with the `with` block."""
        with self._lock:
            if len(self._open) >= self._max_streams:
                oldest = next(iter(self._open))
                del self._open[oldest]
                shut_down(oldest.sock)
            self._open[connection] = None
        try:
            yield Stream(connection)
        finally:
            with self._lock:
                self._open.pop(connection, None)


def encode_message(identifier: str, data: bytes, event: str = "") -> bytes:
    """Return a message with JSON in one line as data."""
    name = f"event: {event}\n" if event else ""
    return f"id: {identifier}\n{name}data: ".encode() + data + b"\n\n"
