"""The body of an answer that is verified while it is read, and goes on after a drop."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import requests

from concil.config import KIB, MIB
from concil.content import Digest, Verifier
from concil.errors import ConcilError, ConnectionLost, SizeMismatch
from concil.progress import Meter, State
from concil.registry.session import content_length
from concil.store.protocol import BlobReader
from concil.store.remote import RemoteBlob
from concil.transfer.push import Opener, ResumingReader
from concil.transfer.run import Run

# What of urllib3's response would read past the verification.
_UNVERIFIED = frozenset({"read_chunked", "json", "drain_conn", "getbuffer"})


class VerifiedBody(io.RawIOBase):
    """Stands in for ``Response.raw``: whichever way it is read, wrong bytes end in an error.

    The last piece is handed out only after the whole was found right. One thread at a
    time, as any response.
    """

    def __init__(
        self, response: requests.Response, digest: Digest, opener: Opener, meter: Meter, run: Run
    ) -> None:
        """Read the body of ``response`` first, and what ``opener`` opens after a drop."""
        super().__init__()
        self._raw = response.raw
        self._digest = digest
        self._meter = meter
        self._name = f"blob {digest}"
        # Without a length the end of the body is where the server says it is.
        self._size = content_length(response)
        self._verifier = Verifier(digest.algorithm)
        self._first: BlobReader | None = RemoteBlob(response, 0)
        self._again = opener
        self._reader = ResumingReader(self._open, self._size or 0, run, self._name)
        self._ended = False
        self._failure: ConcilError | None = None

    @property
    def data(self) -> bytes:
        """All that is left of the body; urllib3's own would not be verified."""
        return self.read()

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: Any, /) -> int:  # noqa: ANN401 - whatever io hands over
        """Fill some of ``buffer``; 0 at the end of the right bytes.

        Raises:
            DigestMismatch, SizeMismatch: the bytes are not the blob's.
            ConnectionLost, StatusError: it broke off for good.
        """
        if self.closed:
            raise ValueError(f"{self._name}: read of a closed response")
        if self._failure is not None:
            raise self._failure  # never an end that looks like success
        view = memoryview(buffer).cast("B")
        if self._ended or not len(view):
            return 0
        try:
            return self._fill(view)
        except ConcilError as error:
            self._failure = error
            self._let_go()
            raise

    def _fill(self, view: memoryview) -> int:
        count = self._next(view)
        self._verifier.update(view[:count])
        self._meter.at(self._verifier.position)
        if self._verifier.position == self._size or count == 0:
            self._end()
        return count

    def read(self, amt: int | None = -1, decode_content: bool | None = None) -> bytes:  # noqa: ARG002, FBT001
        """Return up to ``amt`` bytes, as many as there are; None or -1: all of them.

        ``decode_content`` is urllib3's; a blob is never decoded.
        """
        if amt is None or amt < 0:
            return b"".join(self.stream(MIB))
        view = memoryview(bytearray(amt))
        got = 0
        while got < amt:
            count = self.readinto(view[got:])
            if count == 0:
                break
            got += count
        return bytes(view[:got])

    def read1(self, amt: int | None = -1, decode_content: bool | None = None) -> bytes:  # noqa: ARG002, FBT001
        """Return what one receive brings."""
        view = memoryview(bytearray(64 * KIB if amt is None or amt < 0 else amt))
        return bytes(view[: self.readinto(view)])

    def stream(self, amt: int = 64 * KIB, decode_content: bool | None = None) -> Iterator[bytes]:  # noqa: ARG002, FBT001
        """Yield pieces of ``amt`` bytes, the last one shorter."""
        while piece := self.read(amt):
            yield piece

    def close(self) -> None:
        """Let go of the connection, also in the middle."""
        if not self.closed:
            self._let_go()
        super().close()

    def release_conn(self) -> None:
        """Let go of the connection: requests calls this when a response is closed."""
        self.close()

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever urllib3's response has
        """What urllib3's response can tell beside the body: headers, status, version."""
        if name.startswith("_") or name in _UNVERIFIED:
            raise AttributeError(name)
        return getattr(self._raw, name)

    def _open(self, start: int, /) -> BlobReader:
        first, self._first = self._first, None
        return first if first is not None and start == 0 else self._again(start)

    def _next(self, view: memoryview) -> int:
        if self._size is None:
            first = self._first
            return first.readinto(view) if first is not None else 0
        try:
            return self._reader.readinto(view)
        except ConnectionLost as error:
            raise SizeMismatch(
                f"{self._name}: only {self._reader.position} of {self._size} bytes came: {error}"
            ) from error

    def _let_go(self) -> None:
        self._reader.close()
        if self._first is not None:
            self._first.close()

    def _end(self) -> None:
        self._ended = True
        self._verifier.check(self._digest, self._size, self._name)
        self._meter.state(State.DONE)
        # The connection is at its end: closing gives it back for the next request.
        self._let_go()
