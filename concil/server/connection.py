"""Server side of one connection: buffered reads, body streams, sendfile."""

from __future__ import annotations

import contextlib
import os
import re
import select
import socket
import ssl
import time
from dataclasses import field
from typing import BinaryIO

from concil.config import KIB, MIB
from concil.runtime.dataclass import dataclass
from concil.server.errors import ErrorResponse, IncompleteBody

BLOCK_SIZE = 1 * MIB  # bytes of one read or write of a body
_MAX_LINE_SIZE = 4 * KIB  # bytes of a line of the chunked transfer coding
_MAX_TRAILERS = 100  # lines after the last chunk
_LINE_TIMEOUT = 60.0  # seconds for a line if the socket has no timeout
_MAX_DRAIN_SIZE = 64 * MIB  # bytes of an unwanted body that are read to keep the connection
_CHUNK_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;.*)?")
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@dataclass(slots=True)
class FileRange:
    """A range of an open file that is sent as a body; the sender closes the file."""

    file: BinaryIO
    start: int
    length: int  # bytes


@dataclass(slots=True)
class Activity:
    """Whether a connection waits for its client. Its own thread writes; any thread may read.

    A connection counts as idle until a header is complete, even while bytes of it arrive.
    """

    silent_since: float | None = field(default_factory=time.monotonic)  # None: not waiting
    is_in_request: bool = False  # between a complete header and the end of the response
    has_sent_request: bool = False

    def await_header(self) -> None:
        """Record that a header is expected next."""
        if self.has_sent_request:
            self.silent_since = time.monotonic()
        self.is_in_request = False

    def begin_request(self) -> None:
        """Record that a header is complete."""
        self.silent_since, self.is_in_request, self.has_sent_request = None, True, True

    def begin_wait(self) -> None:
        """Record that bytes of a body or response are expected to move next."""
        if self.is_in_request:
            self.silent_since = time.monotonic()

    def end_wait(self) -> None:
        """Record that some of them have moved."""
        if self.is_in_request:
            self.silent_since = None


class Connection:
    """A socket with a read buffer. Not thread-safe."""

    def __init__(self, sock: socket.socket, activity: Activity | None = None) -> None:
        """Take ownership of ``sock``; its timeout is the idle timeout."""
        self.sock = sock
        self.activity = activity or Activity()
        self.send_timeout: float | None = None  # seconds for all bytes of one `send`; None: any
        self._buffer = bytearray()

    def fill(self) -> bool:
        """Read more bytes into the buffer; return False if the peer has closed the connection."""
        self.activity.begin_wait()
        piece = self.sock.recv(64 * KIB)
        self.activity.end_wait()
        self._buffer += piece
        return bool(piece)

    def peek(self) -> bytes:
        """Return the next byte without consuming it; empty if the peer has closed."""
        if not self._buffer:
            self.fill()
        return bytes(self._buffer[:1])

    def read_into(self, view: memoryview) -> int:
        """Read into a part of ``view``; return 0 if the peer has closed the connection."""
        if not self._buffer:
            self.activity.begin_wait()
            count = self.sock.recv_into(view)
            self.activity.end_wait()
            return count
        count = min(len(view), len(self._buffer))
        view[:count] = self._buffer[:count]
        del self._buffer[:count]
        return count

    def read_until(self, end: bytes, limit: int) -> bytes | None:
        """Return the bytes before ``end``; None if the peer closed the connection first.

        Raises:
            ErrorResponse: there are more than ``limit`` bytes.
            TimeoutError: they took longer than the timeout, even if some arrived meanwhile.
        """
        searched, deadline = 0, time.monotonic() + (self.sock.gettimeout() or _LINE_TIMEOUT)
        while True:
            end_index = self._buffer.find(end, searched)
            if end_index >= 0 and end_index <= limit:
                text = bytes(self._buffer[:end_index])
                del self._buffer[: end_index + len(end)]
                return text
            if len(self._buffer) > limit:
                raise ErrorResponse(
                    "UNSUPPORTED", f"the headers have more than {limit} bytes", status=431
                )
            searched = max(0, len(self._buffer) - len(end))
            if not self.fill():
                return None
            if time.monotonic() > deadline:
                raise TimeoutError("the request line or the headers took too long")

    def send(self, piece: bytes | memoryview) -> None:
        """Send all bytes; the timeout of the socket counts from the last byte sent.

        Raises:
            OSError: the connection broke.
            TimeoutError: it took longer than `send_timeout`, even if the peer accepted some bytes.
        """
        view = memoryview(piece)
        idle_timeout = self.sock.gettimeout()
        end = None if self.send_timeout is None else time.monotonic() + self.send_timeout
        try:
            while view:
                if end is not None:
                    self.sock.settimeout(_seconds_until(end))
                self.activity.begin_wait()
                view = view[self.sock.send(view) :]
                self.activity.end_wait()
        finally:
            if end is not None:
                self.sock.settimeout(idle_timeout)

    def send_file_range(self, file_range: FileRange) -> int:
        """Send a range of a file; return the bytes sent, fewer if the connection broke."""
        if file_range.length == 0:
            return 0  # sendfile rejects a length of 0
        if not isinstance(self.sock, ssl.SSLSocket):
            return self._send_by_kernel(file_range)
        file_range.file.seek(file_range.start)
        buffer, sent = memoryview(bytearray(BLOCK_SIZE)), 0
        while sent < file_range.length:
            piece = buffer[: min(BLOCK_SIZE, file_range.length - sent)]
            count = file_range.file.readinto(piece)  # type: ignore[attr-defined]  # BinaryIO lacks it
            if not count:
                break
            try:
                self.send(piece[:count])
            except OSError:
                break
            sent += count
        return sent

    def _send_by_kernel(self, stretch: FileRange) -> int:
        """Send with sendfile; unlike `socket.sendfile`, it reports progress after an error."""
        timeout, sent = self.sock.gettimeout(), 0
        writable = select.poll()
        writable.register(self.sock, select.POLLOUT)
        while sent < stretch.length:
            self.activity.begin_wait()
            if not writable.poll(None if timeout is None else timeout * 1000):
                break
            try:
                start, remaining = stretch.start + sent, stretch.length - sent
                count = os.sendfile(self.sock.fileno(), stretch.file.fileno(), start, remaining)
            except BlockingIOError:
                continue
            except OSError:
                break
            self.activity.end_wait()
            if not count:
                break
            sent += count
        return sent


def _seconds_until(end: float) -> float:
    left = end - time.monotonic()
    if left <= 0:
        raise TimeoutError("the peer accepts the bytes too slowly")
    return left


class Body:
    """The body of a request: read once, in order, with either transfer coding."""

    def __init__(
        self, connection: Connection, length: int | None, *, expects_continue: bool
    ) -> None:
        """Start before the first byte.

        Args:
            connection: the connection to read from; it stays open.
            length: bytes, or None with chunked transfer coding.
            expects_continue: the client waits for "100 Continue" before it sends.
        """
        self.length = length
        self.received = 0  # bytes
        self.is_continue_pending = expects_continue
        self._connection = connection
        self._remaining = length or 0  # bytes of the body, or of the current chunk
        self._is_complete = length == 0
        self.last_read_time = time.monotonic()  # monotonic seconds
        self._is_framing_lost = False  # the start of the next request is unknown
        self._is_first_chunk = True

    @property
    def is_complete(self) -> bool:
        """Whether the body was read to its end."""
        return self._is_complete

    @property
    def can_drain(self) -> bool:
        """Whether the rest is worth reading to keep the connection."""
        if self._is_complete or self._is_framing_lost:
            return self._is_complete
        return (
            not self.is_continue_pending
            and self.length is not None
            and self._remaining <= _MAX_DRAIN_SIZE
        )

    def readinto(self, view: memoryview) -> int:
        """Read into a part of ``view``; return the number of bytes, 0 at the end.

        Raises:
            IncompleteBody: the connection ended before the body.
            ErrorResponse: the chunked transfer coding is malformed.
        """
        if self._is_complete:
            return 0
        try:
            if self.is_continue_pending:
                self.is_continue_pending = False
                self._connection.send(_CONTINUE)
            if self.length is None and self._remaining == 0 and not self._read_chunk_header():
                return 0
            count = self._connection.read_into(view[: self._remaining])
        except OSError as error:
            raise IncompleteBody(str(error) or type(error).__name__) from error
        if count == 0:
            raise IncompleteBody("the connection was closed in the middle of the body")
        self.last_read_time = time.monotonic()
        self.received += count
        self._remaining -= count
        if self._remaining == 0 and self.length is not None:
            self._is_complete = True
        return count

    def abort(self) -> None:
        """Make the thread that reads the body fail. Thread-safe."""
        with contextlib.suppress(OSError):
            self._connection.sock.shutdown(socket.SHUT_RDWR)

    def read(self, limit: int) -> bytes:
        """Return the whole body.

        Raises:
            ErrorResponse: it is longer than ``limit`` bytes.
        """
        if self.length is not None and self.length > limit:
            raise ErrorResponse("SIZE_INVALID", f"more than {limit} bytes", status=413)
        content, buffer = bytearray(), memoryview(bytearray(min(64 * KIB, self.length or 64 * KIB)))
        while count := self.readinto(buffer):
            content += buffer[:count]
            if len(content) > limit:
                raise ErrorResponse("SIZE_INVALID", f"more than {limit} bytes", status=413)
        return bytes(content)

    def drain(self) -> bool:
        """Read and discard the rest, up to a limit; return False if the connection is unusable.

        Otherwise a client that is still sending would lose the response to a reset.
        """
        if not self._is_complete and (self.is_continue_pending or self._is_framing_lost):
            return False
        buffer, received_before = memoryview(bytearray(64 * KIB)), self.received
        try:
            while self.readinto(buffer):
                if self.received - received_before > _MAX_DRAIN_SIZE:
                    return False
        except (IncompleteBody, ErrorResponse):
            return False
        return True

    def _read_chunk_header(self) -> bool:
        """Read up to the data of the next chunk; return False after the last one."""
        self._is_framing_lost = True  # until the next line has been parsed
        line_end = b"" if self._is_first_chunk else self._read_line()
        self._is_first_chunk = False
        match = None if line_end else _CHUNK_SIZE_LINE.fullmatch(self._read_line())
        if match is None:
            raise ErrorResponse("BLOB_UPLOAD_INVALID", "not the chunked transfer coding")
        self._remaining = int(match[1], 16)
        if self._remaining == 0:
            for _ in range(_MAX_TRAILERS):  # allowed, but ignored
                if not self._read_line():
                    break
            else:
                raise ErrorResponse("BLOB_UPLOAD_INVALID", f"more than {_MAX_TRAILERS} trailers")
            self._is_complete = True
        self._is_framing_lost = False
        return not self._is_complete

    def _read_line(self) -> bytes:
        line = self._connection.read_until(b"\r\n", _MAX_LINE_SIZE)
        if line is None:
            raise IncompleteBody("the connection was closed in the middle of the body")
        return line
