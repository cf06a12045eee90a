"""Snapshot of the content of an oci-archive."""

from __future__ import annotations

import contextlib
import logging
import threading
from dataclasses import field
from pathlib import Path
from typing import Self

from concil.config import MIB
from concil.errors import Cancelled, InvalidDigest, NotFound, StoreError, UsageError
from concil.oci.address import DOCKER_ARCHIVE
from concil.oci.descriptor import Descriptor
from concil.oci.manifest import Digest
from concil.runtime.dataclass import dataclass
from concil.store.archive.tar_builder import StatSignature, TarBuilder
from concil.store.archive.tar_reader import TarReader
from concil.store.layout.directory import MAX_VERSION_SIZE, check_version, without_version
from concil.store.layout.index import Index
from concil.store.layout.index_file import MAX_INDEX_SIZE, untyped_entries

logger = logging.getLogger(__name__)

_LAYOUT_REMEDY = (
    "an oci-archive has oci-layout, index.json and blobs/ at its top level: "
    "tar -C LAYOUT -cf FILE ."
)


@dataclass(frozen=True, slots=True)
class ArchiveContent:
    """An open archive with a layout, or a missing file."""

    tar: TarReader | None  # None: there is no file
    index: Index

    @classmethod
    def open(
        cls, path: Path, cancel: threading.Event | None, *, may_be_missing: bool = True
    ) -> Self:
        """Open a file; the caller closes it.

        Args:
            cancel: stops long operations.
        Raises:
            NotFound: there is no archive, and ``may_be_missing`` is False.
            StoreError, InvalidManifest: it is not an archive of a layout, or damaged.
        """
        try:
            tar = TarReader(path, cancel)
        except NotFound:
            if not may_be_missing:
                raise
            return cls(None, Index.empty())
        try:
            name, body = f"index.json in {tar.display_name}", tar.read("index.json", MAX_INDEX_SIZE)
            _check_version(tar)
            index = Index.parse(body, name)
            if index.untyped:
                logger.warning("%s", untyped_entries(name, index.untyped))
            return cls(tar, index)
        except NotFound as error:
            has_docker_manifest = tar.members.find("manifest.json") is not None
            remedy = f"read it as {DOCKER_ARCHIVE}:FILE" if has_docker_manifest else _LAYOUT_REMEDY
            tar.close()
            raise StoreError(f"not an oci-archive: {error}", remedy=remedy) from error
        except BaseException:  # raised again: no caller could close the archive
            tar.close()
            raise

    @property
    def stat_signature(self) -> StatSignature | None:
        """Signature of the opened file, to detect changes; None if there was no file."""
        return self.tar.stat_signature if self.tar is not None else None

    def blob_size(self, digest: Digest) -> int | None:
        """Return the size of a blob in bytes, None if it is missing."""
        member = self.tar.members.find(blob_name(digest)) if self.tar is not None else None
        return member.size if member is not None else None

    def check_uncompressed(self) -> None:
        """Reject a compressed archive: it cannot be added to.

        Raises:
            UsageError: the archive is compressed.
        """
        compression = self.tar.compression if self.tar is not None else None
        if self.tar is not None and compression is not None:
            raise UsageError(
                f"{self.tar.display_name} is compressed with {compression.name}: images cannot "
                "be added to it",
                remedy=f"decompress it with {compression.program}, or choose another file",
            )

    def copy_blobs(
        self, builder: TarBuilder, excluded: set[Digest], cancel: threading.Event | None
    ) -> None:
        """Copy the blobs into another archive.

        Args:
            excluded: blobs that are not copied; the copied ones are added.
        Raises:
            Cancelled: ``cancel`` was set.
        """
        if self.tar is None:
            return
        for name in self.tar.members.names():
            kind, _, rest = name.partition("/")
            with contextlib.suppress(InvalidDigest):
                digest = Digest.parse(rest.replace("/", ":", 1) if kind == "blobs" else "")
                if digest not in excluded:
                    excluded.add(digest)
                    _copy_member(self.tar, name, builder, cancel)

    def close(self) -> None:
        """Close the file."""
        if self.tar is not None:
            self.tar.close()


@dataclass(slots=True)
class ObservedContent:
    """Names and blobs that a writer found in the file and did not write. Not thread-safe."""

    names: dict[str, Descriptor] = field(default_factory=dict)
    blobs: set[Digest] = field(default_factory=set)

    def is_missing_in(self, content: ArchiveContent) -> bool:
        """Return whether any of the names or blobs is missing now."""
        names = set(content.index.names())
        return not names.issuperset(self.names) or any(
            content.blob_size(digest) is None for digest in self.blobs
        )

    def restore(self, before: Index, index: Index) -> None:
        """Add the observed entries again to an index that has lost them.

        Another program may have replaced the archive since it was opened.

        Args:
            before: the index in which they were observed.
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
    """Return the member name of a blob."""
    return f"blobs/{digest.algorithm}/{digest.hex}"


def _check_version(tar: TarReader) -> None:
    """Check the version of the layout; log a warning if the archive does not have one."""
    try:
        version = tar.read("oci-layout", MAX_VERSION_SIZE)
    except NotFound:
        logger.warning("%s", without_version(tar.display_name))
    else:
        check_version(version, tar.display_name)


def _copy_member(
    tar: TarReader, name: str, builder: TarBuilder, cancel: threading.Event | None
) -> None:
    with tar.open(name) as blob:
        region, position = builder.reserve(name, blob.size), 0
        buffer = memoryview(bytearray(min(MIB, max(1, blob.size))))
        while count := blob.readinto(buffer):
            if cancel is not None and cancel.is_set():
                raise Cancelled(
                    f"stopped while {builder.final_path} was written; the archive is unchanged"
                )
            builder.write_at(region, position, buffer[:count])
            position += count
        region.is_complete = True
