"""Protocols of an open blob, and of the function that opens it."""

from __future__ import annotations

from typing import Protocol

__all__ = ["BlobReader", "RangeOpener"]


class BlobReader(Protocol):
    """An open blob, read from an offset. One thread at a time; whoever opened it closes it."""

    @property
    def start(self) -> int:
        """Offset of the first byte returned: 0 if the store cannot start at another offset."""
        ...

    def readinto(self, buffer: memoryview, /) -> int:
        """Read up to ``len(buffer)`` bytes; return their number, 0 at the end.

        Raises:
            ConnectionLost: the connection was lost; open the blob again at the next byte.
        """
        ...

    def close(self) -> None:
        """Close the connection or file, whether everything was read or not."""
        ...


class RangeOpener(Protocol):
    """Opens one blob at any byte. Any thread may call it."""

    def __call__(self, start: int, stop: int | None = None, /) -> BlobReader:
        """Open the bytes from ``start`` up to ``stop``, half-open; None: up to the end."""
        ...
