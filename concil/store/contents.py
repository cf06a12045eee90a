"""What a layout consists of, wherever it lies."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from concil.content import Descriptor, Digest
from concil.store.files import FileBlob
from concil.store.layout_index import Edits, Mark
from concil.store.protocol import BlobWriter, RangeWriter, WriterState


class Contents(Protocol):
    """What a layout consists of, in a directory or in an archive. Any thread may call."""

    kind: str  # of its address
    path: Path

    def blob_path(self, digest: Digest) -> Path:
        """Name the place of a blob, for messages."""
        ...

    def blob_size(self, digest: Digest) -> int | None:
        """Bytes of a blob; None: not there."""
        ...

    def open_blob(self, digest: Digest) -> FileBlob:
        """Open a blob, unverified; the caller closes it. Raises NotFound."""
        ...

    def read_blob(self, digest: Digest, limit: int) -> bytes:
        """Read a small blob and verify it. Raises NotFound, DigestMismatch."""
        ...

    def begin_blob(
        self, size: int, digest: Digest, resume: WriterState | None
    ) -> BlobWriter | RangeWriter:
        """Begin to write a blob."""
        ...

    def write_blob(self, content: bytes, algorithm: str = "sha256") -> Digest:
        """Write a small blob."""
        ...

    def remove_blob(self, digest: Digest) -> bool:
        """Remove a blob; False if there is none."""
        ...

    def entries(self) -> tuple[Descriptor, ...]:
        """What the index lists."""
        ...

    def entry_of(self, digest: Digest) -> Descriptor | None:
        """The first entry of a digest; None: there is none."""
        ...

    def edits_since(self, mark: Mark | None) -> Edits:
        """What was changed in the index since a mark. See `Index.edits_since`."""
        ...

    def names(self) -> Iterator[str]:
        """A name for every entry that has one."""
        ...

    def find(self, name: str | None) -> Descriptor | None:
        """The entry of a name; None for the name: the only one. Raises UsageError."""
        ...

    def set_entry(self, name: str | None, descriptor: Descriptor) -> None:
        """Add an entry, or replace the one of the name."""
        ...

    def remove_entry(self, name: str) -> None:
        """Remove the entry of a name. Raises NotFound."""
        ...

    def remove_digest(self, digest: Digest) -> int:
        """Remove all entries of a digest; return how many there were."""
        ...
