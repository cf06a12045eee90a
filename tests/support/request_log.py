"""The HTTP/1.1 requests that pass through a relay."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace

HEAD_LIMIT = 256 * 1024  # bytes


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it was seen.

    Args:
        connection: The number of its connection, from 1.
        method: In upper case, as sent.
        path: The request target, with its query.
        headers: By lower-case name; of several the last.
        body: Bytes of the body that passed, without chunk framing.
        complete: Whether all of it passed.
    """

    connection: int
    method: str
    path: str
    headers: Mapping[str, str]
    body_size: int  # bytes
    is_complete: bool


class ProtocolError(ValueError):
    """A client sent what is not HTTP/1.1."""


class _Parser:
    """The client's side of one connection, cut into requests."""

    def __init__(self, connection: int) -> None:
        self.requests: list[Request] = []
        self._connection = connection
        self._head = bytearray()  # of a request, a chunk or a trailer
        self._remaining = 0  # bytes of the body, or of this chunk
        self._state = "head"  # head, body, chunk size, chunk, chunk end, trailer

    def feed(self, passed: bytes) -> list[Request]:
        """Take bytes; return the requests whose last byte is among them."""
        finished: list[Request] = []
        view = memoryview(passed)
        while view:
            in_body = self._state in ("body", "chunk")
            view = self._read_body(view) if in_body else self._read_line(view)
            if self._state == "end":
                self._state = "head"
                self.requests[-1] = replace(self.requests[-1], is_complete=True)
                finished.append(self.requests[-1])
        return finished

    def _read_body(self, view: memoryview) -> memoryview:
        size = min(self._remaining, len(view))
        self._remaining -= size
        last = self.requests[-1]
        self.requests[-1] = replace(last, body_size=last.body_size + size)
        if not self._remaining:
            self._state = "end" if self._state == "body" else "chunk end"
        return view[size:]

    def _read_line(self, view: memoryview) -> memoryview:
        """Collect up to the next line's end, or a whole head."""
        before = len(self._head)
        self._head += view
        mark = b"\r\n\r\n" if self._state == "head" else b"\r\n"
        at = self._head.find(mark, max(before - len(mark) + 1, 0))
        if at < 0:
            if len(self._head) > HEAD_LIMIT:
                raise ProtocolError(f"connection {self._connection}: a head without an end")
            return view[len(view) :]
        text = self._head[:at].decode("latin-1")
        self._head.clear()
        self._parse_line(text)
        return view[at + len(mark) - before :]

    def _parse_line(self, text: str) -> None:
        if self._state == "head":
            self._parse_head(text)
        elif self._state == "chunk size":
            self._remaining = int(text.partition(";")[0], 16)
            self._state = "chunk" if self._remaining else "trailer"
        elif self._state == "chunk end":
            self._state = "chunk size"
        elif not text:  # a trailer ends with an empty line
            self._state = "end"

    def _parse_head(self, text: str) -> None:
        first, *lines = text.split("\r\n")
        parts = first.split(" ")
        if len(parts) != 3 or not parts[2].startswith("HTTP/1."):
            raise ProtocolError(f"connection {self._connection}: not a request line: {first!r}")
        headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        self.requests.append(Request(self._connection, parts[0], parts[1], headers, 0, False))
        if "chunked" in headers.get("transfer-encoding", "").lower():
            self._state = "chunk size"
            return
        self._remaining = int(headers.get("content-length", "0"))
        self._state = "body" if self._remaining else "end"


class RequestLog:
    """A relay's observer that knows every request; any thread may ask it.

    It reads plain HTTP/1.1, not TLS.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards all below
        self._parsers: dict[int, _Parser] = {}
        self._responses_to_lose: list[tuple[str, str]] = []
        self._order: list[tuple[int, int]] = []  # connection, index: the order of arrival
        self._failure: ProtocolError | None = None

    @property
    def requests(self) -> tuple[Request, ...]:
        """All requests whose head has passed, in order.

        Raises:
            ProtocolError: a client sent something else.
        """
        with self._lock:
            if self._failure:
                raise self._failure
            return tuple(self._parsers[number].requests[index] for number, index in self._order)

    def matching(self, method: str | None = None, part: str = "") -> list[Request]:
        """Return the requests with a method and with a part in their path."""
        return [
            request
            for request in self.requests
            if method in (None, request.method) and part in request.path
        ]

    def count(self, method: str | None = None, part: str = "") -> int:
        """Return how many requests match."""
        return len(self.matching(method, part))

    def body_bytes(self, method: str | None = None, part: str = "") -> int:
        """Return the bytes of the bodies of the requests that match."""
        return sum(request.body_size for request in self.matching(method, part))

    def clear(self) -> None:
        """Forget the requests so far; one that is under way is forgotten too."""
        with self._lock:
            self._order.clear()

    def lose_response(self, method: str, part: str = "", times: int = 1) -> None:
        """Reset the connection before the answer to the next requests that match.

        The server has the whole request by then and has done what it asks for.
        """
        with self._lock:
            self._responses_to_lose += [(method, part)] * times

    def upstream(self, connection: int, passed: bytes) -> bool:
        """See `Observer`."""
        with self._lock:
            parser = self._parsers.setdefault(connection, _Parser(connection))
            before = len(parser.requests)
            try:
                finished = parser.feed(passed)
            except ProtocolError as error:
                self._failure = error
                return False
            self._order += [(connection, index) for index in range(before, len(parser.requests))]
            return any(self._is_to_lose(request) for request in finished)

    def _is_to_lose(self, request: Request) -> bool:
        for lost in self._responses_to_lose:
            if lost[0] == request.method and lost[1] in request.path:
                self._responses_to_lose.remove(lost)
                return True
        return False
