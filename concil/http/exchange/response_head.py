"""Parses the status line and headers of a response in one pass, within bounds."""

from __future__ import annotations

import http.client
import re
import time
from collections.abc import Callable

from concil.config import KIB
from concil.http import errors
from concil.http.headers import Headers
from concil.http.unsafe_fast_path import HEADER_TIMEOUT, MAX_INTERIM_RESPONSES, MAX_LINE_SIZE
from concil.runtime.dataclass import dataclass

MAX_LINES = 100
_RECEIVE_SIZE = 64 * KIB
# RFC 9112, 2.2: a bare LF may end a line as well.
_END_OF_HEAD = re.compile(rb"\n\r?\n")
_STATUS_LINE = re.compile(r"HTTP/(0\.9|1\.[0-9]+)[ \t]+([1-9][0-9]{2})(?:[ \t]+(.*))?")


@dataclass(slots=True)
class ResponseHead:
    """Status line and headers of a response."""

    is_http_1_0: bool
    status: int
    reason: str
    lines: list[tuple[str, str]]  # names and values as received, in their order
    headers: Headers  # repeated ones are joined by ", "

    def is_persistent(self) -> bool:
        """Return whether the connection stays open. Source: RFC 9112, 9.3."""
        connection = self.headers.get("Connection", "").lower()
        if not self.is_http_1_0:
            return "close" not in connection
        return "keep-alive" in connection or "Keep-Alive" in self.headers

    def content_length(self) -> int | None:
        """Return the Content-Length in bytes; None if it is missing or not a number.

        Raises:
            http.client.HTTPException: there are several different lengths.
        """
        value = self.headers.get("Content-Length")
        if value is None:
            return None
        lengths = {length.strip() for length in value.split(",")}
        if len(lengths) > 1:
            raise http.client.HTTPException(errors.CONFLICTING_LENGTHS)
        length = lengths.pop()
        # isdecimal is also true for other digits than ASCII's, which int() accepts.
        return int(length) if length.isdecimal() and len(length) < 20 else None


class HeadReader:
    """Receives response heads; bytes after a head are left in ``rest``."""

    def __init__(self, receive: Callable[[int], bytes]) -> None:
        """Receive bytes with ``receive``, which returns b"" at the end of the stream."""
        self._receive = receive
        self._deadline: float | None = None  # monotonic seconds
        self.rest = b""

    def read_head(self) -> ResponseHead:
        """Read the final head; interim responses are skipped.

        Raises:
            http.client.HTTPException: the head is malformed, too large or takes too long.
            http.client.RemoteDisconnected: the stream ended before or within the head.
        """
        for _ in range(MAX_INTERIM_RESPONSES):
            head = parse_head(self._read_block())
            if head.status >= 200 or head.status == 101:
                return head
        raise http.client.HTTPException(f"got more than {MAX_INTERIM_RESPONSES} interim answers")

    def read_trailer(self) -> None:
        """Read and discard the lines after the last chunk, up to an empty one."""
        self.rest = b"\n" + self.rest  # the end of the line of the last chunk
        self._read_block()

    def read_line(self, max_size: int) -> bytes:
        """Read a line without its end; it has at most ``max_size`` bytes.

        Raises:
            http.client.HTTPException: the line is too long or takes too long.
        """
        data = bytearray(self.rest)
        self._deadline = None
        while (end := data.find(b"\n")) < 0:
            if len(data) > max_size:
                raise http.client.LineTooLong("chunk size")
            data += self._receive_more()
        self.rest = bytes(data[end + 1 :])
        return bytes(data[:end]).rstrip(b"\r")

    def _read_block(self) -> bytes:
        """Read up to an empty line, which is removed."""
        self._deadline = None
        received = self.rest or self._receive_more()
        end = _END_OF_HEAD.search(received)  # nearly always
        if end is None:
            received = self._receive_block(received)
            end = _END_OF_HEAD.search(received)
            assert end is not None  # noqa: S101 - `_receive_block` has found it
        start, stop = end.span()
        self.rest = received[stop:]
        return received[:start]

    def _receive_block(self, received: bytes) -> bytes:
        """Receive more until there is an empty line."""
        data, scanned, next_check = bytearray(received), 0, MAX_LINE_SIZE
        while _END_OF_HEAD.search(data, scanned) is None:
            if len(data) > next_check:
                _check_lines(data)
                next_check = len(data) + MAX_LINE_SIZE
            scanned = max(0, len(data) - 2)
            data += self._receive_more()
        return bytes(data)

    def _receive_more(self) -> bytes:
        """Receive some bytes; the time limit begins with the first ones."""
        received = self._receive(_RECEIVE_SIZE)
        if not received:
            raise http.client.RemoteDisconnected("the connection was closed without a response")
        now = time.monotonic()
        if self._deadline is None:
            self._deadline = now + HEADER_TIMEOUT
        elif now > self._deadline:
            raise http.client.HTTPException("the headers take too long")
        return received


def parse_head(block: bytes) -> ResponseHead:
    """Parse the lines of a head, without the empty one at its end.

    Raises:
        http.client.HTTPException: the status line is malformed, a line or the head is too large.
    """
    if len(block) > MAX_LINE_SIZE or block.count(b"\n") > MAX_LINES:
        _check_lines(block)
    lines = block.decode("latin-1").split("\n")
    match = _STATUS_LINE.match(lines[0].rstrip("\r"))
    if match is None:
        raise http.client.BadStatusLine(lines[0][:100])
    pairs: list[tuple[str, str]] = []
    fields: dict[str, tuple[str, str]] = {}
    for line in lines[1:]:
        if line[:1] in (" ", "\t"):  # RFC 9112, 5.2: obsolete line folding
            _fold(pairs, fields, line)
            continue
        name, colon, value = line.partition(":")
        if not colon:
            continue  # http.client ignores it, too
        value = value.strip(" \t\r")
        pair = name, value
        pairs.append(pair)
        key = name.lower()
        fields[key] = (name, f"{fields[key][1]}, {value}") if key in fields else pair
    is_http_1_0, reason = match[1] in ("0.9", "1.0"), (match[3] or "").strip()
    headers = Headers.from_fields(fields)
    return ResponseHead(is_http_1_0, int(match[2]), reason, pairs, headers)


def _fold(
    pairs: list[tuple[str, str]], fields: dict[str, tuple[str, str]], continuation: str
) -> None:
    """Append a continuation line to the header before it."""
    if pairs:
        text = continuation.strip(" \t\r")
        name, value = pairs.pop()
        pairs.append((name, f"{value} {text}"))
        key = name.lower()
        fields[key] = name, f"{fields[key][1]} {text}"


def _check_lines(data: bytes | bytearray) -> None:
    """Check the bounds of an incomplete or large head.

    Raises:
        http.client.HTTPException: there are too many lines, or one is too long.
    """
    lines = data.split(b"\n", MAX_LINES + 1)
    if len(lines) > MAX_LINES + 1:
        raise http.client.HTTPException(f"got more than {MAX_LINES} headers")
    if max(map(len, lines)) > MAX_LINE_SIZE:
        raise http.client.LineTooLong("header line")
