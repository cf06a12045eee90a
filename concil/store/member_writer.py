"""A blob on its way into an archive, in order."""

from __future__ import annotations

from collections.abc import Callable

from concil.config import MIB
from concil.content import Body, Digest, Verifier
from concil.errors import SizeMismatch
from concil.store.protocol import WriterState
from concil.store.tar_draft import Draft, Region

CHUNK = 4 * MIB  # bytes between two looks at whether to go on


class MemberWriter:
    """A BlobWriter into a region of a draft; nothing of it outlives the process."""

    chunk_size = CHUNK

    def __init__(
        self, draft: Draft, name: str, size: int, digest: Digest, landed: Callable[[Region], None]
    ) -> None:
        """Reserve the place of a blob.

        Args:
            name: of the member.
            digest: what it must hash to.
            landed: told the region when every byte is there; decides whether it is a member.
        """
        self.offset = 0
        self._draft = draft
        self._name = name
        self._digest = digest
        self._landed = landed
        self._verifier = Verifier(digest.algorithm)
        self._region = draft.reserve(name, size)

    def append(self, body: Body, /) -> None:
        """Write the next stretch; what the body raises leaves ``offset`` where it came to."""
        while piece := body.read():
            if self.offset + len(piece) > self._region.size:
                raise SizeMismatch(f"{self._name} is more than {self._region.size} bytes")
            self._draft.write_at(self._region, self.offset, piece)
            self._verifier.update(piece)
            self.offset += len(piece)

    def resync(self) -> int:
        """What was written is there."""
        return self.offset

    def state(self) -> WriterState | None:
        """There is nothing to go on with."""
        return None

    def commit(self, _digest: Digest, /) -> None:
        """Verify it, and make it a member."""
        self._verifier.check(self._digest, self._region.size, self._name)
        self._landed(self._region)

    def close(self) -> None:
        """Let go; a region that is not whole is left out of the archive."""

    def abort(self) -> None:
        """Forget what was written; it may be written again."""
        self.offset = 0
        self._verifier = Verifier(self._digest.algorithm)
