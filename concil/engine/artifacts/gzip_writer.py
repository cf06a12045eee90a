"""Writes a gzip file fast where its content does not compress."""

from __future__ import annotations

import struct
import zlib
from typing import IO, Protocol

from concil.config import KIB, MIB
from concil.engine.blobs.temporary import write_temporary
from concil.oci.digest import Verifier

# No name and no time: equal content gives equal bytes. Source: RFC 1952, 2.3.
_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
_LAST_BLOCK = b"\x01\x00\x00\xff\xff"  # stored and empty. Source: RFC 1951, 3.2.4
_MAX_STORED = 0xFFFF  # bytes of a stored block
_BLOCK_SIZE = MIB  # bytes that are compressed or stored as a whole
_SAMPLE_SIZE = 64 * KIB
_MAX_RATIO = 0.97  # of a sample; what compresses less is stored


class _Compressor(Protocol):
    def compress(self, data: bytes | bytearray | memoryview, /) -> bytes: ...

    def flush(self, mode: int = ..., /) -> bytes: ...


class GzipWriter:
    """Compresses and hashes what is written. One thread at a time.

    Weights of models and images do not compress, and zlib takes ten times longer to find that out
    than to hash them. So a block whose beginning does not compress is stored as it is. The result
    depends only on the content.
    """

    def __init__(self, file: IO[bytes]) -> None:
        """Append to ``file``, which is unbuffered."""
        self.plain, self.compressed = Verifier(), Verifier()
        self._file = file
        self._pending = bytearray()  # the bytes of a block that is not complete
        self._compressor: _Compressor | None = None  # of the blocks before, if they compress
        self._checksum = 0
        self._append(_HEADER)

    def write(self, data: bytes | memoryview) -> None:
        """Add some bytes."""
        self._pending += data
        if len(self._pending) >= _BLOCK_SIZE:
            with memoryview(self._pending) as view:
                end = len(view) - len(view) % _BLOCK_SIZE
                for start in range(0, end, _BLOCK_SIZE):
                    self._write_block(view[start : start + _BLOCK_SIZE])
            del self._pending[:end]

    def finish(self) -> None:
        """Write the last block and the checksum."""
        if self._pending:
            with memoryview(self._pending) as view:
                self._write_block(view)
        compressor = self._compressor
        self._append(_LAST_BLOCK if compressor is None else compressor.flush(zlib.Z_FINISH))
        self._append(struct.pack("<II", self._checksum, self.plain.position & 0xFFFFFFFF))

    def _write_block(self, block: memoryview) -> None:
        self.plain.update(block)
        self._checksum = zlib.crc32(block, self._checksum)
        sample = block[:_SAMPLE_SIZE]
        if len(zlib.compress(sample, 1)) <= _MAX_RATIO * len(sample):
            if self._compressor is None:
                self._compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
            self._append(self._compressor.compress(block))
            return
        if self._compressor is not None:
            self._append(self._compressor.flush(zlib.Z_SYNC_FLUSH))  # ends at a whole byte
            self._compressor = None
        for start in range(0, len(block), _MAX_STORED):
            piece = block[start : start + _MAX_STORED]
            self._append(struct.pack("<BHH", 0, len(piece), len(piece) ^ _MAX_STORED))
            self._append(piece)

    def _append(self, data: bytes | memoryview) -> None:
        self.compressed.update(data)
        write_temporary(self._file, data)
