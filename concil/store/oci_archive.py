"""An OCI image layout in a tar archive: read where it lies, written as a whole.

Several runs may write to one archive: each grows a new archive of its own, and at the end adds
to it, under a lock, what the others have written since.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from concil.content import Descriptor, Digest
from concil.errors import (
    ConcilError,
    DigestMismatch,
    NotFound,
    StoreError,
    UsageError,
    shown,
)
from concil.reference import OCI_ARCHIVE
from concil.store.archive_content import ArchiveContent, FoundContent, blob_name
from concil.store.archive_lock import locked
from concil.store.files import FileBlob
from concil.store.layout_directory import VERSION
from concil.store.layout_index import Edits, Index, Mark
from concil.store.member_writer import MemberWriter
from concil.store.protocol import WriterState
from concil.store.tar_draft import (
    Draft,
    Region,
    State,
    changed_meanwhile,
    check_place,
    is_changed,
    sweep,
)
from concil.store.tar_file import whole

_DAMAGED = "the archive is damaged; write it again from its source"
_ADDS = "run it again; it adds to what is there"
_LOCK_WAIT = 600.0  # seconds; whoever adds to an archive copies what others have added before


class OCIArchive:
    """A layout in one file. Any thread may call any method.

    What is written grows in a new archive, which appears with `finish` and holds all that the
    index then leads to: so one that exists is added to. That is what the file is then, and not
    what it was when it was opened: another process may have added to it.
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
        self._final = Path(os.path.realpath(path))
        self._writing = writing
        self._cancel = cancel
        if writing:
            check_place(path)
            sweep(self._final)
        self._old = ArchiveContent.of(path, cancel, may_be_missing=writing)
        self._lock = threading.Lock()  # guards the fields below
        self._index = self._old.index.copy() if writing else self._old.index
        self._draft: Draft | None = None
        self._over = False  # blobs of an image that failed may still want to begin
        self._fresh: dict[Digest, Region] = {}  # in the draft
        self._gone: set[Digest] = set()  # of the old archive
        self._changes: list[Callable[[Index], object]] = []  # of the index
        self._changed = False  # a manifest came or went, with an entry or without
        self._found = FoundContent()

    @property
    def state(self) -> State | None:
        """What tells this state of the file from another; None: there was none."""
        return self._old.state

    def blob_path(self, digest: Digest) -> Path:
        """Return what messages call a blob."""
        return self.path / blob_name(digest)

    def blob_size(self, digest: Digest) -> int | None:
        """Bytes of a blob; None: not there."""
        with self._lock:
            region, gone = self._fresh.get(digest), digest in self._gone
        if region is not None:
            return region.size
        size = self._old.size_of(digest) if not gone else None
        if size is not None:
            self._note(digest)
        return size

    def open_blob(self, digest: Digest) -> FileBlob:
        """Open a blob, unverified; the caller closes it.

        Raises:
            NotFound: there is none.
        """
        with self._lock:
            region, draft, gone = self._fresh.get(digest), self._draft, digest in self._gone
        if region is not None and draft is not None:
            return draft.open(region)
        if self._old.tar is None or gone:
            raise NotFound(f"there is no {shown(str(self.blob_path(digest)))}", remedy=_DAMAGED)
        blob = self._old.tar.open(blob_name(digest))
        self._note(digest)
        return blob

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
            self._growing(), blob_name(digest), size, digest, partial(self._landed, digest)
        )

    def write_blob(self, content: bytes, algorithm: str = "sha256") -> Digest:
        """Write a manifest, unless it is there and whole."""
        digest = Digest.of(content, algorithm)
        try:
            self.read_blob(digest, len(content))
        except ConcilError:
            self._landed(digest, self._growing().add(blob_name(digest), content))
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
        with self._lock:
            return self._index.entries

    def entry_of(self, digest: Digest) -> Descriptor | None:
        """Return the first entry of a digest, None if there is none."""
        with self._lock:
            return self._index.of_digest(digest)

    def edits_since(self, mark: Mark | None) -> Edits:
        """Return what was changed in the index since a mark. See `Index.edits_since`."""
        with self._lock:
            return self._index.edits_since(mark)

    def names(self) -> Iterator[str]:
        """Yield a name for every entry that has one."""
        with self._lock:
            return iter(list(self._index.names()))

    def find(self, name: str | None) -> Descriptor | None:
        """Return the entry of a name; None for the name: the only one.

        Raises:
            UsageError: several images fit; it lists their names.
        """
        with self._lock:
            entry = self._index.find(name, f"archive {shown(str(self.path))}")
            if self._writing and name is not None and entry is not None:
                self._found.names.setdefault(name, entry)
            return entry

    def set_entry(self, name: str | None, descriptor: Descriptor) -> None:
        """Add an entry to the index, or replace the one of that name."""
        self._change(lambda index: index.set_entry(name, descriptor))

    def remove_entry(self, name: str) -> None:
        """Remove the entry of a name. Raises NotFound if there is none."""
        if not self._change(lambda index: index.remove(name)):
            raise NotFound(f"archive {shown(str(self.path))} has no {shown(name)}")

    def remove_digest(self, digest: Digest) -> int:
        """Remove all entries of a digest; return how many there were."""
        return self._change(lambda index: index.remove_digest(digest))

    def finish(self) -> None:
        """Let the new archive appear, if anything changed; nothing may be called but `close`.

        Raises:
            StoreError: the disk refuses, another process did not end writing to it, or the
                file has become something else; it is as it was.
        """
        if not self._is_needed():
            return  # blobs of images that failed are of no use
        draft = self._growing()
        with self._lock:
            self._over = True
            carried = set(self._fresh) | self._gone
        # Without the lock, for this may take long; what has come since then takes less.
        self._old.carry(draft, carried, self._cancel)
        with locked(draft.final, _LOCK_WAIT, self._cancel), self._reopened() as content:
            if content is not self._old:
                content.carry(draft, carried, self._cancel)
            draft.add("oci-layout", VERSION)
            draft.add("index.json", self._merged(content).body())
            if is_changed(draft.final, content.state):
                raise changed_meanwhile(self.path, _ADDS)
            with self._lock:
                self._draft = None
            draft.commit()

    def close(self) -> None:
        """Let go; what is not finished is thrown away."""
        with self._lock:
            draft, self._draft, self._over = self._draft, None, True
        if draft is not None:
            draft.discard()
        self._old.close()

    def _growing(self) -> Draft:
        if not self._writing:
            raise UsageError(
                f"archive {shown(str(self.path))} is not changed in place",
                remedy="copy what you want to keep into a new one",
            )
        self._old.check_plain()
        with self._lock:
            if self._over:
                raise StoreError(f"archive {shown(str(self.path))} is closed")
            if self._draft is None:
                self._draft = Draft(self.path)
                for name in ("blobs/", "blobs/sha256/"):
                    self._draft.add_directory(name)
            return self._draft

    def _landed(self, digest: Digest, region: Region) -> None:
        """Make a member of a region that is filled, unless it comes too late."""
        with self._lock:
            # Another image may have brought the blob first.
            region.whole = digest not in self._fresh and not self._over
            if region.whole:
                self._fresh[digest] = region

    def _change(self, change: Callable[[Index], int]) -> int:
        self._growing()  # says whether it may be changed
        with self._lock:
            self._changes.append(change)
            return change(self._index)

    def _note(self, digest: Digest) -> None:
        """Take note of a blob that the file has."""
        if self._writing:
            with self._lock:
                self._found.blobs.add(digest)

    def _is_needed(self) -> bool:
        """Whether there is anything to write."""
        if self._changed or self._index != self._old.index:
            return True
        if not self._writing or not is_changed(self._final, self.state):
            return False
        # Images may be gone that were found to be up to date.
        with self._reopened() as content:
            return self._found.is_missing_in(content)

    @contextlib.contextmanager
    def _reopened(self) -> Iterator[ArchiveContent]:
        """Open what the file is now.

        Raises:
            StoreError: it is not an archive of a layout any more.
        """
        if not is_changed(self._final, self.state):
            yield self._old
            return
        try:
            content = ArchiveContent.of(self._final, self._cancel)
        except ConcilError as error:
            raise StoreError(
                f"archive {shown(str(self.path))} was written by somebody else meanwhile: {error}",
                remedy=f"move it away and {_ADDS}",
            ) from error
        with contextlib.closing(content):
            content.check_plain()
            yield content

    def _merged(self, content: ArchiveContent) -> Index:
        """Return the index of what the file is now, with the changes that were made here."""
        if content is self._old:
            return self._index
        index = content.index.copy()
        self._found.restore(self._old.index, index)
        for change in self._changes:
            change(index)
        return index
