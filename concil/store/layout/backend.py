"""Protocol of the storage behind a layout: a directory or an archive."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from concil.fs.local_file import FileBlobReader
from concil.fs.partial_file import PartialFile
from concil.fs.resume_state import WriterState
from concil.oci.descriptor import Descriptor
from concil.oci.manifest import Digest
from concil.store.layout.index import Edits, Mark
from concil.store.protocols import BlobWriter


class LayoutBackend(Protocol):
    """The storage of a layout: a directory or an archive. Any thread may call any method."""

    scheme: str  # of its address
    path: Path

    def blob_path(self, digest: Digest) -> Path:
        """Return the path of a blob, for messages."""
        ...

    def blob_size(self, digest: Digest) -> int | None:
        """Return the size of a blob in bytes, None if it is missing."""
        ...

    def open_blob(self, digest: Digest) -> FileBlobReader:
        """Open a blob, unverified; the caller closes it. Raises NotFound."""
        ...

    def read_blob(self, digest: Digest, limit: int) -> bytes:
        """Read a small blob and verify it. Raises NotFound, DigestMismatch."""
        ...

    def begin_blob(
        self, size: int, digest: Digest, resume: WriterState | None
    ) -> BlobWriter | PartialFile:
        """Begin to write a blob."""
        ...

    def write_blob(self, content: bytes, algorithm: str = "sha256") -> Digest:
        """Write a small blob."""
        ...

    def remove_blob(self, digest: Digest) -> bool:
        """Remove a blob; return False if it is missing."""
        ...

    def entries(self) -> tuple[Descriptor, ...]:
        """Return the entries of the index."""
        ...

    def entry_of(self, digest: Digest) -> Descriptor | None:
        """Return the first entry with a digest, None if there is none."""
        ...

    def edits_since(self, mark: Mark | None) -> Edits:
        """Return the changes of the index since a mark. See `Index.edits_since`."""
        ...

    def names(self) -> Iterator[str]:
        """Yield a name for every entry that has one."""
        ...

    def find_entry(self, name: str | None) -> Descriptor | None:
        """Return the entry with a name; ``name=None`` returns the only one. Raises UsageError."""
        ...

    def set_entry(self, name: str | None, descriptor: Descriptor) -> None:
        """Add an entry, or replace the entry with that name."""
        ...

    def remove_entry(self, name: str) -> None:
        """Remove the entry with a name. Raises NotFound."""
        ...

    def remove_entries(self, digest: Digest) -> int:
        """Remove all entries with a digest; return how many there were."""
        ...
