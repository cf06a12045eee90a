"""Digests: the names of content, and the hashing that proves them."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Protocol

from concil import arguments
from concil.errors import ConcilError, DigestMismatch, InvalidDigest, SizeMismatch, shown
from concil.hashing import ResumableSha256

DAMAGED_SOURCE = "the source holds damaged content; fetch or build it again"
_DIGEST = re.compile(r"(sha256):([0-9a-f]{64})|(sha512):([0-9a-f]{128})")


@dataclass(frozen=True, slots=True)
class Digest:
    """The name of content: an algorithm and the lower-case hex of its hash.

    Make one with `parse` or `of`: both check the syntax, so that a Digest is safe
    as a part of a path or URL.
    """

    algorithm: str  # sha256 or sha512
    hex: str

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Read ``algorithm:hex``.

        Raises:
            InvalidDigest: another algorithm, another length, or upper-case hex.
        Source: image-spec, descriptor, "Digests".
        """
        found = _DIGEST.fullmatch(text) if isinstance(text, str) else None
        if found is None:
            raise InvalidDigest(
                f"not a digest: {shown(text)}",
                remedy="a digest is sha256: and 64 hex digits, or sha512: and 128, in lower case",
            )
        return cls(found[1] or found[3], found[2] or found[4])

    @classmethod
    def argument(cls, name: str, value: str | Digest) -> Digest:
        """Return an argument that is a digest, or the text of one.

        Raises:
            TypeError: it is neither.
            InvalidDigest: as `parse`.
        """
        if isinstance(value, Digest):
            return value
        return cls.parse(arguments.instance(name, value, str, "str or Digest"))

    @classmethod
    def of(cls, content: bytes, algorithm: str = "sha256") -> Digest:
        """Hash ``content``."""
        return cls(algorithm, hashlib.new(algorithm, content).hexdigest())

    def __str__(self) -> str:
        """Return ``algorithm:hex``."""
        return f"{self.algorithm}:{self.hex}"

    @property
    def short(self) -> str:
        """The first twelve hex digits, for people."""
        return self.hex[:12]


class Body(Protocol):
    """A stretch of bytes that can be read once, in order; its length is known."""

    def __len__(self) -> int:
        """Bytes from the first to the last, however many were read."""
        ...

    def read(self, size: int = -1, /) -> bytes | memoryview:
        """Return up to ``size`` bytes, empty at the end; valid until the next read."""
        ...


class Verifier:
    """Hashes content in order and compares it with what was promised.

    Bytes that were offered before are passed over, so a reader that goes back
    after a loss may offer the same stretch again. One thread at a time.
    """

    def __init__(self, algorithm: str = "sha256", *, saved: str = "") -> None:
        """Begin at byte 0, or go on where `saved` was taken; see `position`.

        Args:
            saved: what another process's `saved` gave; anything odd means byte 0.
        """
        self._algorithm = algorithm
        self._position = 0
        self._hash: _Hash = hashlib.new(algorithm)
        begun = _resumed(saved) if algorithm == "sha256" and saved else None
        if begun is not None:
            self._position, self._hash = begun

    @classmethod
    def resumable(cls, saved: str = "") -> Verifier:
        """A sha256 that `saved` can be asked of, where OpenSSL allows it."""
        verifier = cls(saved=saved)
        if verifier.position == 0:
            verifier._hash = ResumableSha256.begin() or verifier._hash
        return verifier

    @property
    def saved(self) -> str:
        """What another process needs to go on hashing; "" where it cannot."""
        if isinstance(self._hash, ResumableSha256):
            return f"{self._position}:{self._hash.state.hex()}"
        return ""

    @property
    def position(self) -> int:
        """Bytes hashed so far, from the first on."""
        return self._position

    def update(self, piece: bytes | bytearray | memoryview, start: int | None = None) -> None:
        """Hash what is new in ``piece``, whose first byte is at ``start`` (default: the position).

        Raises:
            ValueError: the piece begins behind the position: bytes would be left out.
        """
        begin = self._position if start is None else start
        if begin > self._position:
            raise ValueError(f"bytes {self._position} to {begin} were never offered")
        fresh = memoryview(piece)[self._position - begin :]
        if fresh.nbytes:
            self._hash.update(fresh)
            self._position += fresh.nbytes

    def digest(self) -> Digest:
        """The digest of what was hashed so far."""
        return Digest(self._algorithm, self._hash.hexdigest())

    def check(self, digest: Digest | None, size: int | None, subject: str) -> None:
        """Compare with what was promised; ``None`` is not compared.

        Raises:
            SizeMismatch: another number of bytes.
            DigestMismatch: another hash.
        """
        if size is not None and self._position != size:
            raise SizeMismatch(
                f"{subject}: {self._position} bytes instead of {size}",
                remedy=DAMAGED_SOURCE,
            )
        if digest is not None and self.digest() != digest:
            error = DigestMismatch(
                f"{subject}: the bytes hash to {self.digest()}, not to {digest}",
                remedy=DAMAGED_SOURCE,
            )
            error.found = str(self.digest())
            raise error


def wrong_twice(first: ConcilError, second: ConcilError) -> ConcilError:
    """Return the error for bytes that were read twice and were wrong both times.

    The same wrong bytes are the source's; different ones were changed on their way.
    """
    if not (isinstance(first, DigestMismatch) and isinstance(second, DigestMismatch)):
        return second
    if not first.found or not second.found:
        return second
    if first.found == second.found:
        error = DigestMismatch(f"{second}; twice the same", remedy=DAMAGED_SOURCE)
    else:
        error = DigestMismatch(
            f"{second}; and before to {first.found}",
            remedy="the source, or the way from it, gives other bytes each time: look at the"
            " network, a proxy and the memory of this machine, then run it again",
        )
    error.found = second.found
    return error


class _Hash(Protocol):
    """What hashlib's objects and ours have in common."""

    def update(self, piece: bytes | bytearray | memoryview, /) -> None: ...

    def hexdigest(self) -> str: ...


def _resumed(saved: str) -> tuple[int, _Hash] | None:
    position, _, state = saved.partition(":")
    try:
        found = ResumableSha256.resume(bytes.fromhex(state))
        return (int(position), found) if found is not None else None
    except ValueError:
        return None
