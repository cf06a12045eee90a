"""Directory of an OCI image layout: blobs and index.json."""

from __future__ import annotations

import copy
import io
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from concil.errors import ContentError, DigestMismatch, NotFound, StoreError, safe_repr
from concil.fs.local_file import FileBlobReader, disk_error
from concil.fs.nofollow_tree import PRIVATE_DIRECTORY, NoFollowTree
from concil.fs.partial_file import PartialFile
from concil.fs.resume_state import WriterState
from concil.oci.address import LAYOUT
from concil.oci.descriptor import Descriptor
from concil.oci.manifest import Digest
from concil.oci.strict_json import InvalidJSON, parse_json
from concil.store.layout.index import Edits, Index, Mark
from concil.store.layout.index_change import IndexChange
from concil.store.layout.index_file import REMEDY, IndexFile

logger = logging.getLogger(__name__)

MAX_VERSION_SIZE = 4096  # bytes of an oci-layout file
OCI_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'


class LayoutDirectory:
    """A directory in the form of an OCI image layout.

    Any thread and any process may call any method at any time: an index entry added by one
    is never lost by another. Symbolic links below the directory are rejected.
    Source: image-spec, image-layout.
    """

    scheme = LAYOUT

    def __init__(self, path: str | os.PathLike[str], *, create: bool = False) -> None:
        """Open the directory, or create the missing parts.

        Raises:
            NotFound: the directory is missing and ``create`` is False.
            StoreError: it is not a layout, has another version, or cannot be accessed.
            InvalidManifest: its index.json is invalid.
        """
        self.path = Path(path)
        self._tree = NoFollowTree(self.path)
        self.index_file = IndexFile(self._tree)
        self._update_index: Callable[[IndexChange], int] = self.index_file.change
        if create:
            self._create()
        elif not self.path.exists():
            raise NotFound(f"there is no layout at {safe_repr(str(path))}", remedy=REMEDY)
        self._check_version()
        self._recover()
        self.entries()

    def blob_path(self, digest: Digest) -> Path:
        """Return the path of a blob, whether it exists or not."""
        return self.path / _blob_name(digest)

    def blob_size(self, digest: Digest) -> int | None:
        """Return the size of a blob in bytes, None if there is no regular file."""
        return self._tree.file_size(_blob_name(digest))

    def open_blob(self, digest: Digest, start: int = 0, stop: int | None = None) -> FileBlobReader:
        """Open a blob from ``start`` up to ``stop``, half-open, unverified; the caller closes it.

        Raises:
            NotFound: there is no such blob.
            StoreError: it is not a regular file.
            UsageError: the range is not within the file.
        """
        descriptor = self._tree.open(_blob_name(digest))
        return FileBlobReader(descriptor, self.blob_path(digest), start, stop)

    def open_file(self, digest: Digest) -> io.FileIO:
        """Open a blob as a Python file, unverified; the caller closes it. Raises as `open_blob`."""
        return io.FileIO(self._tree.open(_blob_name(digest)), "rb")

    def read_blob(self, digest: Digest, limit: int) -> bytes:
        """Read a small blob and verify it.

        Raises:
            NotFound: there is no such blob.
            InvalidManifest: it has more than ``limit`` bytes.
            DigestMismatch: its content has another digest.
        """
        content, _ = self._tree.read(_blob_name(digest), limit)
        if Digest.from_bytes(content, digest.algorithm) != digest:
            raise DigestMismatch(
                f"{safe_repr(str(self.blob_path(digest)))} has content that does not match its "
                "digest",
                remedy="the layout is damaged; write it again from its source",
            )
        return content

    def write_blob(self, content: bytes, algorithm: str = "sha256") -> Digest:
        """Write a small blob, unless it is already present and intact.

        Raises:
            StoreError: the write fails; there is no incomplete file.
        """
        digest = Digest.from_bytes(content, algorithm)
        try:
            self.read_blob(digest, len(content))
        except (NotFound, StoreError, ContentError):
            self._tree.replace(_blob_name(digest), content)
        return digest

    def remove_blob(self, digest: Digest) -> bool:
        """Remove the file of a blob; return False if it is missing. Index entries are kept."""
        return self._tree.remove(_blob_name(digest))

    def prepare_blob_paths(self, digest: Digest) -> tuple[Path, Path]:
        """Return the final and the partial path of a new blob; create their directories.

        Raises:
            StoreError: the write fails, or a symbolic link is in the way.
        """
        self._tree.make_directory(f"blobs/{digest.algorithm}")
        self._tree.make_directory(PRIVATE_DIRECTORY)
        partial = f"{digest.algorithm}-{digest.hex}.partial"
        return self.blob_path(digest), self.path / PRIVATE_DIRECTORY / partial

    def begin_blob(self, size: int, digest: Digest, resume: WriterState | None) -> PartialFile:
        """Begin or resume the partial file of a blob. Raises StoreError."""
        final, partial = self.prepare_blob_paths(digest)
        return PartialFile(final, digest, size, partial_path=partial, resume=resume)

    def deferring(self) -> LayoutDirectory:
        """Return the same layout with deferred index writes; end with ``index_file.save()``.

        Changes of the index are visible here at once, and are written within some seconds
        together with other changes.
        """
        return self._changing_by(self.index_file.defer)

    def logging(self) -> LayoutDirectory:
        """Return the same layout for many index changes that must be on disk at once.

        Logged changes are written to the index within some seconds, or by the next process
        that opens the layout for writing. End with ``index_file.close()``.
        """
        return self._changing_by(self.index_file.log)

    def _changing_by(self, change: Callable[[IndexChange], int]) -> LayoutDirectory:
        other = copy.copy(self)
        other._update_index = change  # noqa: SLF001 - its own class
        return other

    def entries(self) -> tuple[Descriptor, ...]:
        """Return the entries of index.json, in its order.

        Raises:
            InvalidManifest, NotFound, StoreError: index.json cannot be read.
        """
        return self.index_file.ask(lambda index: index.entries)

    def entry_of(self, digest: Digest) -> Descriptor | None:
        """Return the first entry with a digest, None if there is none."""
        return self.index_file.ask(lambda index: index.of_digest(digest))

    def edits_since(self, mark: Mark | None) -> Edits:
        """Return the changes of the index since a mark. See `Index.edits_since`."""
        return self.index_file.ask(lambda index: index.edits_since(mark))

    def names(self) -> Iterator[str]:
        """Yield a name for every entry that has one."""
        return iter(self.index_file.ask(lambda index: list(index.names())))

    def find_entry(self, name: str | None) -> Descriptor | None:
        """Return the entry with a name, None if there is none.

        Args:
            name: org.opencontainers.image.ref.name, or containerd's full name of the
                image; None for the only image of the layout.

        Raises:
            UsageError: several images match; the message lists their names.
        """
        subject = f"layout {safe_repr(str(self.path))}"
        return self.index_file.ask(lambda index: index.find(name, subject))

    def set_entry(self, name: str | None, descriptor: Descriptor) -> None:
        """Add an entry to the index, or replace the entry with that name.

        Args:
            name: None adds an unnamed entry, unless its digest already has one.
            descriptor: of the manifest.

        Raises:
            StoreError: the write fails; the index is unchanged.
        """
        self._update_index(IndexChange(name, descriptor))

    def remove_entry(self, name: str) -> None:
        """Remove the entry with a name; its blobs are kept.

        Raises:
            NotFound: there is no such entry.
        """
        if not self._update_index(IndexChange(name)):
            raise NotFound(f"layout {safe_repr(str(self.path))} has no {safe_repr(name)}")

    def remove_entries(self, digest: Digest) -> int:
        """Remove all entries with a digest, named or not; return how many there were."""
        return self._update_index(IndexChange(digest=digest))

    def _create(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except FileExistsError as error:
            raise StoreError(
                f"{safe_repr(str(self.path))} is not a directory", remedy="choose another path"
            ) from error
        except OSError as error:
            raise disk_error("cannot create", self.path, error) from error
        self._tree.remove_stale()
        if self._tree.file_size("oci-layout") is not None:
            return
        with self._tree.locked():
            self._tree.make_directory("blobs/sha256")
            if self._tree.file_size("index.json") is None:
                self._tree.replace("index.json", Index.empty().to_bytes())
            self._tree.replace("oci-layout", OCI_LAYOUT)

    def _recover(self) -> None:
        """Write the changes logged by a killed server, if the directory is writable."""
        try:
            self.index_file.recover()
        except StoreError as error:
            logger.warning("images that a killed server stored last are not listed: %s", error)

    def _check_version(self) -> None:
        subject = f"layout {safe_repr(str(self.path))}"
        try:
            body, _ = self._tree.read("oci-layout", MAX_VERSION_SIZE)
        except NotFound as error:
            if self._tree.file_size("index.json") is None:
                raise StoreError(f"not a layout: {error}", remedy=REMEDY) from error
            logger.warning("%s", without_version(subject))
        else:
            check_version(body, subject)


def without_version(subject: str) -> str:
    """Return the warning about a layout without a version."""
    return f"{subject} has no file oci-layout; version 1 is assumed"


def check_version(body: bytes, subject: str) -> None:
    """Check the content of an oci-layout file.

    Raises:
        StoreError: the version is missing or not supported.
    """
    try:
        document = parse_json(body)
    except InvalidJSON as error:
        raise StoreError(f"oci-layout in {subject} is {error}", remedy=REMEDY) from error
    version = document.get("imageLayoutVersion") if isinstance(document, dict) else None
    if not isinstance(version, str) or not version.startswith("1."):
        raise StoreError(
            f"{subject} has the unsupported version {safe_repr(version)}",
            remedy="concil supports version 1 of the image layout",
        )


def _blob_name(digest: Digest) -> str:
    return f"blobs/{digest.algorithm}/{digest.hex}"
