"""What the bytes of a blob must turn out to be, kept before the last of them leaves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from concil.config import KIB
from concil.content import Digest, Verifier
from concil.errors import ProtocolViolation


class Rereadable(Protocol):
    """A source that can be read again from any byte."""

    def seek(self, position: int) -> None:
        """Go on at ``position``."""
        ...

    def readinto(self, buffer: memoryview) -> int:
        """Fill some of ``buffer``; 0 only at the end."""
        ...


class Promise:
    """What the bytes must turn out to be; kept before the last of them leaves."""

    def __init__(
        self, size: int, digest: Digest | None, name: str, check: Callable[[], None] | None
    ) -> None:
        """Promise ``size`` bytes.

        Args:
            digest: what they must hash to; None: whatever they hash to.
            name: what people call the blob, for messages.
            check: raises if the source is not what it was.
        """
        self._size = size
        self._digest = digest
        self._name = name
        self._check = check
        self._verifier = Verifier(digest.algorithm) if digest else Verifier.resumable()
        self.whole = True  # every byte passes here

    def begin(self, reader: Rereadable, offset: int, saved: str) -> None:
        """Take up a blob of which the place holds ``offset`` bytes of an earlier process.

        Where the digest is known, the place's own check is the one for those bytes. Where
        it is not, the hash goes on from its saved state; what that does not cover, at most
        a chunk, is read once more.
        """
        if not offset:
            return
        if self._digest is not None:
            self.whole = False
            return
        verifier = Verifier.resumable(saved)
        self._verifier = verifier if verifier.position <= self._size else Verifier.resumable()
        buffer = memoryview(bytearray(64 * KIB))
        reader.seek(self._verifier.position)
        while self._verifier.position < offset:
            left = offset - self._verifier.position
            count = reader.readinto(buffer[: min(len(buffer), left)])
            self._verifier.update(buffer[:count])

    def restart(self) -> None:
        """Begin again at byte 0: every byte passes here once more."""
        digest = self._digest
        self._verifier = Verifier(digest.algorithm) if digest else Verifier.resumable()
        self.whole = True

    @property
    def saved(self) -> str:
        """The hash as it stands, while the digest is not known."""
        return "" if self._digest is not None else self._verifier.saved

    def see(self, piece: memoryview, start: int) -> None:
        """Hash a piece; at the end compare."""
        if self.whole:
            self._verifier.update(piece, start)
        if start + len(piece) == self._size:
            self.keep()

    def believe(self, offset: int, reached: int) -> None:
        """Check what the place says it holds: never more than was sent to it.

        But it may have got the whole blob, by its digest, from somebody else.

        Raises:
            ProtocolViolation: bytes would be left out.
        """
        if offset > reached and (offset < self._size or self._digest is None):
            raise ProtocolViolation(
                f"{self._name}: its destination claims {offset} bytes, {reached} were sent"
            )
        self.whole = self.whole and offset <= reached

    def keep(self) -> None:
        """Compare what came with what was promised."""
        if self.whole:
            self._verifier.check(self._digest, self._size, self._name)
        if self._check is not None:
            self._check()

    @property
    def named(self) -> Digest:
        """The digest to commit under."""
        return self._digest or self._verifier.digest()
