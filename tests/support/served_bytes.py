"""Serves bytes as a source does, counts them, and breaks off on purpose."""

from __future__ import annotations

import threading

from concil.errors import ConnectionLost


class ServedBytes:
    """Counts what its readers have read. Any thread."""

    def __init__(self) -> None:
        self.served = 0  # bytes
        self.open_count = 0  # readers that are not closed
        self.has_ranges = True  # otherwise each reader begins at 0
        self.breaks_at: int | None = None  # the position of one connection error
        self.lock = threading.Lock()

    def serve(self, content: bytes, start: int, stop: int | None) -> ServedReader:
        """Open a range, half-open."""
        with self.lock:
            self.open_count += 1
        return ServedReader(self, content[:stop], start if self.has_ranges else 0)


class ServedReader:
    """Reads bytes that are served. One thread at a time."""

    def __init__(self, source: ServedBytes, content: bytes, start: int) -> None:
        self.start = self._position = start
        self._source = source
        self._content = content

    def readinto(self, buffer: memoryview, /) -> int:
        source = self._source
        if source.breaks_at is not None and self._position >= source.breaks_at:
            source.breaks_at = None
            raise ConnectionLost("broken")
        data = self._content[self._position : self._position + len(buffer)]
        buffer[: len(data)] = data
        self._position += len(data)
        with source.lock:
            source.served += len(data)
        return len(data)

    def close(self) -> None:
        with self._source.lock:
            self._source.open_count -= 1
