"""The requests on one connection to the registry of canned answers, at little cost."""

from __future__ import annotations

import re
from dataclasses import dataclass

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)
_CONTINUE = re.compile(rb"\r\nexpect: *100-continue", re.IGNORECASE)
_KEPT = 1024 * 1024  # bytes of a body that are kept; of more only the number is known


@dataclass(slots=True)
class Request:
    """One request; `body` is empty where it was long."""

    method: str
    target: str
    head: bytes
    size: int = 0  # bytes of the body
    body: bytes = b""


class Parser:
    """Cuts what arrives into requests.

    A long body with a length is not fed but skipped: `skippable` says how much of it is missing.
    """

    def __init__(self) -> None:
        self._arrived = b""
        self._request: Request | None = None  # its head is complete, its body is not
        self._remaining = 0  # bytes of the body, or of the chunk
        self._is_chunked = False
        self._owes_continue = False

    @property
    def skippable(self) -> int:
        """Bytes of a long body that have not arrived."""
        is_long = self._request is not None and not self._is_chunked and self._request.size > _KEPT
        return self._remaining if is_long else 0

    def wants_continue(self) -> bool:
        """Whether the client waits for 100 (Continue); asked once."""
        owed, self._owes_continue = self._owes_continue, False
        return owed and self._remaining > 0

    def skip(self, size: int) -> None:
        """Take note of bytes of a body that nobody has looked at."""
        self._remaining -= size

    def feed(self, arrived: bytes) -> None:
        """Take bytes."""
        self._arrived = self._arrived + arrived if self._arrived else arrived
        if self._request is None:
            self._read_head()
        self._read_body()

    def next_request(self) -> Request | None:
        """Return the next request that has arrived completely."""
        if self._request is None:
            self._read_head()
            self._read_body()
        if self._request is None or self._remaining or self._is_chunked:
            return None
        request, self._request = self._request, None
        return request

    def _read_head(self) -> None:
        head, mark, rest = self._arrived.partition(b"\r\n\r\n")
        if not mark:
            return
        self._arrived = rest
        method, target, _ = head.split(b" ", 2)
        length = _LENGTH.search(head)
        self._remaining = int(length[1]) if length else 0
        self._is_chunked = _CHUNKED.search(head) is not None
        self._owes_continue = _CONTINUE.search(head) is not None
        self._request = Request(method.decode(), target.decode(), head, self._remaining)

    def _read_body(self) -> None:
        request = self._request
        if request is None:
            return
        if self._is_chunked:
            self._read_chunks(request)
            return
        taken = min(self._remaining, len(self._arrived))
        if taken:
            if request.size <= _KEPT:
                request.body += self._arrived[:taken]
            self._arrived = self._arrived[taken:]
            self._remaining -= taken

    def _read_chunks(self, request: Request) -> None:
        """Go from chunk to chunk; `_remaining` counts the line's end behind a chunk too."""
        arrived, at = self._arrived, 0
        while self._is_chunked:
            if self._remaining:
                taken = min(self._remaining, len(arrived) - at)
                self._remaining -= taken
                at += taken
                if self._remaining:
                    break
            end = arrived.find(b"\r\n", at)
            if end < 0:
                break
            size = int(arrived[at:end].partition(b";")[0], 16)
            if not size and arrived[end + 2 : end + 4] != b"\r\n":
                break  # the end of the trailer has not arrived
            at = end + 2 + (0 if size else 2)
            request.size += size
            self._remaining = size + 2 if size else 0
            self._is_chunked = size > 0
        self._arrived = arrived[at:]
