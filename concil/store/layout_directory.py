"""The directory of an OCI image layout: blobs by digest and a shared index."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from concil.config import MIB
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
from concil.store.layout_disk import OWN, State, Tree
from concil.store.layout_index import Index
from concil.store.partial import PartialFile
from concil.store.protocol import WriterState
from concil.strict_json import InvalidJson, read_json

INDEX_LIMIT = 32 * MIB  # bytes of an index.json; a hundred thousand entries
VERSION_LIMIT = 4096  # bytes of an oci-layout file
VERSION = b'{"imageLayoutVersion":"1.0.0"}'
_MAKE_REMEDY = "check the path; a layout holds oci-layout, index.json and blobs/"


@dataclass(frozen=True, slots=True)
class _Read:
    """An index.json as it was read or written last."""

    state: State
    body: bytes
    index: Index


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
        self._cache_lock = threading.Lock()  # guards _cache
        self._cache: _Read | None = None
        if create:
            self._create()
        elif not self.path.exists():
            raise NotFound(f"there is no layout at {shown(str(path))}", remedy=_MAKE_REMEDY)
        self._check_version()
        self._index()

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

    def entries(self) -> tuple[Descriptor, ...]:
        """Return what index.json lists, in its order.

        Raises:
            InvalidManifest, NotFound, StoreError: index.json cannot be read.
        """
        return self._index().entries

    def names(self) -> Iterator[str]:
        """Yield a name for every entry that has one."""
        return self._index().names()

    def find(self, name: str | None) -> Descriptor | None:
        """Return the entry of a name, None if there is none.

        Args:
            name: org.opencontainers.image.ref.name, or containerd's full name of the
                image; None for the only image of the layout.

        Raises:
            UsageError: several images fit; it lists their names.
        """
        return self._index().find(name, f"layout {shown(str(self.path))}")

    def set_entry(self, name: str | None, descriptor: Descriptor) -> None:
        """Add an entry to the index, or replace the one of that name.

        Args:
            name: None adds one without name, unless its digest has one already.
            descriptor: its manifest.

        Raises:
            StoreError: the disk refuses; the index is as it was.
        """
        self._change(lambda index: index.with_entry(name, descriptor))

    def remove_entry(self, name: str) -> None:
        """Remove the entry of a name; its blobs stay.

        Raises:
            NotFound: there is none.
        """

        def without(index: Index) -> Index:
            found = index.called(name)
            if not found:
                raise NotFound(f"layout {shown(str(self.path))} has no {shown(name)}")
            return index.without(found)

        self._change(without)

    def remove_digest(self, digest: Digest) -> int:
        """Remove all entries of a digest, named or not; return how many there were."""
        count = 0

        def without(index: Index) -> Index:
            nonlocal count
            found = [entry for entry in index.entries if entry.digest == digest]
            count = len(found)
            return index.without(found)

        self._change(without)
        return count

    def _change(self, change: Callable[[Index], Index]) -> None:
        with self._tree.locked():
            body, state = self._read_index()
            before = self._parsed(body, state)
            after = change(before)
            if after != before:
                body = after.body()
                state = self._tree.replace("index.json", body)
                self._remember(_Read(state, body, after))

    def _index(self) -> Index:
        """Return what index.json holds; it is read again when its size or times changed."""
        state = self._tree.state("index.json")
        with self._cache_lock:
            if self._cache is not None and self._cache.state == state:
                return self._cache.index
        body, state = self._read_index()
        return self._parsed(body, state)

    def _parsed(self, body: bytes, state: State) -> Index:
        """Parse the bytes, unless they are those that were parsed last."""
        with self._cache_lock:
            known = self._cache
        # Bytes, not times, decide: a change that is built on a stale index would lose entries.
        if known is not None and known.body == body:
            index = known.index
        else:
            index = Index.parse(body, self._index_name)
        self._remember(_Read(state, body, index))
        return index

    def _remember(self, read: _Read) -> None:
        with self._cache_lock:
            self._cache = read

    def _read_index(self) -> tuple[bytes, State]:
        try:
            return self._tree.read("index.json", INDEX_LIMIT)
        except NotFound as error:
            raise StoreError(f"not a layout: {error}", remedy=_MAKE_REMEDY) from error

    @property
    def _index_name(self) -> str:
        return shown(str(self.path / "index.json"))

    def _create(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except FileExistsError as error:
            raise StoreError(
                f"{shown(str(self.path))} is not a directory", remedy="name another place"
            ) from error
        except OSError as error:
            raise disk_error("cannot make", self.path, error) from error
        if self._tree.size("oci-layout") is not None:
            return
        with self._tree.locked():
            self._tree.make("blobs/sha256")
            if self._tree.size("index.json") is None:
                self._tree.replace("index.json", Index.empty().body())
            self._tree.replace("oci-layout", VERSION)

    def _check_version(self) -> None:
        try:
            body, _ = self._tree.read("oci-layout", VERSION_LIMIT)
        except NotFound as error:
            raise StoreError(f"not a layout: {error}", remedy=_MAKE_REMEDY) from error
        check_version(body, f"layout {shown(str(self.path))}")


def check_version(body: bytes, subject: str) -> None:
    """Read the file oci-layout of a layout.

    Raises:
        StoreError: it is of another version, or none.
    """
    try:
        document = read_json(body)
    except InvalidJson as error:
        raise StoreError(f"oci-layout in {subject} is {error}", remedy=_MAKE_REMEDY) from error
    version = document.get("imageLayoutVersion") if isinstance(document, dict) else None
    if not isinstance(version, str) or not version.startswith("1."):
        raise StoreError(
            f"{subject} has version {shown(version)}",
            remedy="concil reads version 1 of the image layout",
        )


def _blob_name(digest: Digest) -> str:
    return f"blobs/{digest.algorithm}/{digest.hex}"
