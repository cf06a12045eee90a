"""BlobFile: a blob of a store as a binary file that can be sought."""

from __future__ import annotations

import hashlib
import io
import os
from dataclasses import field
from typing import Any

from concil.config import KIB, MIB
from concil.engine.store_factory import SourceStore
from concil.errors import Cancelled, ConcilError, DigestMismatch
from concil.oci.blob_reader import RangeOpener
from concil.oci.descriptor import Descriptor
from concil.oci.digest import DAMAGED_SOURCE_REMEDY, Digest, Verifier
from concil.runtime.dataclass import dataclass
from concil.transfer.blob.resuming_reader import ResumingReader
from concil.transfer.blob.source import BlobSource
from concil.transfer.context import TransferContext

__all__ = ["BlobFile", "open_blob_file"]

_BUFFER_SIZE = 64 * KIB
# Bytes requested after a seek; each further request in a row is twice as large. A connection with
# unread bytes has to be closed at the next seek.
_FIRST_RANGE, _MAX_RANGE = 256 * KIB, 16 * MIB
_MAX_SKIP = 128 * KIB  # bytes that are read and dropped instead of a new request


class BlobFile(io.BufferedReader):
    """A blob as a binary file: `read`, `readinto`, `seek`, `tell`, iteration and `close`.

    It can be passed to anything that reads a file, such as `zipfile.ZipFile`.
    """

    raw: _RangeReader

    def __init__(self, raw: _RangeReader) -> None:
        """Buffer the ranges of ``raw``."""
        super().__init__(raw, _BUFFER_SIZE)

    @property
    def name(self) -> str:
        """The address of the blob."""
        return self.raw.blob_name

    @property
    def digest(self) -> Digest:
        """The digest by which the blob is named."""
        return self.raw.digest

    @property
    def size(self) -> int:
        """Size in bytes."""
        return self.raw.size

    @property
    def verified(self) -> bool:
        """Whether every byte that was returned so far is known to be the blob's."""
        return self.raw.verified

    def verify(self) -> None:
        """Check all bytes that were returned; this reads the blob, or the rest of it, once.

        Raises:
            DigestMismatch: the blob, or something that was returned, is wrong.
            ConnectionLost, StatusError: it cannot be read.
        """
        self.raw.verify()


@dataclass(slots=True)
class _Run:
    """Bytes that were returned in a row after a seek."""

    start: int
    stop: int
    hash: hashlib._Hash = field(default_factory=hashlib.sha256)


class _RangeReader(io.RawIOBase):
    """Reads ranges of a blob, and hashes what it returns. One thread at a time."""

    def __init__(
        self, opener: RangeOpener, blob: Descriptor, context: TransferContext, name: str
    ) -> None:
        super().__init__()
        self.size, self.digest, self.blob_name = blob.size, blob.digest, name
        self._opener = opener
        self._context = context
        self._position = 0
        self._reader: ResumingReader | None = None
        self._range_stop = 0  # end of the range that the reader reads
        self._range_size = blob.size  # a blob that is never sought is one request
        self._verifier = Verifier(blob.digest.algorithm)  # of the bytes from the first on
        self._runs: list[_Run] = []
        self._is_verified = False  # all of the blob, and all runs so far
        self._error: ConcilError | None = None

    @property
    def verified(self) -> bool:
        """Whether every byte that was returned is verified."""
        return self._is_verified and not self._runs

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}
        if whence not in origin:
            raise ValueError(f"whence is {whence}, not 0, 1 or 2")
        if origin[whence] + offset < 0:
            raise ValueError("a negative position")
        self._position = origin[whence] + offset
        return self._position

    def readinto(self, buffer: Any, /) -> int:  # noqa: ANN401 - whatever io hands over
        if self.closed:
            raise ValueError(f"{self.blob_name}: read of a closed file")
        if self._error is not None:
            raise self._error
        view = memoryview(buffer).cast("B")[: max(0, self.size - self._position)]
        if not view and self.size:
            return 0
        try:
            count = self._read(view) if view else 0
            self._record(view[:count])
        except ConcilError as error:
            self._error = error
            self._close_reader()
            raise
        self._position += count
        return count

    def verify(self) -> None:
        """Read the blob, or what was not read in order, and compare all that was returned."""
        if self._error is not None:
            raise self._error
        if self.verified:
            return
        runs = sorted(self._runs, key=lambda run: run.start)
        verifier = Verifier(self.digest.algorithm) if runs else self._verifier
        checks = [_Run(run.start, run.stop) for run in runs]
        reader = ResumingReader(self._opener, self.size, self._context, self.blob_name)
        reader.seek(verifier.position)
        buffer = memoryview(bytearray(_FIRST_RANGE))
        first = 0  # of the runs that have not ended yet
        try:
            while count := self._read_from(reader, buffer):
                start = verifier.position
                verifier.update(buffer[:count])
                first = _update_runs(checks, first, buffer[:count], start)
        finally:
            reader.close()
        verifier.verify(self.digest, self.size, self.blob_name)
        for run, check in zip(runs, checks, strict=True):
            if run.hash.digest() != check.hash.digest():
                raise DigestMismatch(
                    f"{self.blob_name}: bytes {run.start} to {run.stop} were not the blob's when "
                    "they were read",
                    remedy=DAMAGED_SOURCE_REMEDY,
                )
        self._verifier, self._is_verified = verifier, True
        self._runs.clear()

    def close(self) -> None:
        """Close the connection or file."""
        self._close_reader()
        super().close()

    def _read(self, view: memoryview) -> int:
        reader = self._reader
        distance = self._position - (reader.position if reader is not None else -1)
        if reader is None or not 0 <= distance <= min(
            _MAX_SKIP, max(self._range_stop - reader.position, 0)
        ):
            self._close_reader()
            if self._position:
                self._range_size = _FIRST_RANGE
            reader = self._open_range()
        elif reader.position == self._range_stop:
            self._range_size = min(2 * self._range_size, _MAX_RANGE)
            reader = self._open_range()
        skipped = memoryview(bytearray(self._position - reader.position))
        while skipped:
            skipped = skipped[self._read_from(reader, skipped) :]
        return self._read_from(reader, view)

    def _open_range(self) -> ResumingReader:
        self._close_reader()
        stop = min(self._position + self._range_size, self.size)
        self._range_stop = stop
        opener = self._opener
        self._reader = ResumingReader(
            lambda start: opener(start, stop), stop, self._context, self.blob_name
        )
        self._reader.seek(self._position)
        return self._reader

    def _read_from(self, reader: ResumingReader, view: memoryview) -> int:
        if self._context.cancel.is_set():
            raise Cancelled(f"{self.blob_name}: cancelled")
        return reader.readinto(view)

    def _record(self, data: memoryview) -> None:
        """Hash what is returned: as a part of the whole blob, or as a run."""
        start = self._position
        if start == self._verifier.position and not self._is_verified:
            self._verifier.update(data)
            if self._verifier.position == self.size:
                self._verifier.verify(self.digest, self.size, self.blob_name)
                self._is_verified = True
                self._close_reader()
            return
        if not self._runs or self._runs[-1].stop != start:
            self._runs.append(_Run(start, start))
        self._runs[-1].stop += len(data)
        self._runs[-1].hash.update(data)

    def _close_reader(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()


def _update_runs(runs: list[_Run], first: int, block: memoryview, start: int) -> int:
    """Hash the parts of a block that belong to runs; return the first run that has not ended."""
    stop = start + len(block)
    while first < len(runs) and runs[first].stop <= start:
        first += 1
    for run in runs[first:]:
        if run.start >= stop:
            break
        if run.stop > start:
            run.hash.update(block[max(run.start - start, 0) : run.stop - start])
    return first


def open_blob_file(store: SourceStore, blob: Descriptor, context: TransferContext) -> BlobFile:
    """Open a blob of a store as a file. See `Engine.open_blob`."""
    source = BlobSource.in_store(store, blob).throttled(context.bandwidth, "", context.abandon)
    return BlobFile(_RangeReader(source.open, blob, context, source.name))
