"""Bytes in memory as the source of a blob."""

from __future__ import annotations

from concil.oci.digest import Digest
from concil.transfer.blob.source import BlobSource

__all__ = ["MemoryReader", "memory_source"]


class MemoryReader:
    """Reads bytes in memory as a BlobReader. One thread at a time."""

    def __init__(self, data: memoryview, start: int) -> None:
        """Read ``data``, whose first byte is the blob's byte ``start``."""
        self.start = start
        self._rest = data

    def readinto(self, buffer: memoryview, /) -> int:
        """Copy up to ``len(buffer)`` bytes; return their number, 0 at the end."""
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    def close(self) -> None:
        """Release the bytes."""
        self._rest = self._rest[:0]


def memory_source(
    data: bytes | bytearray | memoryview,
    name: str,
    *,
    base: int = 0,
    digest: Digest | None = None,
) -> BlobSource:
    """Return a blob, or a part of one, whose bytes are in memory.

    Args:
        name: of the blob in messages.
        base: position of the first byte in the blob; bytes before it cannot be read.
        digest: of the blob; None: it is not known.
    """
    view = memoryview(data).cast("B")

    def open_range(start: int, stop: int | None = None, /) -> MemoryReader:
        return MemoryReader(view[start - base : None if stop is None else stop - base], start)

    return BlobSource(open_range, base + len(view), digest, name)
