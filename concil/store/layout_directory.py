"""The directory of an OCI image layout: blobs by digest and a shared index."""

from __future__ import annotations

import copy
import io
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from concil.content import Descriptor, Digest
from concil.errors import (
    ContentError,
    DigestMismatch,
    NotFound,
    StoreError,
    shown,
)
from concil.reference import LAYOUT
from concil.store.files import FileBlob, disk_error
from concil.store.layout_change import IndexChange
from concil.store.layout_disk import OWN, Tree
from concil.store.layout_index import Edits, Index, Mark
from concil.store.layout_index_file import REMEDY, IndexFile
from concil.store.partial import PartialFile
from concil.store.protocol import WriterState
from concil.strict_json import InvalidJson, read_json

logger = logging.getLogger(__name__)

VERSION_LIMIT = 4096  # bytes of an oci-layout file
VERSION = b'{"imageLayoutVersion":"1.0.0"}'


class Layout:
    """A directory in the form of an OCI image layout.

    Any thread and any process may call any method at any time: an entry that one
    of them adds to the index is never lost to another. Links below the directory
    are refused. Source: image-spec, image-layout.
    """

    kind = LAYOUT

    def __init__(self, path: str | os.PathLike[str], *, create: bool = False) -> None:
        """Open the directory, or make what is missing of it.

        Raises:
            NotFound: there is no such directory, and none was to be made.
            StoreError: it is not a layout, of another version, or the disk refuses.
            InvalidManifest: its index.json has no sense.
        """
        self.path = Path(path)
        self._tree = Tree(self.path)
        self.index_file = IndexFile(self._tree)
        self._change: Callable[[IndexChange], int] = self.index_file.change
        if create:
            self._create()
        elif not self.path.exists():
            raise NotFound(f"there is no layout at {shown(str(path))}", remedy=REMEDY)
        self._check_version()
        self._recover()
        self.entries()

    def blob_path(self, digest: Digest) -> Path:
        """Return where a blob is, or would be."""
        return self.path / _blob_name(digest)

    def blob_size(self, digest: Digest) -> int | None:
        """Bytes of a blob's file; None if there is no regular file."""
        return self._tree.size(_blob_name(digest))

    def open_blob(self, digest: Digest, start: int = 0, stop: int | None = None) -> FileBlob:
        """Open a blob from ``start`` up to ``stop``, half-open, unverified; the caller closes it.

        Raises:
            NotFound: there is no such blob.
            StoreError: something else than a regular file is in its place.
            UsageError: the range does not lie within the file.
        """
        descriptor = self._tree.open(_blob_name(digest))
        return FileBlob(descriptor, self.blob_path(digest), start, stop)

    def open_file(self, digest: Digest) -> io.FileIO:
        """Open a blob's file as Python has it, unverified; the caller closes it. As `open_blob`."""
        return io.FileIO(self._tree.open(_blob_name(digest)), "rb")

    def read_blob(self, digest: Digest, limit: int) -> bytes:
        """Read a small blob and verify it.

        Raises:
            NotFound: there is no such blob.
            InvalidManifest: it has more than ``limit`` bytes.
            DigestMismatch: the file holds something else.
        """
        content, _ = self._tree.read(_blob_name(digest), limit)
        if Digest.of(content, digest.algorithm) != digest:
            raise DigestMismatch(
                f"{shown(str(self.blob_path(digest)))} does not hold what its name says",
                remedy="the layout is damaged; write it again from its source",
            )
        return content

    def write_blob(self, content: bytes, algorithm: str = "sha256") -> Digest:
        """Write a small blob at once, unless it is there and whole.

        Raises:
            StoreError: the disk refuses; nothing is half-written.
        """
        digest = Digest.of(content, algorithm)
        try:
            self.read_blob(digest, len(content))
        except (NotFound, StoreError, ContentError):
            self._tree.replace(_blob_name(digest), content)
        return digest

    def remove_blob(self, digest: Digest) -> bool:
        """Remove a blob's file; False if there is none. Entries of the index stay."""
        return self._tree.remove(_blob_name(digest))

    def writing_paths(self, digest: Digest) -> tuple[Path, Path]:
        """Return the final and the partial path of a blob to be written; make their directories.

        Raises:
            StoreError: the disk refuses, or a link is in the way.
        """
        self._tree.make(f"blobs/{digest.algorithm}")
        self._tree.make(OWN)
        partial = f"{digest.algorithm}-{digest.hex}.partial"
        return self.blob_path(digest), self.path / OWN / partial

    def begin_blob(self, size: int, digest: Digest, resume: WriterState | None) -> PartialFile:
        """Begin to fill the file of a blob, or go on with what is there. Raises StoreError."""
        final, partial = self.writing_paths(digest)
        return PartialFile(final, digest, size, partial=partial, resume=resume)

    def deferring(self) -> Layout:
        """Return the same layout for a caller who ends with ``index_file.save()``.

        What it changes in the index is seen at once here, and is written together with what
        else is changed within some seconds.
        """
        return self._changing_by(self.index_file.defer)

    def logging(self) -> Layout:
        """Return the same layout for a caller whose changes are many, and each on the disk.

        Those that a log has are written into the index within some seconds, or by the next
        process that opens the layout to write to it. It ends with ``index_file.close()``.
        """
        return self._changing_by(self.index_file.log)

    def _changing_by(self, change: Callable[[IndexChange], int]) -> Layout:
        other = copy.copy(self)
        other._change = change  # noqa: SLF001 - its own class
        return other

    def entries(self) -> tuple[Descriptor, ...]:
        """Return what index.json lists, in its order.

        Raises:
            InvalidManifest, NotFound, StoreError: index.json cannot be read.
        """
        return self.index_file.ask(lambda index: index.entries)

    def entry_of(self, digest: Digest) -> Descriptor | None:
        """Return the first entry of a digest, None if there is none."""
        return self.index_file.ask(lambda index: index.of_digest(digest))

    def edits_since(self, mark: Mark | None) -> Edits:
        """Return what was changed in the index since a mark. See `Index.edits_since`."""
        return self.index_file.ask(lambda index: index.edits_since(mark))

    def names(self) -> Iterator[str]:
        """Yield a name for every entry that has one."""
        return iter(self.index_file.ask(lambda index: list(index.names())))

    def find(self, name: str | None) -> Descriptor | None:
        """Return the entry of a name, None if there is none.

        Args:
            name: org.opencontainers.image.ref.name, or containerd's full name of the
                image; None for the only image of the layout.

        Raises:
            UsageError: several images fit; it lists their names.
        """
        subject = f"layout {shown(str(self.path))}"
        return self.index_file.ask(lambda index: index.find(name, subject))

    def set_entry(self, name: str | None, descriptor: Descriptor) -> None:
        """Add an entry to the index, or replace the one of that name.

        Args:
            name: None adds one without name, unless its digest has one already.
            descriptor: its manifest.

        Raises:
            StoreError: the disk refuses; the index is as it was.
        """
        self._change(IndexChange(name, descriptor))

    def remove_entry(self, name: str) -> None:
        """Remove the entry of a name; its blobs stay.

        Raises:
            NotFound: there is none.
        """
        if not self._change(IndexChange(name)):
            raise NotFound(f"layout {shown(str(self.path))} has no {shown(name)}")

    def remove_digest(self, digest: Digest) -> int:
        """Remove all entries of a digest, named or not; return how many there were."""
        return self._change(IndexChange(digest=digest))

    def _create(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except FileExistsError as error:
            raise StoreError(
                f"{shown(str(self.path))} is not a directory", remedy="name another place"
            ) from error
        except OSError as error:
            raise disk_error("cannot make", self.path, error) from error
        self._tree.remove_stale()
        if self._tree.size("oci-layout") is not None:
            return
        with self._tree.locked():
            self._tree.make("blobs/sha256")
            if self._tree.size("index.json") is None:
                self._tree.replace("index.json", Index.empty().body())
            self._tree.replace("oci-layout", VERSION)

    def _recover(self) -> None:
        """Write what a server that was killed has logged, if the directory takes it."""
        try:
            self.index_file.recover()
        except StoreError as error:
            logger.warning("what a killed server has taken last is not listed: %s", error)

    def _check_version(self) -> None:
        subject = f"layout {shown(str(self.path))}"
        try:
            body, _ = self._tree.read("oci-layout", VERSION_LIMIT)
        except NotFound as error:
            if self._tree.size("index.json") is None:
                raise StoreError(f"not a layout: {error}", remedy=REMEDY) from error
            logger.warning("%s", without_version(subject))
        else:
            check_version(body, subject)


def without_version(subject: str) -> str:
    """The line about a layout that does not say its version."""
    return f"{subject} has no file oci-layout; it is read as one of version 1"


def check_version(body: bytes, subject: str) -> None:
    """Read the file oci-layout of a layout.

    Raises:
        StoreError: it is of another version, or none.
    """
    try:
        document = read_json(body)
    except InvalidJson as error:
        raise StoreError(f"oci-layout in {subject} is {error}", remedy=REMEDY) from error
    version = document.get("imageLayoutVersion") if isinstance(document, dict) else None
    if not isinstance(version, str) or not version.startswith("1."):
        raise StoreError(
            f"{subject} has version {shown(version)}",
            remedy="concil reads version 1 of the image layout",
        )


def _blob_name(digest: Digest) -> str:
    return f"blobs/{digest.algorithm}/{digest.hex}"
