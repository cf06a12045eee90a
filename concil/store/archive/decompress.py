"""Decompresses a stream in any supported format, within bounds."""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from concil.config import KIB, MIB
from concil.errors import ContentError, InvalidManifest, StoreError, safe_repr
from concil.runtime.dataclass import dataclass

MAGIC_SIZE = 10  # bytes needed to detect a compression
MAX_RATIO = 200  # output to input; source code in a layer reaches 10, zeros reach 1000
MIN_OUTPUT_LIMIT = 1024 * MIB  # bytes of output that are allowed for any input
# xz -9 needs 65 MiB. zstd itself rejects windows of more than 128 MiB.
_XZ_MEMORY_LIMIT = 128 * MIB  # bytes
_READ_SIZE = 64 * KIB  # compressed bytes per read
_MAX_END_READS = 100  # of a decompressed stream at its end; no regular reader needs more
_AGAIN = "fetch or build it again"


class Decompressor(Protocol):
    """One compressed stream, with the interface of the standard library. One thread at a time."""

    @property
    def eof(self) -> bool:
        """Whether the end of the stream was reached."""
        ...

    @property
    def needs_input(self) -> bool:
        """Whether more input is needed before there is more output."""
        ...

    @property
    def unused_data(self) -> bytes:
        """Bytes after the end of the stream."""
        ...

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """Return up to ``max_length`` decompressed bytes."""
        ...


@dataclass(frozen=True, slots=True)
class Compression:
    """A compression format."""

    name: str
    program: str  # the command that decompresses a file
    magic: re.Pattern[bytes]
    create: Callable[[], Decompressor]  # raises ImportError if unsupported
    extra: str = ""  # the extra of concil that installs support for the format

    def open_stream(self, subject: str, remedy: str) -> Decompressor:
        """Open a decompressor.

        Args:
            subject: name of the compressed content, for messages.
            remedy: what to do if this Python cannot decompress it.
        Raises:
            StoreError: this Python cannot decompress it.
        """
        try:
            return self.create()
        except ImportError as error:
            install = f"pip install 'concil[{self.extra}]', or " if self.extra else ""
            raise StoreError(
                f"{safe_repr(subject)} is compressed with {self.name}, which this Python cannot "
                "decompress",
                remedy=f"{install}{remedy}",
            ) from error


def detect_compression(start: bytes) -> Compression | None:
    """Detect a compression from the first MAGIC_SIZE bytes of a file; None if there is none."""
    return next(
        (compression for compression in _COMPRESSIONS if compression.magic.match(start)), None
    )


class BoundedDecompressor:
    """Decompresses one stream, or several streams in a row, within limits.

    One thread at a time.
    """

    def __init__(
        self,
        compression: Compression,
        subject: str,
        *,
        size: int = 0,
        remedy: str = "decompress it first",
        ignore_trailing: bool = False,
    ) -> None:
        """Open the first stream.

        Args:
            subject: name of the compressed content, for messages.
            size: compressed bytes, if known: MAX_RATIO is then applied to the whole content.
            remedy: what to do if this Python cannot decompress it.
            ignore_trailing: ignore anything after the last stream. Only for content that is
                verified by other means, because a damaged second stream looks the same.
        Raises:
            StoreError: this Python cannot decompress it.
        """
        self._compression = compression
        self._subject = subject
        self._size = size
        self._remedy = remedy
        self._ignore_trailing = ignore_trailing
        self._went = 0  # bytes of input so far
        self._output_size = 0  # bytes of output so far
        self._behind: bytes | None = None  # bytes after the end of a stream; None: within a stream
        self._is_over = False  # the rest of the input is ignored
        self._stream = compression.open_stream(subject, remedy)

    def feed(self, data: bytes | memoryview) -> Iterator[bytes]:
        """Yield the decompressed bytes of the next input, at most 1 MiB at a time.

        Raises:
            ContentError: the input is damaged, or its output exceeds the limit.
        """
        self._went += len(data)
        rest = bytes(data)
        while not self._is_over:
            if self._behind is not None:
                rest = self._next_stream(rest)
            if not rest and (self._stream.eof or self._stream.needs_input):
                return
            output = self._decompress(rest)
            rest = b""
            if self._stream.eof:
                self._behind = b""
                rest = self._stream.unused_data
            self._output_size += len(output)
            max_output = max(MIN_OUTPUT_LIMIT, MAX_RATIO * max(self._size, self._went))
            if self._output_size > max_output:
                raise ContentError(
                    f"{safe_repr(self._subject)} decompresses to more than {max_output} bytes",
                    remedy="it may be an attack; check its content before you trust its source",
                )
            if output:
                yield output

    def check_complete(self) -> None:
        """Check that the last stream is complete.

        Raises:
            ContentError: the stream is truncated, or followed by other data.
        """
        if self._behind and not self._is_over:
            self._refuse_trailing()
        elif self._behind is None and not self._stream.eof:
            raise InvalidManifest(
                f"{safe_repr(self._subject)} is truncated: it ends in the middle of its "
                f"{self._compression.name}",
                remedy=_AGAIN,
            )

    def _next_stream(self, piece: bytes) -> bytes:
        """Open the next stream, if there is one; return the bytes to decompress."""
        # tar and other programs leave zeros after the last stream.
        trailing = ((self._behind or b"") + piece).lstrip(b"\0")
        if self._compression.magic.match(trailing):
            self._behind = None
            self._stream = self._compression.open_stream(self._subject, self._remedy)
            return trailing
        self._behind = trailing[:MAGIC_SIZE]
        if len(trailing) >= MAGIC_SIZE:
            self._refuse_trailing()
        return b""

    def _refuse_trailing(self) -> None:
        if not self._ignore_trailing:
            raise InvalidManifest(
                f"{safe_repr(self._subject)} is damaged: data that is not "
                f"{self._compression.name} follows its end",
                remedy=_AGAIN,
            )
        self._is_over = True

    def _decompress(self, data: bytes) -> bytes:
        try:
            return self._stream.decompress(data, MIB)
        except MemoryError:
            raise
        except Exception as error:  # each library raises its own errors
            raise InvalidManifest(
                f"{safe_repr(self._subject)} is damaged: {error}", remedy=_AGAIN
            ) from error


def open_decompressed(source: io.RawIOBase, subject: str) -> io.RawIOBase:
    """Return the decompressed bytes of ``source``, whether it is compressed or not.

    Bytes after the last compressed stream are ignored, because ``source`` is verified.

    Args:
        subject: name of the content, for messages.
    Raises:
        StoreError: this Python cannot decompress it.
    """
    start = b""
    while len(start) < MAGIC_SIZE and (piece := source.read(MAGIC_SIZE - len(start))):
        start += piece
    compression = detect_compression(start)
    if compression is None:
        return _IteratorReader(_pieces(source, start), subject)
    remedy = "use Python 3.14 or newer"
    decompressor = BoundedDecompressor(compression, subject, remedy=remedy, ignore_trailing=True)
    return _IteratorReader(_inflated(decompressor, _pieces(source, start)), subject)


def _pieces(source: io.RawIOBase, start: bytes) -> Iterator[bytes]:
    yield start
    while piece := source.read(_READ_SIZE):
        yield piece


def _inflated(inflater: BoundedDecompressor, pieces: Iterator[bytes]) -> Iterator[bytes]:
    for piece in pieces:
        yield from inflater.feed(piece)
    inflater.check_complete()


class _IteratorReader(io.RawIOBase):
    """The blocks of an iterator as a file-like object."""

    def __init__(self, blocks: Iterator[bytes], subject: str) -> None:
        super().__init__()
        self._blocks = blocks
        self._subject = subject
        self._buffered = memoryview(b"")
        self._end_count = 0  # reads at the end

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:  # noqa: ANN401 - whatever io hands over
        view = memoryview(buffer).cast("B")
        while not self._buffered:
            piece = next(self._blocks, None)
            if piece is None:
                self._end_count += 1
                # tarfile skips a file whose header says 2**60 bytes by as many reads.
                if self._end_count > _MAX_END_READS:
                    raise InvalidManifest(
                        f"{safe_repr(self._subject)} is truncated: it ends within a file",
                        remedy=_AGAIN,
                    )
                return 0
            self._buffered = memoryview(piece)
        count = min(len(view), len(self._buffered))
        view[:count] = self._buffered[:count]
        self._buffered = self._buffered[count:]
        return count


class _GzipDecompressor:
    """Gives zlib's gzip decompressor the interface of the other decompressors."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(wbits=31)
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._stream.eof

    @property
    def unused_data(self) -> bytes:
        return self._stream.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        out = self._stream.decompress(self._stream.unconsumed_tail + data, max_length)
        # If the output is exactly as long as requested, zlib may hold back more.
        self.needs_input = not self._stream.unconsumed_tail and len(out) < max_length
        return out


def _open_bzip2() -> Decompressor:
    import bz2  # noqa: PLC0415 - some builds of Python are without it

    return bz2.BZ2Decompressor()


def _open_xz() -> Decompressor:
    import lzma  # noqa: PLC0415 - some builds of Python are without it

    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY_LIMIT)


def _open_zstd() -> Decompressor:
    try:
        from compression import zstd  # noqa: PLC0415 - from Python 3.14 on
    except ImportError:
        from backports import zstd  # noqa: PLC0415 - an extra
    decoder: Decompressor = zstd.ZstdDecompressor()
    return decoder


GZIP_MAGIC = Compression("gzip", "gunzip", re.compile(rb"\x1f\x8b"), _GzipDecompressor)
_COMPRESSIONS = (
    GZIP_MAGIC,
    Compression(
        "zstd",
        "unzstd",
        # A frame, or a skippable frame before one: pzstd files begin with that.
        re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18"),
        _open_zstd,
        extra="zstd",
    ),
    # With the first block or the end marker, because "BZh" may also begin a file name in a tar.
    Compression(
        "bzip2", "bunzip2", re.compile(rb"BZh[1-9](1AY&SY|\x17\x72\x45\x38\x50\x90)"), _open_bzip2
    ),
    Compression("xz", "unxz", re.compile(rb"\xfd7zXZ\x00"), _open_xz),
)
