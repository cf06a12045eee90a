"""Undoes a compression, a piece at a time and within bounds."""

from __future__ import annotations

from collections.abc import Iterator

from concil.config import MIB
from concil.errors import ContentError, InvalidManifest, shown
from concil.store.packing import GZIP, Packing

RATIO = 200  # of what comes out to what went in; source code in a layer has 10, zeros have 1000
FLOOR = 1024 * MIB  # bytes that may come out of however little


class Inflater:
    """The bytes of one stream, of one member or several. One thread at a time."""

    def __init__(
        self,
        size: int,
        subject: str,
        packing: Packing = GZIP,
        otherwise: str = "unpack it first",
        *,
        floor: int = FLOOR,
    ) -> None:
        """Begin a stream.

        Args:
            size: bytes that will go in.
            subject: what it is, for messages.
            otherwise: what can be done where this Python cannot unpack it.
            floor: bytes that may come out whatever goes in.
        Raises:
            StoreError: this Python cannot unpack it.
        """
        self._subject = subject
        self._packing = packing
        self._otherwise = otherwise
        self._most = max(floor, RATIO * size)
        self._came = 0  # bytes
        self._stream = packing.begin(subject, otherwise)

    def feed(self, piece: bytes | memoryview) -> Iterator[bytes]:
        """Yield what comes out for the next bytes, a MiB at most at a time.

        Raises:
            ContentError: it is damaged, or more comes out than of anything honest.
        """
        rest = bytes(piece)
        while rest or not self._stream.needs_input:
            if self._stream.eof:
                # Behind the last member tar and others leave zeros.
                rest = rest.lstrip(b"\0")
                if not rest:
                    return
                self._stream = self._packing.begin(self._subject, self._otherwise)
            out = self._decompress(rest)
            rest = self._stream.unused_data if self._stream.eof else b""
            self._came += len(out)
            if self._came > self._most:
                raise ContentError(
                    f"{shown(self._subject)} unpacks to more than {self._most} bytes",
                    remedy="it may be an attack; see what is in it before you trust its source",
                )
            if out:
                yield out

    def end(self) -> None:
        """See that the stream has come to its end.

        Raises:
            ContentError: it is cut off.
        """
        if not self._stream.eof:
            raise InvalidManifest(
                f"{shown(self._subject)} ends in the middle of its {self._packing.name}",
                remedy="fetch or build it again",
            )

    def _decompress(self, data: bytes) -> bytes:
        try:
            return self._stream.decompress(data, MIB)
        except MemoryError:
            raise
        except Exception as error:  # each library has errors of its own, that of an extra, too
            raise InvalidManifest(
                f"{shown(self._subject)} is damaged: {error}", remedy="fetch or build it again"
            ) from error
