"""Decompresses layers and archives, piece by piece and within bounds."""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from concil.config import KIB, MIB
from concil.errors import ContentError, InvalidManifest, StoreError, shown

MAGIC_SIZE = 10  # bytes by which compressions are told apart
RATIO = 200  # of what comes out to what went in; source code in a layer has 10, zeros have 1000
FLOOR = 1024 * MIB  # bytes that may come out of however little
# xz -9 needs 65 MiB. zstd refuses windows of more than 128 MiB by itself.
_XZ_MEMORY = 128 * MIB  # bytes
_PIECE = 64 * KIB  # compressed bytes that are read at once
_AGAIN = "fetch or build it again"


class Decoder(Protocol):
    """One compressed stream, as the decompressors of the standard library. One thread at a time."""

    @property
    def eof(self) -> bool:
        """Whether the end of the stream was reached."""
        ...

    @property
    def needs_input(self) -> bool:
        """Whether nothing more comes out without more going in."""
        ...

    @property
    def unused_data(self) -> bytes:
        """What was behind the end."""
        ...

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """Return up to ``max_length`` bytes that come out."""
        ...


@dataclass(frozen=True, slots=True)
class Packing:
    """A compression."""

    name: str
    program: str  # that unpacks a file
    magic: re.Pattern[bytes]
    open: Callable[[], Decoder]  # raises ImportError where this Python cannot
    extra: str = ""  # of concil, which brings it to a Python that cannot

    def begin(self, subject: str, otherwise: str) -> Decoder:
        """Begin a stream.

        Args:
            subject: what it is, for messages.
            otherwise: what can be done about it where this Python cannot decompress it.
        Raises:
            StoreError: this Python cannot.
        """
        try:
            return self.open()
        except ImportError as error:
            install = f"pip install 'concil[{self.extra}]', or " if self.extra else ""
            raise StoreError(
                f"{shown(subject)} is compressed with {self.name}, which this Python cannot "
                "decompress",
                remedy=f"{install}{otherwise}",
            ) from error


def packing_of(start: bytes) -> Packing | None:
    """Return the compression of what begins with these MAGIC_SIZE bytes; None: it has none."""
    return next((packing for packing in _PACKINGS if packing.magic.match(start)), None)


class Inflater:
    """The decompressed bytes of one subject: of one stream, or of several in a row.

    One thread at a time.
    """

    def __init__(
        self,
        packing: Packing,
        subject: str,
        *,
        size: int = 0,
        otherwise: str = "unpack it first",
        ignore_trailing: bool = False,
    ) -> None:
        """Begin the first stream.

        Args:
            subject: what it is, for messages.
            size: bytes that will go in, if known: RATIO then holds for the whole only.
            otherwise: what can be done where this Python cannot decompress it.
            ignore_trailing: whatever follows the last stream is no error. For content that
                is verified by other means, for a damaged second stream looks like that, too.
        Raises:
            StoreError: this Python cannot decompress it.
        """
        self._packing = packing
        self._subject = subject
        self._size = size
        self._otherwise = otherwise
        self._ignore_trailing = ignore_trailing
        self._went = 0  # bytes that went in
        self._came = 0  # bytes that came out
        self._behind: bytes | None = None  # after the end of a stream; None: within one
        self._is_over = False  # what follows is ignored
        self._stream = packing.begin(subject, otherwise)

    def feed(self, piece: bytes | memoryview) -> Iterator[bytes]:
        """Yield what comes out for the next bytes, at most a MiB at a time.

        Raises:
            ContentError: it is damaged, or more comes out than of anything honest.
        """
        self._went += len(piece)
        rest = bytes(piece)
        while not self._is_over:
            if self._behind is not None:
                rest = self._next_stream(rest)
            if not rest and (self._stream.eof or self._stream.needs_input):
                return
            out = self._decompress(rest)
            rest = b""
            if self._stream.eof:
                self._behind = b""
                rest = self._stream.unused_data
            self._came += len(out)
            most = max(FLOOR, RATIO * max(self._size, self._went))
            if self._came > most:
                raise ContentError(
                    f"{shown(self._subject)} unpacks to more than {most} bytes",
                    remedy="it may be an attack; see what is in it before you trust its source",
                )
            if out:
                yield out

    def end(self) -> None:
        """See that the last stream has come to its end.

        Raises:
            ContentError: it is truncated, or something else follows it.
        """
        if self._behind and not self._is_over:
            self._refuse_trailing()
        elif self._behind is None and not self._stream.eof:
            raise InvalidManifest(
                f"{shown(self._subject)} is truncated: it ends in the middle of its "
                f"{self._packing.name}",
                remedy=_AGAIN,
            )

    def _next_stream(self, piece: bytes) -> bytes:
        """Begin a further stream where there is one; return what is to be decompressed."""
        # Behind the last stream tar and others leave zeros.
        behind = ((self._behind or b"") + piece).lstrip(b"\0")
        if self._packing.magic.match(behind):
            self._behind = None
            self._stream = self._packing.begin(self._subject, self._otherwise)
            return behind
        self._behind = behind[:MAGIC_SIZE]
        if len(behind) >= MAGIC_SIZE:
            self._refuse_trailing()
        return b""

    def _refuse_trailing(self) -> None:
        if not self._ignore_trailing:
            raise InvalidManifest(
                f"{shown(self._subject)} is damaged: something that is no {self._packing.name} "
                "follows its end",
                remedy=_AGAIN,
            )
        self._is_over = True

    def _decompress(self, data: bytes) -> bytes:
        try:
            return self._stream.decompress(data, MIB)
        except MemoryError:
            raise
        except Exception as error:  # each library has errors of its own, that of an extra, too
            raise InvalidManifest(
                f"{shown(self._subject)} is damaged: {error}", remedy=_AGAIN
            ) from error


def plain_stream(source: io.RawIOBase, subject: str) -> io.RawIOBase:
    """Return the decompressed bytes of ``source``, which may have any compression or none.

    Bytes behind the last compressed stream are not read: ``source`` verifies what it is.

    Args:
        subject: what it is, for messages.
    Raises:
        StoreError: this Python cannot decompress it.
    """
    start = b""
    while len(start) < MAGIC_SIZE and (piece := source.read(MAGIC_SIZE - len(start))):
        start += piece
    packing = packing_of(start)
    if packing is None:
        return _Plain(_pieces(source, start))
    otherwise = "use Python 3.14 or newer"
    inflater = Inflater(packing, subject, otherwise=otherwise, ignore_trailing=True)
    return _Plain(_inflated(inflater, _pieces(source, start)))


def _pieces(source: io.RawIOBase, start: bytes) -> Iterator[bytes]:
    yield start
    while piece := source.read(_PIECE):
        yield piece


def _inflated(inflater: Inflater, pieces: Iterator[bytes]) -> Iterator[bytes]:
    for piece in pieces:
        yield from inflater.feed(piece)
    inflater.end()


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


class _Gzip:
    """What zlib has for gzip, in the form of the other decompressors."""

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
        # With exactly as much as was asked for, more may be held back.
        self.needs_input = not self._stream.unconsumed_tail and len(out) < max_length
        return out


def _open_bzip2() -> Decoder:
    import bz2  # noqa: PLC0415 - some builds of Python are without it

    return bz2.BZ2Decompressor()


def _open_xz() -> Decoder:
    import lzma  # noqa: PLC0415 - some builds of Python are without it

    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)


def _open_zstd() -> Decoder:
    try:
        from compression import zstd  # noqa: PLC0415 - from Python 3.14 on
    except ImportError:
        from backports import zstd  # noqa: PLC0415 - an extra
    decoder: Decoder = zstd.ZstdDecompressor()
    return decoder


GZIP = Packing("gzip", "gunzip", re.compile(rb"\x1f\x8b"), _Gzip)
_PACKINGS = (
    GZIP,
    Packing(
        "zstd",
        "unzstd",
        # A frame, or what may stand in front of one and is skipped: pzstd begins so.
        re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18"),
        _open_zstd,
        extra="zstd",
    ),
    # With its first block or its end, for "BZh" alone may be the name of a file in a tar.
    Packing(
        "bzip2", "bunzip2", re.compile(rb"BZh[1-9](1AY&SY|\x17\x72\x45\x38\x50\x90)"), _open_bzip2
    ),
    Packing("xz", "unxz", re.compile(rb"\xfd7zXZ\x00"), _open_xz),
)
