"""The compressions of layers and archives, told apart by their first bytes."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from concil.config import MIB
from concil.errors import StoreError, shown

MAGIC_SIZE = 10  # bytes by which compressions are told apart
# xz -9 needs 65 MiB. zstd refuses windows of more than 128 MiB by itself.
_XZ_MEMORY = 128 * MIB  # bytes


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
            otherwise: what can be done about it where this Python cannot unpack it.
        Raises:
            StoreError: this Python cannot.
        """
        try:
            return self.open()
        except ImportError as error:
            install = f"pip install 'concil[{self.extra}]', or " if self.extra else ""
            raise StoreError(
                f"{shown(subject)} is packed with {self.name}, which this Python cannot unpack",
                remedy=f"{install}{otherwise}",
            ) from error


def packing_of(start: bytes) -> Packing | None:
    """Return the compression of what begins with these MAGIC_SIZE bytes; None: it has none."""
    return next((packing for packing in _PACKINGS if packing.magic.match(start)), None)


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
