"""One connection: bytes read ahead, request bodies as streams, files sent by the kernel."""

from __future__ import annotations

import contextlib
import os
import re
import select
import socket
import ssl
import time
from dataclasses import dataclass, field
from typing import BinaryIO

from concil.config import KIB, MIB
from concil.server.refusal import BodyBroken, Refusal

BLOCK = 1 * MIB  # bytes of one read or write of a body
_LINE_LIMIT = 4 * KIB  # bytes of a line of the chunked coding
_TRAILERS = 100  # lines behind the last chunk
_PATIENCE = 60.0  # seconds for a line, where the socket has no timeout
_DRAIN_LIMIT = 64 * MIB  # bytes of an unwanted body that are read rather than cut off
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;.*)?")
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@dataclass(slots=True)
class Stretch:
    """Bytes of an open file that are sent as a body; the sender closes the file."""

    file: BinaryIO
    start: int
    length: int  # bytes


@dataclass(slots=True)
class Activity:
    """Whether a connection waits for its client. Its own thread writes; any may read.

    A header counts as silence until it is complete, whatever comes of it meanwhile.
    """

    silent_since: float | None = field(default_factory=time.monotonic)  # None: it does not wait
    is_in_request: bool = False  # between a complete header and the end of the answer
    has_sent_request: bool = False

    def await_header(self) -> None:
        """Note that the next thing to come is a header; the first one since it was accepted."""
        if self.has_sent_request:
            self.silent_since = time.monotonic()
        self.is_in_request = False

    def begin_request(self) -> None:
        """Note that a header is complete."""
        self.silent_since, self.is_in_request, self.has_sent_request = None, True, True

    def begin_wait(self) -> None:
        """Note that bytes of a body or an answer are to move next."""
        if self.is_in_request:
            self.silent_since = time.monotonic()

    def end_wait(self) -> None:
        """Note that some of them have moved."""
        if self.is_in_request:
            self.silent_since = None


class Connection:
    """A socket with the bytes that were read ahead. One thread at a time."""

    def __init__(self, sock: socket.socket, activity: Activity | None = None) -> None:
        """Take over ``sock``, whose timeout is the longest silence that is borne."""
        self.sock = sock
        self.activity = activity or Activity()
        self._ahead = bytearray()

    def fill(self) -> bool:
        """Read some more ahead; False if the other side has closed."""
        self.activity.begin_wait()
        piece = self.sock.recv(64 * KIB)
        self.activity.end_wait()
        self._ahead += piece
        return bool(piece)

    def peek(self) -> bytes:
        """Return the next byte without taking it; empty if the other side has closed."""
        if not self._ahead:
            self.fill()
        return bytes(self._ahead[:1])

    def read_into(self, view: memoryview) -> int:
        """Fill some of ``view``; 0 if the other side has closed."""
        if not self._ahead:
            self.activity.begin_wait()
            count = self.sock.recv_into(view)
            self.activity.end_wait()
            return count
        count = min(len(view), len(self._ahead))
        view[:count] = self._ahead[:count]
        del self._ahead[:count]
        return count

    def read_until(self, end: bytes, limit: int) -> bytes | None:
        """Return the bytes in front of ``end``; None if the other side closed first.

        Raises:
            Refusal: there are more than ``limit``.
            TimeoutError: they take longer than a silence may, however many come meanwhile.
        """
        searched, until = 0, time.monotonic() + (self.sock.gettimeout() or _PATIENCE)
        while True:
            found = self._ahead.find(end, searched)
            if found >= 0 and found <= limit:
                text = bytes(self._ahead[:found])
                del self._ahead[: found + len(end)]
                return text
            if len(self._ahead) > limit:
                raise Refusal("UNSUPPORTED", f"more than {limit} bytes of header", status=431)
            searched = max(0, len(self._ahead) - len(end))
            if not self.fill():
                return None
            if time.monotonic() > until:
                raise TimeoutError("a line or the headers took too long")

    def send(self, piece: bytes | memoryview) -> None:
        """Send all of it; the timeout counts from the last byte that went out."""
        view = memoryview(piece)
        while view:
            self.activity.begin_wait()
            view = view[self.sock.send(view) :]
            self.activity.end_wait()

    def send_stretch(self, stretch: Stretch) -> int:
        """Send bytes of a file; return how many went out, fewer if the connection broke."""
        if stretch.length == 0:
            return 0  # sendfile refuses to send nothing
        if not isinstance(self.sock, ssl.SSLSocket):
            return self._send_by_kernel(stretch)
        stretch.file.seek(stretch.start)
        buffer, sent = memoryview(bytearray(BLOCK)), 0
        while sent < stretch.length:
            piece = buffer[: min(BLOCK, stretch.length - sent)]
            count = stretch.file.readinto(piece)  # type: ignore[attr-defined]  # BinaryIO lacks it
            if not count:
                break
            try:
                self.send(piece[:count])
            except OSError:
                break
            sent += count
        return sent

    def _send_by_kernel(self, stretch: Stretch) -> int:
        """As `socket.sendfile`, which does not say how far it is."""
        timeout, sent = self.sock.gettimeout(), 0
        writable = select.poll()
        writable.register(self.sock, select.POLLOUT)
        while sent < stretch.length:
            self.activity.begin_wait()
            if not writable.poll(None if timeout is None else timeout * 1000):
                break
            try:
                start, left = stretch.start + sent, stretch.length - sent
                count = os.sendfile(self.sock.fileno(), stretch.file.fileno(), start, left)
            except BlockingIOError:
                continue
            except OSError:
                break
            self.activity.end_wait()
            if not count:
                break
            sent += count
        return sent


class Body:
    """The body of a request, read once, in order, in either transfer coding."""

    def __init__(self, connection: Connection, length: int | None, *, expected: bool) -> None:
        """Begin in front of the first byte.

        Args:
            connection: where the body comes from; it stays open.
            length: bytes, or None for the chunked coding.
            expected: the client waits for "100 Continue" before it sends.
        """
        self.length = length
        self.received = 0  # bytes
        self.waiting = expected
        self._connection = connection
        self._left = length or 0  # bytes of the body, or of the chunk that is being read
        self._done = length == 0
        self.moved = time.monotonic()  # when its last byte came
        self._senseless = False  # nobody knows where the next request would begin
        self._first = True

    @property
    def done(self) -> bool:
        """Whether the end was read."""
        return self._done

    @property
    def drainable(self) -> bool:
        """Whether the rest is worth reading to keep the connection."""
        if self._done or self._senseless:
            return self._done
        return not self.waiting and self.length is not None and self._left <= _DRAIN_LIMIT

    def readinto(self, view: memoryview) -> int:
        """Fill some of ``view``; return the number of bytes, 0 at the end.

        Raises:
            BodyBroken: no more bytes will come although there should be some.
            Refusal: the chunked coding makes no sense.
        """
        if self._done:
            return 0
        try:
            if self.waiting:
                self.waiting = False
                self._connection.send(_CONTINUE)
            if self.length is None and self._left == 0 and not self._next_chunk():
                return 0
            count = self._connection.read_into(view[: self._left])
        except OSError as error:
            raise BodyBroken(str(error) or type(error).__name__) from error
        if count == 0:
            raise BodyBroken("the connection was closed in the middle of the body")
        self.moved = time.monotonic()
        self.received += count
        self._left -= count
        if self._left == 0 and self.length is not None:
            self._done = True
        return count

    def give_up(self) -> None:
        """Let the thread that reads it find it broken. Any thread may call this."""
        with contextlib.suppress(OSError):
            self._connection.sock.shutdown(socket.SHUT_RDWR)

    def read(self, limit: int) -> bytes:
        """Return all of it.

        Raises:
            Refusal: it is longer than ``limit`` bytes.
        """
        if self.length is not None and self.length > limit:
            raise Refusal("SIZE_INVALID", f"more than {limit} bytes", status=413)
        pieces, buffer = bytearray(), memoryview(bytearray(min(64 * KIB, self.length or 64 * KIB)))
        while count := self.readinto(buffer):
            pieces += buffer[:count]
            if len(pieces) > limit:
                raise Refusal("SIZE_INVALID", f"more than {limit} bytes", status=413)
        return bytes(pieces)

    def drain(self) -> bool:
        """Read and forget the rest, up to a limit; False if the connection is of no more use.

        A client that is still sending would lose the answer to a reset otherwise.
        """
        if not self._done and (self.waiting or self._senseless):
            return False
        buffer, before = memoryview(bytearray(64 * KIB)), self.received
        try:
            while self.readinto(buffer):
                if self.received - before > _DRAIN_LIMIT:
                    return False
        except (BodyBroken, Refusal):
            return False
        return True

    def _next_chunk(self) -> bool:
        """Read up to the data of the next chunk; False behind the last one."""
        self._senseless = True  # until the line that comes is read and understood
        end = b"" if self._first else self._line()
        self._first = False
        found = None if end else _SIZE.fullmatch(self._line())
        if found is None:
            raise Refusal("BLOB_UPLOAD_INVALID", "not the chunked transfer coding")
        self._left = int(found[1], 16)
        if self._left == 0:
            for _ in range(_TRAILERS):  # they are allowed and of no interest
                if not self._line():
                    break
            else:
                raise Refusal("BLOB_UPLOAD_INVALID", f"more than {_TRAILERS} trailers")
            self._done = True
        self._senseless = False
        return not self._done

    def _line(self) -> bytes:
        line = self._connection.read_until(b"\r\n", _LINE_LIMIT)
        if line is None:
            raise BodyBroken("the connection was closed in the middle of the body")
        return line
