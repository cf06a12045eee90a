"""Decompresses a stream whose first bytes say how it was compressed, a piece at a time."""

from __future__ import annotations

import bz2
import importlib
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from concil.config import KIB, MIB
from concil.errors import ContentError, InvalidManifest, StoreError, shown

GZIP = b"\x1f\x8b"
BZIP2 = b"BZh"
XZ = b"\xfd7zXZ\x00"
ZSTD = b"\x28\xb5\x2f\xfd"
MAGIC_SIZE = 6  # bytes by which compressions are told apart
_MAGIC = 4  # bytes by which a further stream of the same compression is known
RATIO = 200  # of what comes out to what went in; source code in a layer has 10, zeros have 1000
FLOOR = 1024 * MIB  # bytes that may come out of however little
_PIECE = 64 * KIB  # compressed bytes that are read at once
_ZSTD_MODULES = ("compression.zstd", "backports.zstd")  # Python 3.14, and the same for others


class Decompressor(Protocol):
    """What `bz2`, `lzma` and `compression.zstd` have in common."""

    @property
    def eof(self) -> bool:
        """Whether the stream has ended."""
        ...

    @property
    def unused_data(self) -> bytes:
        """What follows the end of the stream."""
        ...

    @property
    def needs_input(self) -> bool:
        """Whether there is no output without more input."""
        ...

    def decompress(self, data: bytes, /, max_length: int = -1) -> bytes:
        """Decompress some bytes; what is too much for now is kept."""
        ...


class _Gzip:
    """`zlib` with the interface of the others."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return self._stream.eof

    @property
    def unused_data(self) -> bytes:
        return self._stream.unused_data

    @property
    def needs_input(self) -> bool:
        return not self._stream.unconsumed_tail

    def decompress(self, data: bytes, /, max_length: int = -1) -> bytes:
        return self._stream.decompress(self._stream.unconsumed_tail + data, max(0, max_length))


def plain_stream(source: io.RawIOBase, subject: str) -> io.RawIOBase:
    """Return the decompressed bytes of ``source``: gzip, bzip2, xz, zstd, or none of them.

    Args:
        subject: what it is, for messages.
    Raises:
        StoreError: it is zstd, and this Python cannot decompress that.
    """
    start = _exactly(source, MAGIC_SIZE)
    if start.startswith(GZIP):
        return _Plain(_decompressed(source, start, _Gzip, subject))
    if start.startswith(BZIP2):
        return _Plain(_decompressed(source, start, bz2.BZ2Decompressor, subject))
    if start.startswith(XZ):
        return _Plain(_decompressed(source, start, _xz, subject))
    if _is_zstd(start):
        return _Plain(_decompressed(source, start, _zstd(subject), subject))
    return _Plain(_unchanged(source, start))


def _xz() -> Decompressor:
    return lzma.LZMADecompressor(memlimit=256 * MIB)


def _zstd(subject: str) -> Callable[[], Any]:
    for name in _ZSTD_MODULES:
        try:
            found: Callable[[], Any] = importlib.import_module(name).ZstdDecompressor
        except ImportError:
            continue
        return found
    raise StoreError(
        f"{shown(subject)} is compressed with zstd, which this Python cannot decompress",
        remedy="use Python 3.14 or newer, or install backports.zstd",
    )


def _exactly(source: io.RawIOBase, size: int) -> bytes:
    """Read so many bytes, fewer only at the end."""
    found = b""
    while len(found) < size and (piece := source.read(size - len(found))):
        found += piece
    return found


def _unchanged(source: io.RawIOBase, start: bytes) -> Iterator[bytes]:
    yield start
    while piece := source.read(_PIECE):
        yield piece


def _decompressed(
    source: io.RawIOBase, start: bytes, make: Callable[[], Decompressor], subject: str
) -> Iterator[bytes]:
    """Yield a MiB at most at a time, of one compressed stream or several in a row.

    Raises:
        ContentError: it is damaged, or more comes out than of anything honest.
    """
    stream, came, went = make(), 0, len(start)
    piece, ended = start, False
    while True:
        if stream.eof:
            # Some writers pad with zeros; what is no further stream is no content.
            rest = (stream.unused_data + piece).lstrip(b"\0")
            while len(rest) < _MAGIC and (more := source.read(_PIECE)):
                went += len(more)
                rest = (rest + more).lstrip(b"\0")
            if not _goes_on(start, rest):
                return
            stream, piece = make(), rest
        elif stream.needs_input and not piece:
            piece = source.read(_PIECE) or b""
            went += len(piece)
            ended = not piece
        try:
            out = stream.decompress(piece, MIB)
        except (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError) as error:
            raise InvalidManifest(
                f"{shown(subject)} is damaged: {error}", remedy="fetch or build it again"
            ) from error
        piece = b""
        if ended and not out and not stream.eof:
            raise InvalidManifest(
                f"{shown(subject)} ends in the middle of its compression",
                remedy="fetch or build it again",
            )
        came += len(out)
        if came > max(FLOOR, RATIO * went):
            raise ContentError(
                f"{shown(subject)} unpacks to more than {came - len(out)} bytes",
                remedy="it may be an attack; see what is in it before you trust its source",
            )
        if out:
            yield out


def _goes_on(start: bytes, rest: bytes) -> bool:
    """Whether a further stream of the same kind begins in ``rest``."""
    if _is_zstd(start):
        return _is_zstd(rest)
    return rest.startswith(start[:2])


def _is_zstd(start: bytes) -> bool:
    """Whether a frame of zstd begins here; a skippable one comes first in what pzstd writes."""
    return start.startswith(ZSTD) or (start[1:4] == b"\x2a\x4d\x18" and start[0] >> 4 == 5)


class _Plain(io.RawIOBase):
    """The pieces of an iterator as a file-like object."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        super().__init__()
        self._pieces = pieces
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:  # noqa: ANN401 - whatever io hands over
        view = memoryview(buffer).cast("B")
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._rest = memoryview(piece)
        count = min(len(view), len(self._rest))
        view[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count
