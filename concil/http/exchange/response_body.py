"""Body of a response, read straight from its connection."""

from __future__ import annotations

import http.client
import io
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import urllib3
import urllib3.exceptions
from urllib3 import HTTPHeaderDict

from concil.config import KIB, MIB
from concil.http.exchange.pooled_connection import PooledConnection
from concil.http.exchange.response_head import HeadReader, ResponseHead

_PIECE_SIZE = 64 * KIB  # bytes that are read at once where the caller names no size
_MAX_CHUNK_LINE = 4 * KIB  # bytes of a chunk's size and its extensions


class ResponseBody(io.RawIOBase):
    """The body of one response; takes the place of urllib3's response in ``Response.raw``.

    One thread at a time. The connection returns to its pool with the last byte; `close` closes
    it if bytes are unread.
    """

    def __init__(
        self,
        head: ResponseHead,
        reader: HeadReader,
        connection: PooledConnection,
        *,
        has_no_body: bool,
        is_last: bool,
    ) -> None:
        """Read what follows ``head``.

        Args:
            reader: has read the head; holds the bytes that were received with it.
            connection: released once.
            has_no_body: the request was a HEAD.
            is_last: the request asked for the connection to be closed.
        """
        self.status = head.status
        self.reason = head.reason
        self._head = head
        self._reader = reader
        self._connection: PooledConnection | None = connection
        self._pool = connection.pool
        self._decoder: urllib3.HTTPResponse | None = None
        self._is_chunked = head.headers.get("Transfer-Encoding", "").lower() == "chunked"
        self._chunk_rest: int | None = None  # bytes left in the chunk; None before its size
        length = head.content_length()
        if has_no_body or head.status in (204, 304) or head.status < 200:
            self._is_chunked, length = False, 0
        elif self._is_chunked:
            length = None
        self._remaining = length  # bytes; None: up to the end of the stream, or chunked
        has_end = self._is_chunked or length is not None
        self._is_persistent = has_end and not is_last and head.is_persistent()
        if length == 0:
            self._finish()

    @property
    def headers(self) -> HTTPHeaderDict:
        """The headers as urllib3 has them, each with all of its values."""
        return HTTPHeaderDict(self._head.lines)

    @property
    def is_finished(self) -> bool:
        """Whether the last byte was read, or the body was closed."""
        return self._connection is None

    @property
    def _original_response(self) -> SimpleNamespace:
        """What requests reads cookies from."""
        message = http.client.HTTPMessage()
        for name, value in self._head.lines:
            message[name] = value
        return SimpleNamespace(msg=message, isclosed=lambda: self.is_finished)

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any, /) -> int:  # noqa: ANN401 - any buffer
        """Receive once into ``buffer``; 0 at the end of the body or of the stream.

        Raises:
            OSError: the connection failed.
            http.client.HTTPException: the chunks are malformed.
        """
        if self._connection is None or not len(buffer):
            return 0
        try:
            return self._receive_into(memoryview(buffer).cast("B"))
        except BaseException:
            self._close_connection()
            raise

    def read1(self, size: int = -1, decode_content: bool | None = None) -> bytes:  # noqa: FBT001 - urllib3's
        """Receive once, and return up to ``size`` bytes; b"" at the end of the body.

        Raises:
            urllib3.exceptions.HTTPError: the body broke off, or is malformed.
        """
        if self._connection is None and self._decoder is None:
            return b""
        if decode_content and self._is_encoded():
            return self._decoded().read1(size, decode_content=True)
        buffer = memoryview(bytearray(_PIECE_SIZE if size < 0 else min(size, MIB)))
        try:
            count = self.readinto(buffer)
        except TimeoutError as error:
            raise urllib3.exceptions.ReadTimeoutError(self._pool, "", "Read timed out.") from error
        except (OSError, http.client.HTTPException) as error:
            raise urllib3.exceptions.ProtocolError(
                f"Connection broken: {error!r}", error
            ) from error
        if not count and buffer and not self.is_finished:
            self._end_of_stream()
        return bytes(buffer[:count])

    def read(self, size: int | None = -1, decode_content: bool | None = None) -> bytes:  # noqa: FBT001
        """Read ``size`` bytes, or the rest. Raises as `read1`."""
        if self._connection is None and self._decoder is None:
            return b""
        if decode_content and self._is_encoded():
            return self._decoded().read(None if size == -1 else size, decode_content=True)
        pieces, remaining = [], -1 if size is None else size
        while remaining and (piece := self.read1(remaining if remaining > 0 else MIB)):
            pieces.append(piece)
            if remaining > 0:
                remaining -= len(piece)
        return b"".join(pieces)

    def stream(self, amt: int = _PIECE_SIZE, decode_content: bool | None = None) -> Iterator[bytes]:  # noqa: FBT001
        """Yield the body in pieces of up to ``amt`` bytes. Raises as `read1`."""
        while piece := self.read1(amt, decode_content):
            yield piece

    def close(self) -> None:
        """Release the connection; one with unread bytes is closed."""
        self._close_connection()
        super().close()

    def release_conn(self) -> None:
        """Do as `close`; requests calls it."""
        self._close_connection()

    def _receive_into(self, buffer: memoryview) -> int:
        if self._is_chunked:
            return self._receive_chunk(buffer)
        if self._remaining is not None:
            buffer = buffer[: self._remaining]
        count = self._take(buffer)
        if self._remaining is None:
            if not count:
                self._finish()
            return count
        self._remaining -= count
        if not self._remaining:
            self._finish()
        return count

    def _receive_chunk(self, buffer: memoryview) -> int:
        """Receive a part of the current chunk. Source: RFC 9112, 7.1."""
        if self._chunk_rest is None:
            size, _, _ = self._reader.read_line(_MAX_CHUNK_LINE).partition(b";")
            self._chunk_rest = _parse_chunk_size(size)
            if not self._chunk_rest:
                self._reader.read_trailer()
                self._finish()
                return 0
        count = self._take(buffer[: self._chunk_rest])
        self._chunk_rest -= count
        if not count:
            raise http.client.IncompleteRead(b"")
        if not self._chunk_rest:
            if self._reader.read_line(2):
                raise http.client.HTTPException("a chunk is longer than its size")
            self._chunk_rest = None
        return count

    def _take(self, buffer: memoryview) -> int:
        """Take bytes that came with the head, else receive."""
        rest = self._reader.rest
        if rest:
            count = min(len(rest), len(buffer))
            buffer[:count] = rest if count == len(rest) else rest[:count]
            self._reader.rest = rest[count:]
            return count
        assert self._connection is not None  # noqa: S101 - checked by `readinto`
        received: int = self._connection.recv_into(buffer)
        return received

    def _end_of_stream(self) -> None:
        """Raise IncompleteRead: the stream ended before the body."""
        self._close_connection()
        error = http.client.IncompleteRead(b"", self._remaining)
        raise urllib3.exceptions.ProtocolError(f"Connection broken: {error!r}", error)

    def _finish(self) -> None:
        """Return the connection to its pool, unless it is to be closed."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.release(is_reusable=self._is_persistent and not self._reader.rest)

    def _close_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.discard()

    def _is_encoded(self) -> bool:
        encoding: str = self._head.headers.get("Content-Encoding", "identity")
        return encoding.lower() != "identity"

    def _decoded(self) -> urllib3.HTTPResponse:
        """Return a response of urllib3 that decodes the body."""
        if self._decoder is None:
            headers = self.headers
            headers.discard("Transfer-Encoding")
            self._decoder = urllib3.HTTPResponse(
                body=_UndecodedBody(self), headers=headers, preload_content=False
            )
        return self._decoder


class _UndecodedBody(io.RawIOBase):
    """A body as urllib3 reads the one of http.client."""

    def __init__(self, body: ResponseBody) -> None:
        self._body = body

    def read(self, size: int | None = -1) -> bytes:
        return self._body.read(size)

    def read1(self, size: int = -1) -> bytes:
        return self._body.read1(size)


def _parse_chunk_size(text: bytes) -> int:
    """Return the size of a chunk in bytes.

    Raises:
        http.client.HTTPException: it is not a hexadecimal number of at most 16 digits.
    """
    digits = text.strip()
    if len(digits) > 16 or not digits or digits.strip(b"0123456789abcdefABCDEF"):
        raise http.client.HTTPException("the size of a chunk is not a number")
    return int(digits, 16)
