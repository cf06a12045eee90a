"""Reads a blob from the body of a response."""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable
from functools import partial
from typing import Self

import requests

from concil.config import KIB
from concil.errors import ConcilError, ConnectionLost
from concil.http import errors, unsafe_fast_path
from concil.http.exchange.response_body import ResponseBody
from concil.http.urls import describe_request, redact_url

_GATHER_TIME = 0.05  # seconds for collecting received bytes into one buffer
_CONNECTION_ERRORS = (
    requests.RequestException,
    OSError,
    http.client.HTTPException,
    errors.URLLIB3_ERRORS,
)


class RegistryBlobReader:
    """The body of a blob response as a BlobReader."""

    def __init__(self, response: requests.Response, start: int) -> None:
        """Read ``response``, whose first byte is the blob's byte ``start``; `close` closes it."""
        self._url = response.url
        self._raw = response.raw
        self._http_response = unsafe_fast_path.unwrap_body(response.raw)
        self._receive: Callable[[memoryview], int] | None = None  # None: urllib3 reads
        if isinstance(response.raw, ResponseBody):
            self._receive = response.raw.readinto
        elif self._http_response is not None:
            self._receive = partial(unsafe_fast_path.read_body, self._http_response)
        # To be raised after the bytes that were received before it.
        self._deferred_error: BaseException | None = None
        self.start = start

    @classmethod
    def from_range_response(cls, response: requests.Response, start: int) -> Self:
        """Read a response to a range request from ``start`` on, even if it is the whole blob."""
        reader = cls(response, start if response.status_code == requests.codes.partial else 0)
        reader.skip_to(start)
        return reader

    def readinto(self, buffer: memoryview, /) -> int:
        """Read what is available now or soon; bytes received before an error are kept."""
        try:
            if self._deferred_error is not None:
                raise self._deferred_error
            if self._receive is not None:
                return self._fill_buffer(self._receive, buffer)
            piece = self._raw.read1(len(buffer), decode_content=False)
        except _CONNECTION_ERRORS as error:
            what = describe_request("GET", self._url)
            raise errors.translate(error, what, has_answered=True) from error
        buffer[: len(piece)] = piece
        return len(piece)

    def skip_to(self, start: int) -> None:
        """Discard the bytes before ``start`` with large reads.

        Raises:
            ConnectionLost: the body ended early; the reader is closed.
        """
        buffer = memoryview(bytearray(min(256 * KIB, max(0, start - self.start))))
        count = 1
        try:
            while self.start < start and count:
                count = self.readinto(buffer[: start - self.start])
                self.start += count
        except ConcilError:
            self.close()
            raise
        if self.start < start:
            self.close()
            raise ConnectionLost(f"GET {redact_url(self._url)}: ended at byte {self.start}")

    def close(self) -> None:
        """Release the connection; one with unread bytes is closed."""
        unsafe_fast_path.close_body(self._raw, self._http_response)

    def _fill_buffer(self, receive: Callable[[memoryview], int], buffer: memoryview) -> int:
        """Fill the buffer with repeated reads, as long as data arrives quickly.

        Large pieces are faster, because each system call also releases the interpreter lock.
        """
        count, deadline = 0, time.monotonic() + _GATHER_TIME
        while count < len(buffer) and (not count or time.monotonic() < deadline):
            try:
                received = receive(buffer[count:])
            except _CONNECTION_ERRORS as error:
                if not count:
                    raise
                self._deferred_error = error
                break
            count += received
            if received == 0:
                break
        return count
