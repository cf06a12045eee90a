"""Writes a blob as a member of an archive."""

from __future__ import annotations

from collections.abc import Callable

from concil.config import MIB
from concil.errors import SizeMismatch
from concil.fs.resume_state import WriterState
from concil.oci.manifest import Body, Digest, Verifier
from concil.store.archive.tar_builder import Region, TarBuilder

CHUNK_SIZE = 4 * MIB  # bytes between two checks for cancellation


class TarBlobWriter:
    """A BlobWriter into a region of an archive; a write cannot be resumed by another process."""

    chunk_size = CHUNK_SIZE

    def __init__(
        self,
        builder: TarBuilder,
        name: str,
        size: int,
        digest: Digest,
        on_complete: Callable[[Region], None],
    ) -> None:
        """Reserve space for a blob.

        Args:
            name: of the member.
            digest: the expected digest.
            on_complete: called with the verified region; decides whether it becomes a member.
        """
        self.offset = 0
        self._builder = builder
        self._name = name
        self._digest = digest
        self._on_complete = on_complete
        self._verifier = Verifier(digest.algorithm)
        self._region = builder.reserve(name, size)

    def append(self, body: Body, /) -> None:
        """Write the next bytes; if reading the body fails, ``offset`` counts the bytes written."""
        while piece := body.read():
            if self.offset + len(piece) > self._region.size:
                raise SizeMismatch(f"{self._name} has more than {self._region.size} bytes")
            self._builder.write_at(self._region, self.offset, piece)
            self._verifier.update(piece)
            self.offset += len(piece)

    def resync(self) -> int:
        """Return the number of bytes written."""
        return self.offset

    def state(self) -> WriterState | None:
        """Return None: the write cannot be resumed."""
        return None

    def commit(self, _digest: Digest, /) -> None:
        """Verify the blob and make it a member."""
        self._verifier.verify(self._digest, self._region.size, self._name)
        self._on_complete(self._region)

    def close(self) -> None:
        """Do nothing: an incomplete region is left out of the archive."""

    def abort(self) -> None:
        """Discard the bytes that were written; the blob may be written again."""
        self.offset = 0
        self._verifier = Verifier(self._digest.algorithm)
