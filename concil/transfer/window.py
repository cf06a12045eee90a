"""The next stretch of a blob as the body of a request."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from concil.config import KIB
from concil.errors import ConcilError

_LEAST_BLOCK = 16 * KIB


class Readable(Protocol):
    """A blob that is read in order."""

    position: int

    def readinto(self, buffer: memoryview) -> int:
        """Fill some of ``buffer``; 0 only at the end."""
        ...


class Window:
    """The next stretch of a blob as a request body: hashed and counted while it is sent.

    A write to a socket must end within the idle timeout as a whole, so a block is as
    large as the link carries in a fraction of a second.
    """

    def __init__(
        self,
        reader: Readable,
        length: int,
        buffer: memoryview,
        seen: Callable[[memoryview, int], None],
    ) -> None:
        """Let ``length`` bytes be read from where ``reader`` stands.

        Args:
            seen: told each piece and its position before it is handed out; what it
                raises ends the body before its last byte, so that nothing is committed.
        """
        self._reader = reader
        self._length = length
        self._left = length
        self._buffer = buffer
        self._seen = seen
        self._block = min(len(buffer), 256 * KIB)
        self._last = time.monotonic()
        self.failure: ConcilError | None = None  # the source's, not the destination's

    def __len__(self) -> int:
        """Bytes from the first to the last."""
        return self._length

    def read(self, size: int = -1, /) -> memoryview:
        """Return the next block, valid until the next read."""
        self._adapt()
        want = min(self._left, self._block if size < 0 else min(size, self._block))
        if want == 0:
            return self._buffer[:0]
        start = self._reader.position
        try:
            count = self._reader.readinto(self._buffer[:want])
            piece = self._buffer[:count]
            self._seen(piece, start)
        except ConcilError as error:
            self.failure = error
            raise
        self._left -= count
        # How long the source took, or a limit on bandwidth, says nothing of the link.
        self._last = time.monotonic()
        return piece

    def _adapt(self) -> None:
        """Double or halve the block by how long the last one took to be taken."""
        took = time.monotonic() - self._last
        if took < 0.1:
            self._block = min(len(self._buffer), self._block * 2)
        elif took > 1.0:
            self._block = max(_LEAST_BLOCK, self._block // 2)
