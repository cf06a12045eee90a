"""CachedSource: a source whose blobs are read from the cache where possible."""

from __future__ import annotations

from typing import TYPE_CHECKING

from concil.config import MIB
from concil.oci.blob_reader import BlobReader
from concil.oci.descriptor import Descriptor
from concil.store.protocols import Source
from concil.store.source_wrapper import SourceWrapper

if TYPE_CHECKING:  # imported by those who open a cache
    from concil.store.cache.blob_cache import BlobCache
    from concil.store.cache.cache_file import CacheFile


class CachedSource(SourceWrapper):
    """A source whose blobs are read from the cache, and written to it. Any thread."""

    reads_in_order = True

    def __init__(self, source: Source, cache: BlobCache) -> None:
        """Read from ``source`` what ``cache`` does not have."""
        super().__init__(source)
        self._cache = cache

    def open_blob(self, blob: Descriptor, start: int = 0, stop: int | None = None) -> BlobReader:
        """Open a blob of the cache, or of the source."""
        cached = self._cache.open_blob(blob, start, stop)
        if cached is not None:
            return cached
        file = self._cache.begin_blob(blob)
        if file is None:
            return self._source.open_blob(blob, start, stop)
        reader = _FillingReader(self._source, self._cache, file, start, stop)
        try:
            if file.position <= start:  # errors of the source are raised here
                reader.open_stream()
        except BaseException:
            reader.close()
            raise
        return reader


class _FillingReader:
    """Reads the known bytes of a blob from its file, and then the source, which it keeps.

    One thread at a time.
    """

    def __init__(
        self, source: Source, cache: BlobCache, file: CacheFile, start: int, stop: int | None
    ) -> None:
        self.start = self._position = start
        self._source = source
        self._cache = cache
        self._file: CacheFile | None = file
        self._blob = file.blob
        self._stop = stop
        self._stream: BlobReader | None = None

    def readinto(self, buffer: memoryview, /) -> int:
        """Read up to ``len(buffer)`` bytes; return their number, 0 at the end."""
        stop = self._blob.size if self._stop is None else self._stop
        buffer = buffer[: stop - self._position]
        if not len(buffer):
            return 0
        count = 0 if self._stream is not None else self._read_file(buffer)
        if not count:
            stream = self._stream or self.open_stream()
            count = stream.readinto(buffer)
            if self._file is not None:
                self._cache.append(self._file, self._position, buffer[:count])
        self._position += count
        return count

    def open_stream(self) -> BlobReader:
        """Open the source at the next byte."""
        stream = self._source.open_blob(self._blob, self._position, self._stop)
        try:
            _skip(stream, self._position - stream.start)
        except BaseException:
            stream.close()
            raise
        self._stream = stream
        return stream

    def close(self) -> None:
        """Close the connection to the source."""
        stream, self._stream = self._stream, None
        file, self._file = self._file, None
        if stream is not None:
            stream.close()
        if file is not None:
            self._cache.end_blob(file)

    def _read_file(self, buffer: memoryview) -> int:
        if self._file is None:
            return 0
        try:
            return self._file.read(self._position, buffer)
        except OSError:
            return 0  # the source has the bytes as well


def _skip(stream: BlobReader, count: int) -> None:
    """Read the bytes that a source sends before those that were requested."""
    buffer = memoryview(bytearray(min(max(count, 0), MIB)))
    while count > 0:
        skipped = stream.readinto(buffer[: min(count, len(buffer))])
        if not skipped:
            return  # the next read finds the end
        count -= skipped
