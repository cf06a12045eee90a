"""An OCI image layout in a tar archive: read where it lies, written as a whole."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from concil.config import MIB
from concil.content import Descriptor, Digest
from concil.errors import (
    Cancelled,
    ConcilError,
    DigestMismatch,
    InvalidDigest,
    NotFound,
    StoreError,
    UsageError,
    shown,
)
from concil.reference import DOCKER_ARCHIVE, OCI_ARCHIVE
from concil.store.files import FileBlob
from concil.store.layout_directory import INDEX_LIMIT, VERSION, VERSION_LIMIT, check_version
from concil.store.layout_index import Index
from concil.store.member_writer import MemberWriter
from concil.store.protocol import WriterState
from concil.store.tar_draft import Draft, Region, State, check_place, refuse_change
from concil.store.tar_file import TarFile, whole

_DAMAGED = "the archive is damaged; write it again from its source"
_FORM = "it holds oci-layout, index.json and blobs/ at its top: tar -C LAYOUT -cf FILE ."


class OCIArchive:
    """A layout in one file. Any thread may call any method.

    What is written grows in a new archive, which appears with `finish` and holds all
    that the index then leads to: so one that exists is added to.
    """

    kind = OCI_ARCHIVE

    def __init__(
        self, path: Path, *, writing: bool = False, cancel: threading.Event | None = None
    ) -> None:
        """Open an archive.

        Args:
            writing: it may be changed, and need not be there yet.
            cancel: ends what takes long.
        Raises:
            NotFound: there is none, and it was to be read.
            UsageError: it cannot be written there.
            StoreError, InvalidManifest: it is no archive of a layout, or damaged.
        """
        self.path = path
        self._writing = writing
        self._cancel = cancel
        if writing:
            check_place(path)
        self._old = TarFile(path, cancel) if path.exists() or not writing else None
        self._before = self._index_of(self._old) if self._old is not None else Index.empty()
        self._lock = threading.Lock()  # guards the fields below
        self._index = self._before
        self._draft: Draft | None = None
        self._over = False  # blobs of an image that failed may still want to begin
        self._fresh: dict[Digest, Region] = {}  # in the draft
        self._gone: set[Digest] = set()  # of the old archive
        self._changed = False  # a manifest came or went, with an entry or without

    @property
    def state(self) -> State | None:
        """What tells this state of the file from another; None: there was none."""
        return self._old.state if self._old is not None else None

    def blob_path(self, digest: Digest) -> Path:
        """Return what messages call a blob."""
        return self.path / _name(digest)

    def blob_size(self, digest: Digest) -> int | None:
        """Bytes of a blob; None: not there."""
        with self._lock:
            region, gone = self._fresh.get(digest), digest in self._gone
        if region is not None:
            return region.size
        member = self._old.members.find(_name(digest)) if self._old and not gone else None
        return member.size if member is not None else None

    def open_blob(self, digest: Digest) -> FileBlob:
        """Open a blob, unverified; the caller closes it.

        Raises:
            NotFound: there is none.
        """
        with self._lock:
            region, draft, gone = self._fresh.get(digest), self._draft, digest in self._gone
        if region is not None and draft is not None:
            return draft.open(region)
        if self._old is None or gone:
            raise NotFound(f"there is no {shown(str(self.blob_path(digest)))}", remedy=_DAMAGED)
        return self._old.open(_name(digest))

    def read_blob(self, digest: Digest, limit: int) -> bytes:
        """Read a small blob and verify it.

        Raises:
            NotFound: there is none.
            InvalidManifest: it has more than ``limit`` bytes.
            DigestMismatch: it is something else.
        """
        with self.open_blob(digest) as blob:
            content = whole(blob, limit, shown(str(self.blob_path(digest))))
        if Digest.of(content, digest.algorithm) != digest:
            raise DigestMismatch(
                f"{shown(str(self.blob_path(digest)))} does not hold what its name says",
                remedy=_DAMAGED,
            )
        return content

    def begin_blob(self, size: int, digest: Digest, _resume: WriterState | None) -> MemberWriter:
        """Begin to write a blob; there is never one to go on with.

        Raises:
            StoreError: the disk is full or refuses.
        """
        return MemberWriter(
            self._growing(), _name(digest), size, digest, partial(self._landed, digest)
        )

    def write_blob(self, content: bytes, algorithm: str = "sha256") -> Digest:
        """Write a manifest, unless it is there and whole."""
        digest = Digest.of(content, algorithm)
        try:
            self.read_blob(digest, len(content))
        except ConcilError:
            self._landed(digest, self._growing().add(_name(digest), content))
            self._changed = True
        return digest

    def remove_blob(self, digest: Digest) -> bool:
        """Remove a blob; False if there is none."""
        there = self.blob_size(digest) is not None
        with self._lock:
            region = self._fresh.pop(digest, None)
            self._gone.add(digest)
            self._changed = True
        if region is not None:
            region.whole = False
        return there

    def entries(self) -> tuple[Descriptor, ...]:
        """Return what the index lists."""
        return self._index.entries

    def names(self) -> Iterator[str]:
        """Yield a name for every entry that has one."""
        return self._index.names()

    def find(self, name: str | None) -> Descriptor | None:
        """Return the entry of a name; None for the name: the only one.

        Raises:
            UsageError: several images fit; it lists their names.
        """
        return self._index.find(name, f"archive {shown(str(self.path))}")

    def set_entry(self, name: str | None, descriptor: Descriptor) -> None:
        """Add an entry to the index, or replace the one of that name."""
        self._change(lambda index: index.with_entry(name, descriptor))

    def remove_entry(self, name: str) -> None:
        """Remove the entry of a name. Raises NotFound if there is none."""

        def without(index: Index) -> Index:
            found = index.called(name)
            if not found:
                raise NotFound(f"archive {shown(str(self.path))} has no {shown(name)}")
            return index.without(found)

        self._change(without)

    def remove_digest(self, digest: Digest) -> int:
        """Remove all entries of a digest; return how many there were."""
        count = 0

        def without(index: Index) -> Index:
            nonlocal count
            found = [entry for entry in index.entries if entry.digest == digest]
            count = len(found)
            return index.without(found)

        self._change(without)
        return count

    def finish(self) -> None:
        """Let the new archive appear, if anything changed; nothing may be called but `close`.

        Raises:
            StoreError: the disk refuses, or somebody else wrote the archive meanwhile; it
                is as it was.
        """
        if self._index == self._before and not self._changed:
            return  # blobs of images that failed are of no use
        draft = self._growing()
        self._carry(draft)
        draft.add("oci-layout", VERSION)
        draft.add("index.json", self._index.body())
        refuse_change(draft.final, self.state, "run it again; it adds to what is there")
        with self._lock:
            self._draft, self._over = None, True
        draft.commit()

    def close(self) -> None:
        """Let go; what is not finished is thrown away."""
        with self._lock:
            draft, self._draft, self._over = self._draft, None, True
        if draft is not None:
            draft.discard()
        if self._old is not None:
            self._old.close()

    def _growing(self) -> Draft:
        if not self._writing:
            raise UsageError(
                f"archive {shown(str(self.path))} is not changed in place",
                remedy="copy what you want to keep into a new one",
            )
        if self._old is not None and self._old.packed:
            raise UsageError(
                f"archive {shown(str(self.path))} is packed with gzip: it cannot be added to",
                remedy="unpack it with gunzip, or name another file",
            )
        with self._lock:
            if self._over:
                raise StoreError(f"archive {shown(str(self.path))} is closed")
            if self._draft is None:
                self._draft = Draft(self.path)
                for name in ("blobs/", "blobs/sha256/"):
                    self._draft.add_directory(name)
            return self._draft

    def _landed(self, digest: Digest, region: Region) -> None:
        with self._lock:
            if digest in self._fresh:
                region.whole = False  # somebody else brought it first
            else:
                self._fresh[digest] = region

    def _change(self, change: Callable[[Index], Index]) -> None:
        self._growing()  # says whether it may be changed
        with self._lock:
            self._index = change(self._index)

    def _carry(self, draft: Draft) -> None:
        """Take over the blobs of the old archive, as a layout keeps them."""
        if self._old is None:
            return
        for name in self._old.members.names():
            kind, _, rest = name.partition("/")
            with contextlib.suppress(InvalidDigest):
                digest = Digest.parse(rest.replace("/", ":", 1) if kind == "blobs" else "")
                if digest not in self._fresh and digest not in self._gone:
                    self._copy(digest, draft)

    def _copy(self, digest: Digest, draft: Draft) -> None:
        with self.open_blob(digest) as blob:
            region, position = draft.reserve(_name(digest), blob.size), 0
            buffer = memoryview(bytearray(min(MIB, max(1, blob.size))))
            while count := blob.readinto(buffer):
                if self._cancel is not None and self._cancel.is_set():
                    raise Cancelled(f"stopped while {self.path} was written; it is as it was")
                draft.write_at(region, position, buffer[:count])
                position += count
            region.whole = True

    def _index_of(self, old: TarFile) -> Index:
        try:
            check_version(old.read("oci-layout", VERSION_LIMIT), old.subject)
            body = old.read("index.json", INDEX_LIMIT)
        except NotFound as error:
            saved = old.members.find("manifest.json") is not None
            remedy = f"read it as {DOCKER_ARCHIVE}:FILE" if saved else _FORM
            old.close()
            raise StoreError(f"not an archive of a layout: {error}", remedy=remedy) from error
        except BaseException:  # raised again: nobody else could close it
            old.close()
            raise
        return Index.parse(body, f"index.json in {old.subject}")


def _name(digest: Digest) -> str:
    return f"blobs/{digest.algorithm}/{digest.hex}"
