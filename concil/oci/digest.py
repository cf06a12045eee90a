"""Digests, and verification of content against them."""

from __future__ import annotations

import hashlib
import re
import sys
from typing import Protocol

from concil.errors import ConcilError, DigestMismatch, InvalidDigest, SizeMismatch, safe_repr
from concil.runtime import arguments
from concil.runtime.dataclass import dataclass

DAMAGED_SOURCE_REMEDY = "the content of the source is damaged; fetch or build it again"
_DIGEST = re.compile(r"(sha256):([0-9a-f]{64})|(sha512):([0-9a-f]{128})")


@dataclass(frozen=True, slots=True)
class Digest:
    """A content digest: an algorithm and the lower-case hex of the hash.

    Create one with `parse` or `from_bytes`. Both guarantee the syntax, so a Digest is safe as
    a part of a path or URL.
    """

    algorithm: str  # sha256 or sha512
    hex: str

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Parse ``algorithm:hex``.

        Raises:
            InvalidDigest: another algorithm, another length, or upper-case hex.
        Source: image-spec, descriptor, "Digests".
        """
        match = _DIGEST.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            raise InvalidDigest(
                f"not a digest: {safe_repr(text)}",
                remedy="write sha256: and 64 lower-case hex digits, or sha512: and 128",
            )
        return cls(sys.intern(match[1] or match[3]), match[2] or match[4])

    @classmethod
    def from_argument(cls, name: str, value: str | Digest) -> Digest:
        """Return the digest in an argument, which is a Digest or its text.

        Raises:
            TypeError: it is neither.
            InvalidDigest: as `parse`.
        """
        if isinstance(value, Digest):
            return value
        return cls.parse(arguments.check_instance(name, value, str, "str or Digest"))

    @classmethod
    def from_bytes(cls, content: bytes, algorithm: str = "sha256") -> Digest:
        """Return the digest of ``content``."""
        return cls(algorithm, hashlib.new(algorithm, content).hexdigest())

    def __str__(self) -> str:
        """Return ``algorithm:hex``."""
        return f"{self.algorithm}:{self.hex}"

    @property
    def short_hex(self) -> str:
        """The first twelve hex digits, for display."""
        return self.hex[:12]


class Body(Protocol):
    """A sequence of bytes of known length that can be read once, in order."""

    def __len__(self) -> int:
        """Return the total number of bytes, whether read or not."""
        ...

    def read(self, size: int = -1, /) -> bytes | memoryview:
        """Return up to ``size`` bytes, empty at the end; valid until the next read."""
        ...


class Verifier:
    """Hashes content in order and compares it with an expected digest and size.

    Bytes that were hashed before are skipped, so that a caller may pass the same range again
    after a lost connection. One thread at a time.
    """

    def __init__(self, algorithm: str = "sha256", *, hash_state: str = "") -> None:
        """Start at byte 0, or continue from a saved ``hash_state``; see `position`.

        Args:
            hash_state: from another process's `hash_state`; an invalid one means byte 0.
        """
        self._algorithm = algorithm
        self._position = 0
        self._hash: _Hash = hashlib.new(algorithm)
        restored = _restore_hash(hash_state) if algorithm == "sha256" and hash_state else None
        if restored is not None:
            self._position, self._hash = restored

    @classmethod
    def create_resumable(cls, hash_state: str = "") -> Verifier:
        """Return a sha256 verifier with a `hash_state`, if OpenSSL supports that."""
        verifier = cls(hash_state=hash_state)
        if verifier.position == 0:
            from concil.oci.sha256_state import ResumableSha256  # noqa: PLC0415  # loads OpenSSL

            verifier._hash = ResumableSha256.create() or verifier._hash
        return verifier

    @property
    def hash_state(self) -> str:
        """State to resume hashing in another process; "" if that is not supported."""
        state: bytes | None = getattr(self._hash, "state", None)  # of ResumableSha256
        return "" if state is None else f"{self._position}:{state.hex()}"

    @property
    def position(self) -> int:
        """Number of bytes hashed so far."""
        return self._position

    def update(self, data: bytes | bytearray | memoryview, start: int | None = None) -> None:
        """Hash the new bytes in ``data``, which begins at ``start`` (default: the position).

        Raises:
            ValueError: the data begins after the position, so bytes would be missing.
        """
        begin = self._position if start is None else start
        if begin > self._position:
            raise ValueError(f"bytes {self._position} to {begin} were skipped")
        new_bytes = memoryview(data)[self._position - begin :]
        if new_bytes.nbytes:
            self._hash.update(new_bytes)
            self._position += new_bytes.nbytes

    def digest(self) -> Digest:
        """Return the digest of the bytes hashed so far."""
        return Digest(self._algorithm, self._hash.hexdigest())

    def verify(self, digest: Digest | None, size: int | None, subject: str) -> None:
        """Compare with the expected digest and size; ``None`` is not compared.

        Raises:
            SizeMismatch: the size differs.
            DigestMismatch: the digest differs.
        """
        if size is not None and self._position != size:
            raise SizeMismatch(
                f"{subject}: {self._position} bytes instead of {size}",
                remedy=DAMAGED_SOURCE_REMEDY,
            )
        if digest is not None and self.digest() != digest:
            error = DigestMismatch(
                f"{subject}: the bytes hash to {self.digest()}, not to {digest}",
                remedy=DAMAGED_SOURCE_REMEDY,
            )
            error.actual_digest = str(self.digest())
            raise error


def repeated_mismatch(first: ConcilError, second: ConcilError) -> ConcilError:
    """Return the error for content that was read twice and was wrong both times.

    If both digests are the same, the source is wrong; if they differ, the transfer is.
    """
    if not (isinstance(first, DigestMismatch) and isinstance(second, DigestMismatch)):
        return second
    if not first.actual_digest or not second.actual_digest:
        return second
    if first.actual_digest == second.actual_digest:
        error = DigestMismatch(
            f"{second}; a second attempt gave the same bytes", remedy=DAMAGED_SOURCE_REMEDY
        )
    else:
        error = DigestMismatch(
            f"{second}; an earlier attempt hashed to {first.actual_digest}",
            remedy="the source or the network returns different bytes each time: check the "
            "network, proxies and the memory of this machine, then try again",
        )
    error.actual_digest = second.actual_digest
    return error


class _Hash(Protocol):
    """Common interface of hashlib's hashes and `ResumableSha256`."""

    def update(self, data: bytes | bytearray | memoryview, /) -> None: ...

    def hexdigest(self) -> str: ...


def _restore_hash(hash_state: str) -> tuple[int, _Hash] | None:
    from concil.oci.sha256_state import ResumableSha256  # noqa: PLC0415  # loads OpenSSL

    position, _, state = hash_state.partition(":")
    try:
        restored = ResumableSha256.from_state(bytes.fromhex(state))
        return (int(position), restored) if restored is not None else None
    except ValueError:
        return None
