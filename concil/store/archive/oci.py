"""OCI layouts in a tar archive: read in place, written as a whole.

Several runs may write to one archive. Each builds a separate new archive; at the end it takes
the lock and adds what the other runs have written since.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from concil.errors import ConcilError, DigestMismatch, NotFound, StoreError, UsageError, safe_repr
from concil.fs.local_file import FileBlobReader
from concil.fs.resume_state import WriterState
from concil.oci.address import OCI_ARCHIVE
from concil.oci.descriptor import Descriptor
from concil.oci.manifest import Digest
from concil.store.archive.oci_content import ArchiveContent, ObservedContent, blob_name
from concil.store.archive.tar_blob_writer import TarBlobWriter
from concil.store.archive.tar_builder import (
    Region,
    StatSignature,
    TarBuilder,
    check_writable,
    concurrent_write_error,
    is_changed,
    remove_stale_files,
)
from concil.store.archive.tar_reader import read_all
from concil.store.archive.writer_lock import locked
from concil.store.layout.directory import OCI_LAYOUT
from concil.store.layout.index import Edits, Index, Mark

_DAMAGED_REMEDY = "the archive is damaged; write it again from its source"
_RERUN_REMEDY = "try again; images are added to the archive"
_LOCK_TIMEOUT = 600.0  # seconds; a writer also copies what other runs have added


class OCIArchive:
    """An OCI layout in one file. Any thread may call any method.

    Changes are written to a new archive, which replaces the file on `commit` and also holds the
    blobs of the existing archive. The existing content is read again at that time, because
    another process may have added to the file since it was opened.
    """

    scheme = OCI_ARCHIVE

    def __init__(
        self, path: Path, *, writable: bool = False, cancel: threading.Event | None = None
    ) -> None:
        """Open an archive.

        Args:
            writable: the archive may be changed, and is created if it is missing.
            cancel: stops long operations.
        Raises:
            NotFound: there is no archive and ``writable`` is False.
            UsageError: the path cannot be written.
            StoreError, InvalidManifest: it is not an archive of a layout, or damaged.
        """
        self.path = path
        self._final_path = Path(os.path.realpath(path))
        self._is_writable = writable
        self._cancel = cancel
        if writable:
            check_writable(path)
            remove_stale_files(self._final_path)
        self._existing = ArchiveContent.open(path, cancel, may_be_missing=writable)
        self._lock = threading.Lock()  # guards the fields below
        self._index = self._existing.index.copy() if writable else self._existing.index
        self._builder: TarBuilder | None = None
        self._is_closed = False  # workers of a failed image may still try to begin blobs
        self._new_blobs: dict[Digest, Region] = {}  # in the new archive
        self._removed_blobs: set[Digest] = set()  # from the existing archive
        # Applied again at the end if the file has changed meanwhile.
        self._index_changes: list[Callable[[Index], object]] = []
        self._has_changed = False  # a manifest was added or removed, with an entry or without
        self._observed = ObservedContent()

    @property
    def stat_signature(self) -> StatSignature | None:
        """Signature of the opened file, to detect changes; None if there was no file."""
        return self._existing.stat_signature

    def blob_path(self, digest: Digest) -> Path:
        """Return the path of a blob, for messages."""
        return self.path / blob_name(digest)

    def blob_size(self, digest: Digest) -> int | None:
        """Return the size of a blob in bytes, None if it is missing."""
        with self._lock:
            region, is_removed = self._new_blobs.get(digest), digest in self._removed_blobs
        if region is not None:
            return region.size
        size = self._existing.blob_size(digest) if not is_removed else None
        if size is not None:
            self._record_observed_blob(digest)
        return size

    def open_blob(self, digest: Digest) -> FileBlobReader:
        """Open a blob, unverified; the caller closes it.

        Raises:
            NotFound: the blob is missing.
        """
        with self._lock:
            region, builder, is_removed = (
                self._new_blobs.get(digest),
                self._builder,
                digest in self._removed_blobs,
            )
        if region is not None and builder is not None:
            return builder.open_region(region)
        if self._existing.tar is None or is_removed:
            raise NotFound(
                f"{safe_repr(str(self.blob_path(digest)))} does not exist", remedy=_DAMAGED_REMEDY
            )
        blob = self._existing.tar.open(blob_name(digest))
        self._record_observed_blob(digest)
        return blob

    def read_blob(self, digest: Digest, limit: int) -> bytes:
        """Read a small blob and verify it.

        Raises:
            NotFound: the blob is missing.
            InvalidManifest: it has more than ``limit`` bytes.
            DigestMismatch: its content has another digest.
        """
        with self.open_blob(digest) as blob:
            content = read_all(blob, limit, safe_repr(str(self.blob_path(digest))))
        if Digest.from_bytes(content, digest.algorithm) != digest:
            raise DigestMismatch(
                f"{safe_repr(str(self.blob_path(digest)))} has content that does not match its "
                "digest",
                remedy=_DAMAGED_REMEDY,
            )
        return content

    def begin_blob(self, size: int, digest: Digest, _resume: WriterState | None) -> TarBlobWriter:
        """Begin to write a blob; a write is never resumed.

        Raises:
            StoreError: the disk is full or the write fails.
        """
        return TarBlobWriter(
            self._get_builder(), blob_name(digest), size, digest, partial(self._add_blob, digest)
        )

    def write_blob(self, content: bytes, algorithm: str = "sha256") -> Digest:
        """Write a manifest, unless it is already present and intact."""
        digest = Digest.from_bytes(content, algorithm)
        try:
            self.read_blob(digest, len(content))
        except ConcilError:
            self._add_blob(digest, self._get_builder().add_file(blob_name(digest), content))
            self._has_changed = True
        return digest

    def remove_blob(self, digest: Digest) -> bool:
        """Remove a blob; return False if it is missing."""
        is_present = self.blob_size(digest) is not None
        with self._lock:
            region = self._new_blobs.pop(digest, None)
            self._removed_blobs.add(digest)
            self._has_changed = True
        if region is not None:
            region.is_complete = False
        return is_present

    def entries(self) -> tuple[Descriptor, ...]:
        """Return the entries of the index."""
        with self._lock:
            return self._index.entries

    def entry_of(self, digest: Digest) -> Descriptor | None:
        """Return the first entry with a digest, None if there is none."""
        with self._lock:
            return self._index.of_digest(digest)

    def edits_since(self, mark: Mark | None) -> Edits:
        """Return the changes of the index since a mark. See `Index.edits_since`."""
        with self._lock:
            return self._index.edits_since(mark)

    def names(self) -> Iterator[str]:
        """Yield a name for every entry that has one."""
        with self._lock:
            return iter(list(self._index.names()))

    def find_entry(self, name: str | None) -> Descriptor | None:
        """Return the entry with a name; ``name=None`` returns the only entry.

        Raises:
            UsageError: several images match; the message lists their names.
        """
        with self._lock:
            entry = self._index.find(name, f"archive {safe_repr(str(self.path))}")
            if self._is_writable and name is not None and entry is not None:
                self._observed.names.setdefault(name, entry)
            return entry

    def set_entry(self, name: str | None, descriptor: Descriptor) -> None:
        """Add an entry to the index, or replace the entry with that name."""
        self._update_index(lambda index: index.set_entry(name, descriptor))

    def remove_entry(self, name: str) -> None:
        """Remove the entry with a name. Raises NotFound if there is none."""
        if not self._update_index(lambda index: index.remove(name)):
            raise NotFound(f"archive {safe_repr(str(self.path))} has no {safe_repr(name)}")

    def remove_entries(self, digest: Digest) -> int:
        """Remove all entries with a digest; return how many there were."""
        return self._update_index(lambda index: index.remove_digest(digest))

    def commit(self) -> None:
        """Write the new archive if anything changed. Only `close` may be called afterwards.

        Raises:
            StoreError: the write fails, another process holds the lock too long, or the file
                is no longer an archive of a layout. The existing file is unchanged.
        """
        if not self._is_commit_needed():
            return  # blobs of failed images alone are not worth an archive
        builder = self._get_builder()
        with self._lock:
            self._is_closed = True
            excluded = set(self._new_blobs) | self._removed_blobs
        # Copied without the lock, because this may take long; only later additions remain.
        self._existing.copy_blobs(builder, excluded, self._cancel)
        with locked(builder.final_path, _LOCK_TIMEOUT, self._cancel), self._reopen() as content:
            if content is not self._existing:
                content.copy_blobs(builder, excluded, self._cancel)
            builder.add_file("oci-layout", OCI_LAYOUT)
            builder.add_file("index.json", self._merge_index(content).to_bytes())
            if is_changed(builder.final_path, content.stat_signature):
                raise concurrent_write_error(self.path, _RERUN_REMEDY)
            with self._lock:
                self._builder = None
            builder.commit()

    def close(self) -> None:
        """Release the resources; an archive that was not committed is deleted."""
        with self._lock:
            builder, self._builder, self._is_closed = self._builder, None, True
        if builder is not None:
            builder.abort()
        self._existing.close()

    def _get_builder(self) -> TarBuilder:
        if not self._is_writable:
            raise UsageError(
                f"archive {safe_repr(str(self.path))} cannot be changed in place",
                remedy="copy the images that you want to keep to a new archive",
            )
        self._existing.check_uncompressed()
        with self._lock:
            if self._is_closed:
                raise StoreError(f"archive {safe_repr(str(self.path))} is closed")
            if self._builder is None:
                self._builder = TarBuilder(self.path)
                for name in ("blobs/", "blobs/sha256/"):
                    self._builder.add_directory(name)
            return self._builder

    def _add_blob(self, digest: Digest, region: Region) -> None:
        """Make a completely written region a member, unless the archive was closed meanwhile."""
        with self._lock:
            # A worker of another image may have added the blob first.
            region.is_complete = digest not in self._new_blobs and not self._is_closed
            if region.is_complete:
                self._new_blobs[digest] = region

    def _update_index(self, change: Callable[[Index], int]) -> int:
        self._get_builder()  # raises an error if the archive is read-only
        with self._lock:
            self._index_changes.append(change)
            return change(self._index)

    def _record_observed_blob(self, digest: Digest) -> None:
        """Record a blob that was found in the file, so that `commit` can check for it."""
        if self._is_writable:
            with self._lock:
                self._observed.blobs.add(digest)

    def _is_commit_needed(self) -> bool:
        """Return whether there is anything to write."""
        if self._has_changed or self._index != self._existing.index:
            return True
        if not self._is_writable or not is_changed(self._final_path, self.stat_signature):
            return False
        # Images that were found to be up to date may have been removed meanwhile.
        with self._reopen() as content:
            return self._observed.is_missing_in(content)

    @contextlib.contextmanager
    def _reopen(self) -> Iterator[ArchiveContent]:
        """Open the current content of the file.

        Raises:
            StoreError: the file is no longer an archive of a layout.
        """
        if not is_changed(self._final_path, self.stat_signature):
            yield self._existing
            return
        try:
            content = ArchiveContent.open(self._final_path, self._cancel)
        except ConcilError as error:
            raise StoreError(
                f"archive {safe_repr(str(self.path))} was replaced by another program: {error}",
                remedy=f"move it away and {_RERUN_REMEDY}",
            ) from error
        with contextlib.closing(content):
            content.check_uncompressed()
            yield content

    def _merge_index(self, content: ArchiveContent) -> Index:
        """Return the current index of the file with the changes of this run applied."""
        if content is self._existing:
            return self._index
        index = content.index.copy()
        self._observed.restore(self._existing.index, index)
        for change in self._index_changes:
            change(index)
        return index
