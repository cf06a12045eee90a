"""OCI image layout as source and destination."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace

from concil.config import MIB
from concil.errors import (
    ContentError,
    DigestMismatch,
    InvalidDigest,
    InvalidManifest,
    NotFound,
    SizeMismatch,
    UsageError,
    safe_repr,
)
from concil.fs.local_file import FileBlobReader
from concil.fs.partial_file import PartialFile
from concil.fs.resume_state import WriterState
from concil.oci.descriptor import Descriptor
from concil.oci.manifest import Digest, Manifest
from concil.oci.media_types import (
    DOCKER_MANIFEST,
    DOCKER_MANIFEST_LIST,
    OCI_INDEX,
    OCI_MANIFEST,
)
from concil.store.base_store import BaseStore
from concil.store.layout.backend import LayoutBackend
from concil.store.layout.directory import LayoutDirectory
from concil.store.layout.referrers import LayoutReferrers
from concil.store.protocols import BlobWriter

__all__ = ["LayoutBackend", "LayoutDirectory", "LayoutStore"]

# Docker manifests have their own mediaType: registries reject one that is only listed so.
_OCI_TYPES = {DOCKER_MANIFEST: OCI_MANIFEST, DOCKER_MANIFEST_LIST: OCI_INDEX}


class LayoutStore(BaseStore):
    """A layout as a source and a destination of images. Any thread may call any method.

    A reference is the name of an image or a digest. The reference "" is the only image when
    reading, and an unnamed entry when writing.
    """

    host = ""
    lists_referrers = True

    def __init__(self, backend: LayoutBackend, *, manifest_limit: int = 4 * MIB) -> None:
        """Use an open layout; ``manifest_limit`` is in bytes."""
        self.backend = backend
        self.name = f"{backend.scheme}:{backend.path}"
        self.mount_scope = f"{backend.scheme}:{os.path.realpath(backend.path)}"
        self._manifest_limit = manifest_limit
        self._referrers = LayoutReferrers(backend, manifest_limit)

    def find_manifest(self, reference: str) -> Descriptor | None:
        """Look up an image; an entry whose manifest is missing is ignored.

        For "" the result is None also if there are several images; the error of
        `get_manifest` then lists them.

        Raises:
            UsageError: several images share the name.
            InvalidManifest, StoreError: the layout is damaged.
        """
        digest = _parse_digest(reference)
        if digest is None:
            return self._find_by_name(reference)
        try:
            manifest = self._read_manifest(digest, self._media_type(digest))
        except (NotFound, ContentError):
            return None
        return Descriptor(manifest.media_type, digest, len(manifest.body))

    def get_manifest(self, reference: str) -> Manifest:
        """Read a manifest and verify it.

        Raises:
            NotFound: there is no such image, or its manifest is missing.
            UsageError: the reference is ambiguous; the message lists the images.
            DigestMismatch, InvalidManifest, StoreError: the layout is damaged.
        """
        digest = _parse_digest(reference)
        if digest is not None:
            return self._read_manifest(digest, self._media_type(digest))
        entry = self.backend.find_entry(reference or None)
        if entry is None:
            raise self._not_found_error(reference)
        return self._read_manifest(entry.digest, entry.media_type)

    def open_blob(
        self, blob: Descriptor, start: int = 0, stop: int | None = None
    ) -> FileBlobReader:
        """Open the bytes from ``start`` up to ``stop``, half-open; they are not verified.

        Raises:
            NotFound: there is no such blob.
            SizeMismatch: the size of the file differs from the descriptor.
            StoreError: it is not a regular file.
        """
        reader = self.backend.open_blob(blob.digest)
        if reader.size == blob.size:
            return reader.set_range(start, stop)
        reader.close()
        raise SizeMismatch(
            f"{safe_repr(str(self.backend.blob_path(blob.digest)))} has {reader.size} bytes"
            f" instead of {blob.size}",
            remedy="the layout is damaged; write it again from its source",
        )

    def has_blob(self, blob: Descriptor) -> bool:
        """Return whether the blob exists as a regular file of the right size."""
        return self.backend.blob_size(blob.digest) == blob.size

    def check_blob(self, blob: Descriptor) -> None:
        """Check that the blob exists, before a destination begins to write it.

        Raises:
            NotFound: the blob is missing.
            StoreError: it is not a regular file.
        """
        if self.backend.blob_size(blob.digest) is not None:
            return
        try:
            self.backend.open_blob(blob.digest).close()
        except NotFound as error:
            raise NotFound(
                f"blob {blob.digest} is neither in {safe_repr(self.name)} nor at the destination",
                remedy="first import the layouts that were exported before, or export again "
                "without baseline=",
            ) from error

    def begin_blob(
        self, size: int, digest: Digest | None = None, resume: WriterState | None = None
    ) -> BlobWriter | PartialFile:
        """Begin to write a blob, or resume an interrupted write.

        Args:
            size: bytes.
            digest: required, because it is the name of the file.
            resume: the result of the earlier writer's `state`.

        Raises:
            UsageError: there is no digest.
            StoreError: the write fails, or a symbolic link is in the way.
        """
        if digest is None:
            raise UsageError(
                f"a blob for {safe_repr(self.name)} needs its digest before the first byte",
                remedy="give its digest",
            )
        return self.backend.begin_blob(size, digest, resume)

    def put_manifest(self, manifest: Manifest, reference: str) -> None:
        """Write a manifest, and then its entry unless the reference is a digest.

        A manifest with a subject always gets an entry, because nothing else refers to it.

        Raises:
            DigestMismatch: the manifest does not match the digest in the reference.
            StoreError: the write fails; the index is unchanged.
        """
        digest = _parse_digest(reference)
        if digest is None:
            digest = self.backend.write_blob(manifest.body)
            entry = Descriptor(manifest.media_type, digest, len(manifest.body))
            self.backend.set_entry(reference or None, entry)
        elif Digest.from_bytes(manifest.body, digest.algorithm) == digest:
            subject = manifest.subject
            self.backend.write_blob(manifest.body, digest.algorithm)
            if subject is not None:
                self._referrers.add(manifest, digest)
        else:
            raise DigestMismatch(f"the manifest for {safe_repr(self.name)} does not match {digest}")

    def referrers(self, subject: Digest, image_reference: str = "", /) -> Sequence[Descriptor]:
        """Return the referrers of a manifest. See `store.protocols.Store`."""
        return self._referrers.list_referrers(subject, image_reference)

    def digest_tags(self, subject: Digest, image_reference: str = "", /) -> Sequence[str]:
        """Return names made of a digest and a suffix. See `store.protocols.Store`."""
        return self._referrers.digest_tags(subject, image_reference)

    def delete_manifest(self, reference: str) -> None:
        """Remove the entry with a name; for a digest, the manifest and all its entries.

        Blobs are kept, and so is a manifest that only loses its name.

        Raises:
            NotFound: there is no such image.
        """
        digest = _parse_digest(reference)
        if digest is None:
            if not reference:
                raise UsageError(
                    f"neither a name nor a digest of an image in {safe_repr(self.name)} is given",
                    remedy="give a name or a digest",
                )
            self.backend.remove_entry(reference)
            return
        # A layer is a blob, too, so only a valid manifest is removed.
        is_manifest = self.find_manifest(reference) is not None
        removed = self.backend.remove_entries(digest)
        if is_manifest:
            self.backend.remove_blob(digest)
        elif not removed:
            raise self._not_found_error(reference)

    def delete_tag(self, tag: str) -> None:
        """Remove the entry with a name; the image itself is kept."""
        self.backend.remove_entry(tag)

    def tags(self) -> Iterator[str]:
        """Yield the names of the images."""
        return self.backend.names()

    def _find_by_name(self, reference: str) -> Descriptor | None:
        try:
            entry = self.backend.find_entry(reference or None)
        except UsageError:
            if reference:
                raise
            return None
        if entry is None or self.backend.blob_size(entry.digest) != entry.size:
            return None
        if not entry.media_type:  # only the manifest itself has the type
            return replace(entry, media_type=self._read_manifest(entry.digest, "").media_type)
        return entry

    def _media_type(self, digest: Digest) -> str:
        """Return the media type in the index, "" if the digest has no entry."""
        entry = self.backend.entry_of(digest)
        return "" if entry is None else entry.media_type

    def _read_manifest(self, digest: Digest, media_type: str) -> Manifest:
        body = self.backend.read_blob(digest, self._manifest_limit)
        try:
            return Manifest.parse(body, _OCI_TYPES.get(media_type, media_type))
        except InvalidManifest as error:
            what = f"{safe_repr(self.name)}: manifest {digest}"
            raise InvalidManifest(f"{what}: {error}", remedy=error.remedy) from error

    def _not_found_error(self, reference: str) -> NotFound:
        names = safe_repr(", ".join(self.backend.names()), 400)
        what = safe_repr(reference) if reference else "image"
        return NotFound(f"{safe_repr(self.name)} has no {what}", remedy=f"it contains {names}")


def _parse_digest(reference: str) -> Digest | None:
    """Parse a reference that is a digest; return None for a name.

    Raises:
        InvalidDigest: it begins like a digest but is invalid.
    """
    try:
        return Digest.parse(reference)
    except InvalidDigest:
        if reference.startswith(("sha256:", "sha512:")):
            raise
        return None
