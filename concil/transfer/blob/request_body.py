"""Request body that streams one chunk of a blob."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from concil.config import KIB
from concil.errors import ConcilError

_MIN_BLOCK_SIZE = 16 * KIB


class PositionedReader(Protocol):
    """A blob that is read sequentially."""

    position: int

    def open(self) -> None:
        """Open the blob at the current position, which may take a while."""
        ...

    def readinto(self, buffer: memoryview) -> int:
        """Fill some of ``buffer``; 0 only at the end."""
        ...


class ChunkBody:
    """The next chunk of a blob as a request body, hashed and counted while it is sent.

    A write to a socket must end within the idle timeout as a whole, so blocks are no larger
    than the link transmits in about a second.
    """

    def __init__(
        self,
        reader: PositionedReader,
        length: int,
        buffer: memoryview,
        on_block: Callable[[memoryview, int], None],
    ) -> None:
        """Provide ``length`` bytes from the current position of ``reader``.

        Args:
            on_block: called with each block and its position before the block is returned; an
                exception ends the body before its last byte, so that nothing is committed.
        """
        self._reader = reader
        self._length = length
        self._remaining = length
        self._buffer = buffer
        self._on_block = on_block
        self._block_size = min(len(buffer), 256 * KIB)
        self._last_read = time.monotonic()
        self.source_error: ConcilError | None = None  # distinguishes it from the destination's

    def open(self) -> None:
        """Open the source, which otherwise happens at the first `read`."""
        try:
            self._reader.open()
        except ConcilError as error:
            self.source_error = error
            raise

    def __len__(self) -> int:
        """Return the length of the chunk in bytes."""
        return self._length

    def read(self, size: int = -1, /) -> memoryview:
        """Return the next block, valid until the next read."""
        self._adapt_block_size()
        block_size = min(
            self._remaining, self._block_size if size < 0 else min(size, self._block_size)
        )
        if block_size == 0:
            return self._buffer[:0]
        start = self._reader.position
        try:
            count = self._reader.readinto(self._buffer[:block_size])
            block = self._buffer[:count]
            self._on_block(block, start)
        except ConcilError as error:
            self.source_error = error
            raise
        self._remaining -= count
        # Time spent in the source or in a bandwidth limit says nothing about the link.
        self._last_read = time.monotonic()
        return block

    def _adapt_block_size(self) -> None:
        """Double or halve the block size, by how long the last block took to send."""
        elapsed = time.monotonic() - self._last_read
        if elapsed < 0.1:
            self._block_size = min(len(self._buffer), self._block_size * 2)
        elif elapsed > 1.0:
            self._block_size = max(_MIN_BLOCK_SIZE, self._block_size // 2)
