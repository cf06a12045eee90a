"""Undoes gzip, a piece at a time and within bounds."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from concil.config import MIB
from concil.errors import ContentError, InvalidManifest, shown

GZIP = b"\x1f\x8b"
RATIO = 200  # of what comes out to what went in; source code in a layer has 10, zeros have 1000
FLOOR = 1024 * MIB  # bytes that may come out of however little
# What others pack with, and what unpacks it.
_OTHERS = {
    b"\x28\xb5\x2f\xfd": ("zstd", "zstd -d"),
    b"BZh": ("bzip2", "bunzip2"),
    b"\xfd7zXZ\x00": ("xz", "unxz"),
}
MAGIC_SIZE = 6  # bytes by which compressions are told apart


def other_packing(start: bytes) -> tuple[str, str] | None:
    """Tell by the first bytes what is not undone here: the name of it, and what undoes it."""
    return next((names for magic, names in _OTHERS.items() if start.startswith(magic)), None)


class Inflater:
    """The bytes of one gzip stream, of one member or several. One thread at a time."""

    def __init__(self, size: int, subject: str, *, floor: int = FLOOR) -> None:
        """Begin a stream.

        Args:
            size: bytes that will go in.
            subject: what it is, for messages.
            floor: bytes that may come out whatever goes in.
        """
        self._subject = subject
        self._most = max(floor, RATIO * size)
        self._came = 0  # bytes
        self._stream = zlib.decompressobj(wbits=31)

    def feed(self, piece: bytes | memoryview) -> Iterator[bytes]:
        """Yield what comes out for the next bytes, a MiB at most at a time.

        Raises:
            ContentError: it is no gzip, or more comes out than of anything honest.
        """
        rest = bytes(piece)
        while rest:
            if self._stream.eof:
                # Behind the last member tar and others leave zeros.
                rest = rest.lstrip(b"\0")
                if not rest:
                    return
                self._stream = zlib.decompressobj(wbits=31)
            try:
                out = self._stream.decompress(rest, MIB)
            except zlib.error as error:
                raise InvalidManifest(
                    f"{shown(self._subject)} is damaged: {error}",
                    remedy="fetch or build it again",
                ) from error
            rest = self._stream.unconsumed_tail or self._stream.unused_data
            self._came += len(out)
            if self._came > self._most:
                raise ContentError(
                    f"{shown(self._subject)} unpacks to more than {self._most} bytes",
                    remedy="it may be an attack; see what is in it before you trust its source",
                )
            if out:
                yield out

    def end(self) -> Iterator[bytes]:
        """Yield what is left at the end of the stream.

        Raises:
            ContentError: the stream is cut off.
        """
        while not self._stream.eof:
            out = self._stream.decompress(self._stream.unconsumed_tail, MIB)
            if not out:
                raise InvalidManifest(
                    f"{shown(self._subject)} ends in the middle of its gzip",
                    remedy="fetch or build it again",
                )
            yield out
