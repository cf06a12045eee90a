"""Reader that reopens its source after a lost connection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from concil.errors import (
    Cancelled,
    ConcilError,
    ConnectionLost,
    ProtocolViolation,
)
from concil.oci.blob_reader import BlobReader
from concil.retry import ProgressRetry
from concil.transfer.context import TransferContext

__all__ = ["EarlyEnd", "Opener", "Result", "ResumingReader"]

Result = TypeVar("Result")


class Opener(Protocol):
    """Opens one blob at any byte offset."""

    def __call__(self, start: int, /) -> BlobReader:
        """Open the blob at ``start``; the caller closes the reader."""
        ...


class EarlyEnd(ConnectionLost):
    """A blob ended before its last byte, without an error of the connection."""


class ResumingReader:
    """Reads a blob, reopening it at the next byte after a lost connection.

    One thread at a time.
    """

    def __init__(
        self,
        opener: Opener,
        size: int,
        context: TransferContext,
        name: str,
        on_retry: Callable[[ConcilError], object] | None = None,
    ) -> None:
        """Read ``size`` bytes from ``opener``; ``on_retry`` is called after each loss."""
        self._opener = opener
        self._size = size
        self._abandon = context.abandon
        self._name = name
        self._retry = ProgressRetry(context.config.retry, context.cancel, on_retry)
        self._reader: BlobReader | None = None
        self._bytes_to_skip = (
            0  # bytes to discard: the source started before the requested position
        )
        self._total_bytes_read = (
            0  # includes bytes read again after a seek back: these count as progress, too
        )
        self.position = 0

    def seek(self, position: int) -> None:
        """Continue at ``position``; reopens the source if the position changes."""
        if position != self.position:
            self.close()
            self.position = position

    def readinto(self, buffer: memoryview) -> int:
        """Fill some of ``buffer``; 0 only at the end of the blob.

        Raises:
            ConcilError: the source failed permanently.
        """
        count = 0
        while self.position < self._size and not count:
            count = self._with_retry(lambda: self._read_once(buffer))
        self.position += count
        self._total_bytes_read += count
        return count

    def open(self) -> None:
        """Open the blob at the current position, which may take a while.

        Raises:
            ConcilError: the source failed permanently.
        """
        if self.position < self._size:
            self._with_retry(self._open_reader)

    def close(self) -> None:
        """Close the connection or file."""
        if self._reader is not None:
            self._reader.close()
        self._reader = None

    def _with_retry(self, step: Callable[[], Result]) -> Result:
        """Run a step that uses the source; retry it after a loss."""
        while True:
            if self._abandon.is_set():
                raise Cancelled(f"{self._name}: cancelled")
            try:
                return step()
            except ConcilError as error:
                self.close()
                self._retry.wait_or_raise(error, self._total_bytes_read, self._name)

    def _open_reader(self) -> BlobReader:
        reader = self._reader
        if reader is None:
            reader = self._reader = self._opener(self.position)
            self._bytes_to_skip = self.position - reader.start
            if self._bytes_to_skip < 0:
                raise ProtocolViolation(
                    f"{self._name}: requested byte {self.position}, received byte {reader.start}"
                )
        return reader

    def _read_once(self, buffer: memoryview) -> int:
        reader = self._open_reader()
        target = buffer[: min(len(buffer), self._bytes_to_skip or self._size - self.position)]
        count = reader.readinto(target)
        if count == 0:
            raise EarlyEnd(f"{self._name}: ended at byte {self.position} of {self._size}")
        if self._bytes_to_skip:
            self._bytes_to_skip -= count
            return 0
        return count
