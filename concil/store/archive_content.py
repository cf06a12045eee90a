"""What the file of an oci-archive holds at one moment."""

from __future__ import annotations

import contextlib
import logging
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from concil.config import MIB
from concil.content import Descriptor, Digest
from concil.errors import Cancelled, InvalidDigest, NotFound, StoreError, UsageError
from concil.reference import DOCKER_ARCHIVE
from concil.store.layout_directory import VERSION_LIMIT, check_version, without_version
from concil.store.layout_index import Index
from concil.store.layout_index_file import INDEX_LIMIT, untyped_entries
from concil.store.tar_draft import Draft, State
from concil.store.tar_file import TarFile

logger = logging.getLogger(__name__)

_FORM = "it holds oci-layout, index.json and blobs/ at its top: tar -C LAYOUT -cf FILE ."


@dataclass(frozen=True, slots=True)
class ArchiveContent:
    """An open file with a layout in it, or the lack of one."""

    tar: TarFile | None  # None: there is no file
    index: Index

    @classmethod
    def of(cls, path: Path, cancel: threading.Event | None, *, may_be_missing: bool = True) -> Self:
        """Open a file; the caller closes it.

        Args:
            cancel: ends what takes long.
        Raises:
            NotFound: there is none, and it is not to be missing.
            StoreError, InvalidManifest: it is no archive of a layout, or damaged.
        """
        try:
            tar = TarFile(path, cancel)
        except NotFound:
            if not may_be_missing:
                raise
            return cls(None, Index.empty())
        try:
            name, body = f"index.json in {tar.subject}", tar.read("index.json", INDEX_LIMIT)
            _check_version(tar)
            index = Index.parse(body, name)
            if index.untyped:
                logger.warning("%s", untyped_entries(name, index.untyped))
            return cls(tar, index)
        except NotFound as error:
            is_saved = tar.members.find("manifest.json") is not None
            remedy = f"read it as {DOCKER_ARCHIVE}:FILE" if is_saved else _FORM
            tar.close()
            raise StoreError(f"not an archive of a layout: {error}", remedy=remedy) from error
        except BaseException:  # raised again: nobody else could close it
            tar.close()
            raise

    @property
    def state(self) -> State | None:
        """What tells this state of the file from another; None: there was none."""
        return self.tar.state if self.tar is not None else None

    def size_of(self, digest: Digest) -> int | None:
        """Bytes of a blob; None: not there."""
        member = self.tar.members.find(blob_name(digest)) if self.tar is not None else None
        return member.size if member is not None else None

    def check_plain(self) -> None:
        """Refuse to add to a file that is packed as a whole.

        Raises:
            UsageError: it is.
        """
        packing = self.tar.packing if self.tar is not None else None
        if self.tar is not None and packing is not None:
            raise UsageError(
                f"{self.tar.subject} is packed with {packing.name}: it cannot be added to",
                remedy=f"unpack it with {packing.program}, or name another file",
            )

    def carry(self, draft: Draft, carried: set[Digest], cancel: threading.Event | None) -> None:
        """Copy the blobs into another archive, as a layout keeps them.

        Args:
            carried: those that it has, or is not to have; the others are added.
        Raises:
            Cancelled: ``cancel`` was set.
        """
        if self.tar is None:
            return
        for name in self.tar.members.names():
            kind, _, rest = name.partition("/")
            with contextlib.suppress(InvalidDigest):
                digest = Digest.parse(rest.replace("/", ":", 1) if kind == "blobs" else "")
                if digest not in carried:
                    carried.add(digest)
                    _copy(self.tar, name, draft, cancel)

    def close(self) -> None:
        """Let go of the file."""
        if self.tar is not None:
            self.tar.close()


@dataclass(slots=True)
class FoundContent:
    """What a writer found in the file and does not write again. The caller holds a lock."""

    names: dict[str, Descriptor] = field(default_factory=dict)
    blobs: set[Digest] = field(default_factory=set)

    def is_missing_in(self, content: ArchiveContent) -> bool:
        """Whether any of it is not there any more."""
        names = set(content.index.names())
        return not names.issuperset(self.names) or any(
            content.size_of(digest) is None for digest in self.blobs
        )

    def restore(self, before: Index, index: Index) -> None:
        """Put the entries that were found back into an index that has them no more.

        Somebody may have put another archive in the place of the one that was opened.

        Args:
            before: where they were found.
        """
        names, digests = set(index.names()), {entry.digest for entry in index.entries}
        for name, entry in self.names.items():
            if name not in names:
                index.set_entry(name, entry)
                digests.add(entry.digest)
        for entry in before.entries:
            if entry.digest in self.blobs and entry.digest not in digests:
                index.set_entry(None, entry)


def blob_name(digest: Digest) -> str:
    """Return the name of the member that a blob is."""
    return f"blobs/{digest.algorithm}/{digest.hex}"


def _check_version(tar: TarFile) -> None:
    """Check the version of the layout; an archive that does not say it is read with a warning."""
    try:
        version = tar.read("oci-layout", VERSION_LIMIT)
    except NotFound:
        logger.warning("%s", without_version(tar.subject))
    else:
        check_version(version, tar.subject)


def _copy(tar: TarFile, name: str, draft: Draft, cancel: threading.Event | None) -> None:
    with tar.open(name) as blob:
        region, position = draft.reserve(name, blob.size), 0
        buffer = memoryview(bytearray(min(MIB, max(1, blob.size))))
        while count := blob.readinto(buffer):
            if cancel is not None and cancel.is_set():
                raise Cancelled(f"stopped while {draft.final} was written; it is as it was")
            draft.write_at(region, position, buffer[:count])
            position += count
        region.whole = True
