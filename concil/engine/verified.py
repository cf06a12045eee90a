"""Readers and response bodies that verify size and digest while they are read."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from typing import Any, Protocol, Self

import requests

from concil.config import KIB, MIB
from concil.errors import Cancelled, ConcilError, ConnectionLost, SizeMismatch
from concil.http.transport import content_length
from concil.oci.blob_reader import BlobReader
from concil.oci.descriptor import Descriptor
from concil.oci.manifest import Digest, Verifier
from concil.progress.events import Meter, ProgressSink, State
from concil.store.registry.repository import RegistryBlobReader
from concil.transfer.blob.resuming_reader import Opener, ResumingReader
from concil.transfer.context import TransferContext

logger = logging.getLogger(__name__)

# Bytes that are read at the end of a `with` block to verify an unread rest. A parser that stops
# at the end of its format leaves a few KiB; a caller who stops on purpose leaves gigabytes.
MAX_REST = 16 * MIB
# Methods of urllib3's response that would bypass the verification.
_UNVERIFIED_METHODS = frozenset({"read_chunked", "json", "drain_conn", "getbuffer"})


class SupportsReadinto(Protocol):
    """The source of a `VerifiedReader`."""

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill some of ``buffer``; 0 at the end."""
        ...

    def close(self) -> None:
        """Close the connection or file."""
        ...


class VerifiedReader(io.RawIOBase):
    """A file-like object that verifies a blob, whichever read method is used.

    The last block is returned only after the whole blob was verified. One thread at a time.
    """

    def __init__(
        self, source: SupportsReadinto, digest: Digest, size: int | None, meter: Meter, name: str
    ) -> None:
        """Read ``source``, and close it at the end.

        Args:
            size: bytes; None: unknown, read until the source ends.
            name: name of the blob in messages.
        """
        super().__init__()
        self.size = size
        self.display_name = name
        self.verified = False  # whether all bytes were read and are the blob's
        self._source = source
        self._digest = digest
        self._meter = meter
        self._verifier = Verifier(digest.algorithm)
        self.error: ConcilError | None = None  # that ended the reading
        self._is_kept_open = False  # a `with` around it still needs the source after `close`
        self._is_released = False

    @property
    def position(self) -> int:
        """Bytes read so far."""
        return self._verifier.position

    @property
    def is_finished(self) -> bool:
        """Whether nothing more is read: the blob was verified, has failed, or was released."""
        return self.verified or self.error is not None or self._is_released

    @property
    def data(self) -> bytes:
        """The rest of the body; replaces urllib3's attribute, which would not be verified."""
        return self.read()

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any, /) -> int:  # noqa: ANN401 - whatever io hands over
        """Fill some of ``buffer``; 0 at the end of the verified blob.

        Raises:
            DigestMismatch, SizeMismatch: the bytes are not the blob's.
            ConnectionLost, StatusError: reading failed permanently.
        """
        if self.closed:
            raise ValueError(f"{self.display_name}: read of a closed response")
        return self._read_verified(memoryview(buffer).cast("B"))

    def read(self, amt: int | None = -1, decode_content: bool | None = None) -> bytes:  # noqa: ARG002, FBT001
        """Return ``amt`` bytes, fewer only at the end; None or -1: all of them.

        ``decode_content`` exists for urllib3's sake; a blob is never decoded.
        """
        if amt is None or amt < 0:
            return b"".join(self.stream(MIB))
        view = memoryview(bytearray(amt))
        filled = 0
        while filled < amt:
            count = self.readinto(view[filled:])
            if count == 0:
                break
            filled += count
        return bytes(view[:filled])

    def read1(self, amt: int | None = -1, decode_content: bool | None = None) -> bytes:  # noqa: ARG002, FBT001
        """Return the bytes of a single read, up to ``amt``."""
        view = memoryview(bytearray(64 * KIB if amt is None or amt < 0 else amt))
        return bytes(view[: self.readinto(view)])

    def stream(self, amt: int = 64 * KIB, decode_content: bool | None = None) -> Iterator[bytes]:  # noqa: ARG002, FBT001
        """Yield blocks of ``amt`` bytes; the last one may be shorter."""
        while block := self.read(amt):
            yield block

    def keep_source_open(self) -> None:
        """Keep the source open after `close`, until `release`: wrappers close this reader."""
        self._is_kept_open = True

    def verify_rest(self, limit: int | None = None) -> bool:
        """Read the rest and verify it; nothing is read after `release` or an error.

        Args:
            limit: bytes to read at most; a longer rest is not verified.
        Returns:
            Whether all bytes were verified.
        Raises:
            DigestMismatch, SizeMismatch: the bytes are not the blob's.
            ConnectionLost, StatusError: reading failed permanently.
        """
        if self.is_finished:
            return self.verified
        start = self.position
        if limit is not None and self.size is not None and self.size - start > limit:
            return False
        buffer = memoryview(bytearray(256 * KIB))
        while limit is None or self.position - start < limit:
            remaining = len(buffer) if limit is None else limit - (self.position - start)
            if not self._read_verified(buffer[:remaining]):
                break
        return self.verified

    def release(self) -> None:
        """Close the source, even if the blob was not read to its end."""
        self._is_released = True
        self._is_kept_open = False
        self.close()
        self._source.close()

    def close(self) -> None:
        """Close this reader, and the source unless `keep_source_open` was called."""
        if not (self.closed or self._is_kept_open):
            self._source.close()
        super().close()

    def _read_verified(self, view: memoryview) -> int:
        if self.error is not None:
            raise self.error  # not 0, which would look like a regular end
        if self.verified or not len(view):
            return 0
        try:
            count = self._source.readinto(view)
            self._verifier.update(view[:count])
            self._meter.set_position(self.position)
            if self.position == self.size or count == 0:
                self._verify()
        except ConcilError as error:
            self.error = error
            self._source.close()
            raise
        return count

    def _verify(self) -> None:
        self._verifier.verify(self._digest, self.size, self.display_name)
        self.verified = True
        self._meter.set_state(State.DONE)
        # The response is complete, so closing it returns the connection to the pool.
        self._source.close()


class VerifiedBody(VerifiedReader):
    """Replaces ``Response.raw``; resumes with a Range request after a lost connection."""

    def __init__(
        self,
        response: requests.Response,
        digest: Digest,
        opener: Opener,
        meter: Meter,
        context: TransferContext,
    ) -> None:
        """Read the body of ``response``, and after a lost connection the readers of ``opener``."""
        self._raw = response.raw
        name, size = f"blob {digest}", content_length(response)
        body = RegistryBlobReader(response, 0)
        # Without a length there is no way to tell a lost connection from the end.
        source = body if size is None else _ResumingBody(body, opener, size, context, name)
        super().__init__(source, digest, size, meter, name)

    def release_conn(self) -> None:
        """Close the body; requests calls this when a response is closed."""
        self.close()

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever urllib3's response has
        """Return other attributes of urllib3's response, such as headers and status."""
        if name.startswith("_") or name in _UNVERIFIED_METHODS:
            raise AttributeError(name)
        return getattr(self._raw, name)


class VerifiedResponse(requests.Response):
    """A streamed response whose ``with`` block verifies a short unread rest at its end."""

    raw: VerifiedBody

    @classmethod
    def wrap(cls, response: requests.Response, body: VerifiedBody) -> Self:
        """Return a copy of ``response`` with another body."""
        verified = cls()
        vars(verified).update(vars(response))
        verified.raw = body
        return verified

    @property
    def verified(self) -> bool:
        """Whether all bytes were read and verified."""
        return self.raw.verified

    def verify(self) -> None:
        """Read the rest, whatever its length, and verify it.

        Raises:
            DigestMismatch, SizeMismatch: the bytes are not the blob's.
            ConnectionLost, StatusError: reading failed permanently.
            ValueError: it was closed before.
        """
        body = self.raw
        if not body.verify_rest():
            raise body.error or ValueError(f"{body.display_name}: closed before it was verified")

    def __enter__(self) -> Self:
        """Return itself."""
        self.raw.keep_source_open()
        return self

    def __exit__(self, *raised: object) -> None:
        """Verify the rest if it is short and the block raised no error; then close.

        Raises:
            DigestMismatch, SizeMismatch: the bytes are not the blob's.
        """
        try:
            if not raised or raised[0] is None:
                self._verify_rest()
        finally:
            self.close()

    def close(self) -> None:
        """Close the response without verifying an unread rest."""
        self.raw.release()
        super().close()

    def _verify_rest(self) -> None:
        body = self.raw
        if body.verify_rest(MAX_REST) or body.is_finished:
            return
        logger.warning(
            "%s was left at byte %d of %s: it is not verified",
            body.display_name,
            body.position,
            "unknown" if body.size is None else body.size,
        )


def open_verified(
    open_blob: Opener, blob: Descriptor, meter: Meter, context: TransferContext
) -> VerifiedReader:
    """Return a blob of a store as a file-like object that is verified while it is read."""
    name = f"blob {blob.digest}"
    source = _CancellableReader(ResumingReader(open_blob, blob.size, context, name), context, name)
    return VerifiedReader(source, blob.digest, blob.size, meter, name)


class _CancellableReader:
    """A reader that raises Cancelled once its run is cancelled."""

    def __init__(self, reader: ResumingReader, context: TransferContext, name: str) -> None:
        self._cancel = context.cancel
        self._name = name
        self._reader = reader
        self.close = reader.close

    def readinto(self, buffer: memoryview, /) -> int:
        if self._cancel.is_set():
            raise Cancelled(f"{self._name}: cancelled")
        return self._reader.readinto(buffer)


class _ResumingBody:
    """A body of known length that is reopened after a lost connection."""

    def __init__(
        self,
        first_reader: BlobReader,
        opener: Opener,
        size: int,
        context: TransferContext,
        name: str,
    ) -> None:
        self._first_reader: BlobReader | None = first_reader
        self._opener = opener
        self._size = size
        self._name = name
        self._reader = ResumingReader(self._open, size, context, name)

    def readinto(self, buffer: memoryview, /) -> int:
        try:
            return self._reader.readinto(buffer)
        except ConnectionLost as error:
            truncation = SizeMismatch(
                f"{self._name}: only {self._reader.position} of {self._size} bytes came: {error}"
            )
            truncation.is_truncated = True
            raise truncation from error

    def close(self) -> None:
        self._reader.close()
        if self._first_reader is not None:
            self._first_reader.close()

    def _open(self, start: int, /) -> BlobReader:
        first_reader, self._first_reader = self._first_reader, None
        return first_reader if first_reader is not None and start == 0 else self._opener(start)


def wrap_response(
    response: requests.Response,
    digest: Digest,
    opener: Opener,
    progress: ProgressSink | None,
    context: TransferContext,
) -> VerifiedResponse:
    """Return the response with a body that is verified and resumes after a lost connection.

    Args:
        opener: reopens the content at a byte offset.
    """
    total = content_length(response)
    meter = Meter(progress, kind="blob", subject=str(digest), target="", total=total)
    return VerifiedResponse.wrap(response, VerifiedBody(response, digest, opener, meter, context))
