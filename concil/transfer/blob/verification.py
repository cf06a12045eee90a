"""Checks size and digest before the final block is sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from concil.config import KIB
from concil.errors import ProtocolViolation
from concil.oci.manifest import Digest, Verifier


class SeekableReader(Protocol):
    """A source that can be read again from any byte."""

    def seek(self, position: int) -> None:
        """Continue at ``position``."""
        ...

    def readinto(self, buffer: memoryview) -> int:
        """Fill some of ``buffer``; 0 only at the end."""
        ...


class BlobVerification:
    """Checks size and digest of a blob before its final block is sent."""

    def __init__(
        self, size: int, digest: Digest | None, name: str, check_source: Callable[[], None] | None
    ) -> None:
        """Expect ``size`` bytes.

        Args:
            digest: expected digest; None: any digest.
            name: name of the blob in messages.
            check_source: raises if the source has changed.
        """
        self._size = size
        self._digest = digest
        self._name = name
        self._check_source = check_source
        self._verifier = Verifier(digest.algorithm) if digest else Verifier.create_resumable()
        self._sees_all_bytes = True

    @property
    def sees_all_bytes(self) -> bool:
        """Whether every byte is hashed here."""
        return self._sees_all_bytes

    def resume(self, reader: SeekableReader, offset: int, hash_state: str) -> None:
        """Resume a blob of which an earlier process sent ``offset`` bytes.

        If the digest is known, the destination checks those bytes itself. Otherwise hashing
        continues from the saved state; the bytes it does not cover, at most a chunk, are read
        again.
        """
        if not offset:
            return
        if self._digest is not None:
            self._sees_all_bytes = False
            return
        verifier = Verifier.create_resumable(hash_state)
        self._verifier = (
            verifier if verifier.position <= self._size else Verifier.create_resumable()
        )
        buffer = memoryview(bytearray(64 * KIB))
        reader.seek(self._verifier.position)
        while self._verifier.position < offset:
            remaining = offset - self._verifier.position
            count = reader.readinto(buffer[: min(len(buffer), remaining)])
            self._verifier.update(buffer[:count])

    def restart(self) -> None:
        """Restart at byte 0, hashing every byte again."""
        digest = self._digest
        self._verifier = Verifier(digest.algorithm) if digest else Verifier.create_resumable()
        self._sees_all_bytes = True

    @property
    def hash_state(self) -> str:
        """Saved state of the hash, "" if the digest is known in advance."""
        return "" if self._digest is not None else self._verifier.hash_state

    def update(self, data: memoryview, start: int) -> None:
        """Hash a block; verify after the last one."""
        if self._sees_all_bytes:
            self._verifier.update(data, start)
        if start + len(data) == self._size:
            self.verify()

    def check_offset(self, offset: int, sent: int) -> None:
        """Check that the destination does not report more bytes than were sent to it.

        The whole size is accepted for a known digest: another client may have sent the blob.

        Raises:
            ProtocolViolation: some bytes would be skipped.
        """
        if offset > sent and (offset < self._size or self._digest is None):
            raise ProtocolViolation(
                f"{self._name}: the destination reports {offset} bytes, but {sent} were sent"
            )
        # Whatever a new session gets is read and hashed here.
        self._sees_all_bytes = offset == 0 or (self._sees_all_bytes and offset <= sent)

    def verify(self) -> None:
        """Compare the bytes seen with the expected size and digest."""
        if self._sees_all_bytes:
            self._verifier.verify(self._digest, self._size, self._name)
        if self._check_source is not None:
            self._check_source()

    @property
    def commit_digest(self) -> Digest:
        """The digest to commit under."""
        return self._digest or self._verifier.digest()
