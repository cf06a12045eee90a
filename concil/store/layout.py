"""An OCI image layout as a place that images are read from and written to."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace

from concil.config import MIB
from concil.content import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    Digest,
    Manifest,
)
from concil.errors import (
    ContentError,
    DigestMismatch,
    InvalidDigest,
    InvalidManifest,
    NotFound,
    SizeMismatch,
    UsageError,
    shown,
)
from concil.store.contents import Contents
from concil.store.files import FileBlob
from concil.store.layout_directory import Layout
from concil.store.layout_referrers import LayoutReferrers
from concil.store.protocol import BlobWriter, RangeWriter, WriterState

__all__ = ["Contents", "Layout", "LayoutStore"]

# Docker's formats have a mediaType in every document: registries refuse one that is only listed so.
_OCI_TYPES = {DOCKER_MANIFEST: OCI_MANIFEST, DOCKER_LIST: OCI_INDEX}


class LayoutStore:
    """A layout as a source and a destination of images. Any thread may call any method.

    A reference is the name of an image, a digest, or "": the only image on reading,
    an entry without name on writing.
    """

    host = ""

    def __init__(self, layout: Contents, *, manifest_limit: int = 4 * MIB) -> None:
        """Use an open layout; ``manifest_limit`` is in bytes."""
        self.layout = layout
        self.name = f"{layout.kind}:{layout.path}"
        self.realm = f"{layout.kind}:{os.path.realpath(layout.path)}"
        self._manifest_limit = manifest_limit
        self._referrers = LayoutReferrers(layout, manifest_limit)

    def find_manifest(self, reference: str) -> Descriptor | None:
        """Ask what is there; an entry whose manifest is missing counts as none.

        For "" it is None also where several images could be meant: `get_manifest`
        then tells them apart in its error.

        Raises:
            UsageError: several images share the name.
            InvalidManifest, StoreError: the layout is damaged.
        """
        digest = _digest(reference)
        if digest is None:
            return self._find_named(reference)
        try:
            manifest = self._read(digest, self._media_type(digest))
        except (NotFound, ContentError):
            return None
        return Descriptor(manifest.media_type, digest, len(manifest.body))

    def get_manifest(self, reference: str) -> Manifest:
        """Read a manifest and verify it.

        Raises:
            NotFound: there is no such image, or its manifest is missing.
            UsageError: several images could be meant; it lists them.
            DigestMismatch, InvalidManifest, StoreError: the layout is damaged.
        """
        digest = _digest(reference)
        if digest is not None:
            return self._read(digest, self._media_type(digest))
        entry = self.layout.find(reference or None)
        if entry is None:
            raise self._missing(reference)
        return self._read(entry.digest, entry.media_type)

    def open_blob(self, blob: Descriptor, start: int = 0, stop: int | None = None) -> FileBlob:
        """Open the bytes from ``start`` up to ``stop``, half-open; unverified.

        Raises:
            NotFound: there is no such blob.
            SizeMismatch: the file has not the size that the descriptor says.
            StoreError: something else than a regular file is in its place.
        """
        reader = self.layout.open_blob(blob.digest)
        if reader.size == blob.size:
            return reader.between(start, stop)
        reader.close()
        raise SizeMismatch(
            f"{shown(str(self.layout.blob_path(blob.digest)))} has {reader.size} bytes"
            f" instead of {blob.size}",
            remedy="the layout is damaged; write it again from its source",
        )

    def has_blob(self, blob: Descriptor) -> bool:
        """Whether there is a regular file of the blob with its size."""
        return self.layout.blob_size(blob.digest) == blob.size

    def check_blob(self, blob: Descriptor) -> None:
        """See that the blob is there, before a destination that has it not begins with it.

        Raises:
            NotFound: it is not.
            StoreError: something else than a regular file is in its place.
        """
        if self.layout.blob_size(blob.digest) is not None:
            return
        try:
            self.layout.open_blob(blob.digest).close()
        except NotFound as error:
            raise NotFound(
                f"blob {blob.digest} is neither in {shown(self.name)} nor at the destination",
                remedy="bring what was carried over before, or write the layout again, without "
                "held= if it was left out",
            ) from error

    def begin_blob(
        self, size: int, digest: Digest | None = None, resume: WriterState | None = None
    ) -> BlobWriter | RangeWriter:
        """Begin to write a blob, or go on with what is there of it.

        Args:
            size: bytes.
            digest: needed: the file is named by it.
            resume: what `state` of such a writer said.

        Raises:
            UsageError: there is no digest.
            StoreError: the disk refuses, or a link is in the way.
        """
        if digest is None:
            raise UsageError(
                f"a blob for {shown(self.name)} needs its digest before the first byte",
                remedy="hash the file first",
            )
        return self.layout.begin_blob(size, digest, resume)

    def put_manifest(self, manifest: Manifest, reference: str) -> None:
        """Write a manifest; its bytes first, then its entry unless it goes by digest.

        One that refers to another has an entry in any case: nothing else leads to it.

        Raises:
            DigestMismatch: the manifest is not what the reference says.
            StoreError: the disk refuses; the index is as it was.
        """
        digest = _digest(reference)
        if digest is None:
            digest = self.layout.write_blob(manifest.body)
            entry = Descriptor(manifest.media_type, digest, len(manifest.body))
            self.layout.set_entry(reference or None, entry)
        elif Digest.of(manifest.body, digest.algorithm) == digest:
            subject = manifest.subject
            self.layout.write_blob(manifest.body, digest.algorithm)
            if subject is not None:
                self._referrers.add(manifest, digest)
        else:
            raise DigestMismatch(f"the manifest to write to {shown(self.name)} is not {digest}")

    def referrers(self, subject: Digest, beside: str = "", /) -> Sequence[Descriptor]:
        """What refers to a manifest. See `store.protocol.Referring`."""
        return self._referrers.of(subject, beside)

    def digest_tags(self, subject: Digest, beside: str = "", /) -> Sequence[str]:
        """Names that are a digest and a suffix. See `store.protocol.Referring`."""
        return self._referrers.names(subject, beside)

    def delete_manifest(self, reference: str) -> None:
        """Remove the entry of a name; or, by digest, the manifest and all its entries.

        Blobs stay, and so does a manifest that only lost its name.

        Raises:
            NotFound: there is no such image.
        """
        digest = _digest(reference)
        if digest is None:
            if not reference:
                raise UsageError(
                    f"no image of {shown(self.name)} was named", remedy="give a name or a digest"
                )
            self.layout.remove_entry(reference)
            return
        # A layer is a blob too: only what reads as a manifest is removed.
        is_manifest = self.find_manifest(reference) is not None
        removed = self.layout.remove_digest(digest)
        if is_manifest:
            self.layout.remove_blob(digest)
        elif not removed:
            raise self._missing(reference)

    def delete_tag(self, tag: str) -> None:
        """Remove the entry of a name; what it named stays."""
        self.layout.remove_entry(tag)

    def tags(self) -> Iterator[str]:
        """Yield the names of the images."""
        return self.layout.names()

    def _find_named(self, reference: str) -> Descriptor | None:
        try:
            entry = self.layout.find(reference or None)
        except UsageError:
            if reference:
                raise
            return None
        if entry is None or self.layout.blob_size(entry.digest) != entry.size:
            return None
        if not entry.media_type:  # what it is only the manifest itself says
            return replace(entry, media_type=self._read(entry.digest, "").media_type)
        return entry

    def _media_type(self, digest: Digest) -> str:
        """What the index says the manifest is, "" where it does not mention it."""
        entry = self.layout.entry_of(digest)
        return "" if entry is None else entry.media_type

    def _read(self, digest: Digest, media_type: str) -> Manifest:
        body = self.layout.read_blob(digest, self._manifest_limit)
        try:
            return Manifest.parse(body, _OCI_TYPES.get(media_type, media_type))
        except InvalidManifest as error:
            what = f"{shown(self.name)}: manifest {digest}"
            raise InvalidManifest(f"{what}: {error}", remedy=error.remedy) from error

    def _missing(self, reference: str) -> NotFound:
        names = shown(", ".join(self.layout.names()), 400)
        what = shown(reference) if reference else "image"
        return NotFound(f"{shown(self.name)} has no {what}", remedy=f"it has {names}")


def _digest(reference: str) -> Digest | None:
    """Return the digest a reference is, None for a name.

    Raises:
        InvalidDigest: it begins like a digest and is none.
    """
    try:
        return Digest.parse(reference)
    except InvalidDigest:
        if reference.startswith(("sha256:", "sha512:")):
            raise
        return None
