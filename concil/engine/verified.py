"""Readers and response bodies that verify size and digest while they are read."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from typing import Any, Protocol

from concil.config import KIB, MIB
from concil.errors import Cancelled, ConcilError
from concil.oci.descriptor import Descriptor
from concil.oci.manifest import Digest, Verifier
from concil.progress.events import Meter, State
from concil.transfer.blob.resuming_reader import Opener, ResumingReader
from concil.transfer.context import TransferContext

logger = logging.getLogger(__name__)

# Bytes that are read at the end of a `with` block to verify an unread rest. A parser that stops
# at the end of its format leaves a few KiB; a caller who stops on purpose leaves gigabytes.
MAX_REST = 16 * MIB


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
