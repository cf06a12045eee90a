"""Content that is verified while it is read: the bodies of answers, and blobs of any store."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from typing import Any, Protocol, Self

import requests

from concil.config import KIB, MIB
from concil.content import Descriptor, Digest, Verifier
from concil.errors import Cancelled, ConcilError, ConnectionLost, SizeMismatch
from concil.progress import Meter, ProgressSink, State
from concil.registry.session import content_length
from concil.store.protocol import BlobReader
from concil.store.remote import RemoteBlob
from concil.transfer.push import Opener, ResumingReader
from concil.transfer.run import Run

logger = logging.getLogger(__name__)

# Bytes that are read at the end of a `with` to verify what nobody asked for. A parser stops
# at the end of its format and leaves a few KiB; who stops on purpose leaves gigabytes.
REST = 16 * MIB
# What of urllib3's response would read past the verification.
_UNVERIFIED = frozenset({"read_chunked", "json", "drain_conn", "getbuffer"})


class Readable(Protocol):
    """Where a `VerifiedReader` takes its bytes from."""

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill some of ``buffer``; 0 at the end."""
        ...

    def close(self) -> None:
        """Let go of the connection or file."""
        ...


class VerifiedReader(io.RawIOBase):
    """A file-like object on a blob: whichever way it is read, wrong bytes end in an error.

    The last piece is handed out only after the whole was found right. One thread at a time.
    """

    def __init__(
        self, source: Readable, digest: Digest, size: int | None, meter: Meter, name: str
    ) -> None:
        """Read ``source``, and close it.

        Args:
            size: bytes; None: the end is where the source ends.
            name: what people call the blob, for messages.
        """
        super().__init__()
        self.size = size
        self.subject = name
        self.verified = False  # whether all bytes were read and are the blob's
        self._source = source
        self._digest = digest
        self._meter = meter
        self._verifier = Verifier(digest.algorithm)
        self.failure: ConcilError | None = None  # what reading it ended with
        self._held = False  # a `with` around it still needs the source after `close`
        self._released = False

    @property
    def position(self) -> int:
        """Bytes read so far."""
        return self._verifier.position

    @property
    def is_over(self) -> bool:
        """Whether nothing more is read: it was verified, has failed, or was let go of."""
        return self.verified or self.failure is not None or self._released

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
            raise ValueError(f"{self.subject}: read of a closed response")
        return self._read_verified(memoryview(buffer).cast("B"))

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

    def hold(self) -> None:
        """Keep the source after `close`, until `release`: a wrapper closes what it wraps."""
        self._held = True

    def finish(self, limit: int | None = None) -> bool:
        """Read the rest and verify it; nothing is read after `release` or an error.

        Args:
            limit: bytes to read at most; more than that is left unread.
        Returns:
            Whether all bytes were verified.
        Raises:
            DigestMismatch, SizeMismatch: the bytes are not the blob's.
            ConnectionLost, StatusError: it broke off for good.
        """
        if self.is_over:
            return self.verified
        begin = self.position
        if limit is not None and self.size is not None and self.size - begin > limit:
            return False
        buffer = memoryview(bytearray(256 * KIB))
        while limit is None or self.position - begin < limit:
            left = len(buffer) if limit is None else limit - (self.position - begin)
            if not self._read_verified(buffer[:left]):
                break
        return self.verified

    def release(self) -> None:
        """Let go of the source, also in the middle."""
        self._released = True
        self._held = False
        self.close()
        self._source.close()

    def close(self) -> None:
        """Let go of the source, also in the middle."""
        if not (self.closed or self._held):
            self._source.close()
        super().close()

    def _read_verified(self, view: memoryview) -> int:
        if self.failure is not None:
            raise self.failure  # never an end that looks like success
        if self.verified or not len(view):
            return 0
        try:
            count = self._source.readinto(view)
            self._verifier.update(view[:count])
            self._meter.at(self.position)
            if self.position == self.size or count == 0:
                self._verify()
        except ConcilError as error:
            self.failure = error
            self._source.close()
            raise
        return count

    def _verify(self) -> None:
        self._verifier.check(self._digest, self.size, self.subject)
        self.verified = True
        self._meter.state(State.DONE)
        # The connection is at its end: closing gives it back for the next request.
        self._source.close()


class VerifiedBody(VerifiedReader):
    """Stands in for ``Response.raw``; goes on by Range after a drop."""

    def __init__(
        self, response: requests.Response, digest: Digest, opener: Opener, meter: Meter, run: Run
    ) -> None:
        """Read the body of ``response`` first, and what ``opener`` opens after a drop."""
        self._raw = response.raw
        name, size = f"blob {digest}", content_length(response)
        body = RemoteBlob(response, 0)
        # Without a length the end of the body is where the server says it is.
        source = body if size is None else _Resuming(body, opener, size, run, name)
        super().__init__(source, digest, size, meter, name)

    def release_conn(self) -> None:
        """Let go of the connection: requests calls this when a response is closed."""
        self.close()

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever urllib3's response has
        """What urllib3's response can tell beside the body: headers, status, version."""
        if name.startswith("_") or name in _UNVERIFIED:
            raise AttributeError(name)
        return getattr(self._raw, name)


class VerifiedResponse(requests.Response):
    """A streamed response; leaving its ``with`` without an error verifies what was not read."""

    raw: VerifiedBody

    @classmethod
    def of(cls, response: requests.Response, body: VerifiedBody) -> Self:
        """Return ``response`` with another body."""
        verified = cls()
        vars(verified).update(vars(response))
        verified.raw = body
        return verified

    @property
    def verified(self) -> bool:
        """Whether all bytes were read, and are right."""
        return self.raw.verified

    def verify(self) -> None:
        """Read the rest, however long, and verify it.

        Raises:
            DigestMismatch, SizeMismatch: the bytes are not the blob's.
            ConnectionLost, StatusError: it broke off for good.
            ValueError: it was closed before.
        """
        body = self.raw
        if not body.finish():
            raise body.failure or ValueError(f"{body.subject}: closed before it was verified")

    def __enter__(self) -> Self:
        """Return itself."""
        self.raw.hold()
        return self

    def __exit__(self, *raised: object) -> None:
        """Verify the rest if it is short and the block ended without an error; close.

        Raises:
            DigestMismatch, SizeMismatch: the bytes are not the blob's.
        """
        try:
            if not raised or raised[0] is None:
                self._finish()
        finally:
            self.close()

    def close(self) -> None:
        """Close it; what was not read is not verified."""
        self.raw.release()
        super().close()

    def _finish(self) -> None:
        body = self.raw
        if body.finish(REST) or body.is_over:
            return
        logger.warning(
            "%s was left at byte %d of %s: it is not verified",
            body.subject,
            body.position,
            "unknown" if body.size is None else body.size,
        )


def read_stored(open_blob: Opener, blob: Descriptor, meter: Meter, run: Run) -> VerifiedReader:
    """Return a blob of a store as a file-like object that is verified while it is read."""
    name = f"blob {blob.digest}"
    source = _Cancellable(ResumingReader(open_blob, blob.size, run, name), run, name)
    return VerifiedReader(source, blob.digest, blob.size, meter, name)


class _Cancellable:
    """A reader that raises Cancelled as soon as its run is cancelled."""

    def __init__(self, reader: ResumingReader, run: Run, name: str) -> None:
        self._cancel = run.cancel
        self._name = name
        self._reader = reader
        self.close = reader.close

    def readinto(self, buffer: memoryview, /) -> int:
        if self._cancel.is_set():
            raise Cancelled(f"{self._name}: cancelled")
        return self._reader.readinto(buffer)


class _Resuming:
    """A body of known length that is opened again after a drop."""

    def __init__(self, first: BlobReader, opener: Opener, size: int, run: Run, name: str) -> None:
        self._first: BlobReader | None = first
        self._again = opener
        self._size = size
        self._name = name
        self._reader = ResumingReader(self._open, size, run, name)

    def readinto(self, buffer: memoryview, /) -> int:
        try:
            return self._reader.readinto(buffer)
        except ConnectionLost as error:
            cut = SizeMismatch(
                f"{self._name}: only {self._reader.position} of {self._size} bytes came: {error}"
            )
            cut.cut = True
            raise cut from error

    def close(self) -> None:
        self._reader.close()
        if self._first is not None:
            self._first.close()

    def _open(self, start: int, /) -> BlobReader:
        first, self._first = self._first, None
        return first if first is not None and start == 0 else self._again(start)


def verified_response(
    response: requests.Response,
    digest: Digest,
    again: Opener,
    progress: ProgressSink | None,
    run: Run,
) -> VerifiedResponse:
    """Let the body of a response be verified while it is read, and resume after a drop.

    Args:
        again: opens the content again at a byte.
    """
    total = content_length(response)
    meter = Meter(progress, kind="blob", subject=str(digest), target="", total=total)
    return VerifiedResponse.of(response, VerifiedBody(response, digest, again, meter, run))
