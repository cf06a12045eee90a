"""Caches the manifests that a run has read."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Protocol

from concil.config import KIB, MIB
from concil.oci.descriptor import Descriptor
from concil.oci.manifest import Digest, Manifest
from concil.oci.platform import Platform
from concil.store.protocols import Source
from concil.transfer.image.graph import attested_digest, check_descriptor, select_platforms
from concil.transfer.image.job import RootManifest, format_count

_MAX_CACHED_BYTES = 8 * MIB
_OVERHEAD = 16 * KIB  # bytes that are charged for each manifest, besides its body


class SourceImage(Protocol):
    """The parts of an image job that are needed to read it."""

    @property
    def source(self) -> Source:
        """The store it is read from."""
        ...

    @property
    def source_reference(self) -> str:
        """Its tag or digest."""
        ...

    @property
    def platforms(self) -> tuple[Platform, ...]:
        """The platforms to copy; empty: all."""
        ...

    @property
    def source_name(self) -> str:
        """The image, as users write it."""
        ...


class ManifestCache:
    """Cache of recently read manifests. Any thread may call any method."""

    def __init__(self, limit: int = _MAX_CACHED_BYTES) -> None:
        """Keep up to ``limit`` bytes of manifests, and one for each 16 KiB of it."""
        self._limit = limit
        self._lock = threading.Lock()  # guards the fields below, never held over I/O
        self._manifests: OrderedDict[tuple[str, Digest], Manifest] = OrderedDict()
        self._size = 0  # bytes that are charged for them

    def get(self, host: str, digest: Digest, read: Callable[[], Manifest]) -> Manifest:
        """Return the manifest of a digest, reading it if it is not cached.

        Args:
            host: the source; hosts may report different media types for the same digest.
            read: may return another manifest, if a tag has moved meanwhile.
        """
        with self._lock:
            cached = self._manifests.get((host, digest))
            if cached is not None:
                self._manifests.move_to_end((host, digest))
                return cached
        manifest = read()
        self._store(host, manifest)
        return manifest

    def find_and_read(self, job: SourceImage) -> Descriptor:
        """Read the manifest of an image's reference; return its descriptor.

        Raises:
            NotFound: the source has no such image.
        """
        reference = job.source_reference
        if ":" not in reference:
            manifest = job.source.get_manifest(reference)
            self._store(job.source.host, manifest)
            return manifest.descriptor
        digest = Digest.parse(reference)
        manifest = self.get(job.source.host, digest, partial(job.source.get_manifest, reference))
        # Keep the requested digest, which may have another algorithm than the computed one.
        return replace(manifest.descriptor, digest=digest)

    def get_image_manifest(self, job: SourceImage, descriptor: Descriptor) -> Manifest:
        """Return the manifest of an image's reference, read once per digest."""
        read = partial(job.source.get_manifest, job.source_reference)
        return self.get(job.source.host, descriptor.digest, read)

    def read_root(self, job: SourceImage, descriptor: Descriptor) -> RootManifest:
        """Return the top manifest to copy: the whole image, or the part for some platforms.

        Args:
            descriptor: what the image's reference named when it was looked up.
        """
        full = self.get_image_manifest(job, descriptor)
        selected = select_platforms(full, job.platforms, job.source_name)
        if isinstance(selected, Descriptor):
            read = partial(job.source.get_manifest, str(selected.digest))
            child = self.get(job.source.host, selected.digest, read)
            check_descriptor(selected, child, job.source_name)
            count = sum(
                1 for entry in full.children() if attested_digest(entry) == str(selected.digest)
            )
            notes = (
                (f"{format_count(count, 'attestation')} not copied with the index",)
                if count
                else ()
            )
            return RootManifest(selected, child, full.digest, notes=notes)
        if selected is full:
            # A registry may use another algorithm; its digest is not trusted but computed.
            digest = Digest.from_bytes(full.body, descriptor.digest.algorithm)
            return RootManifest(replace(full.descriptor, digest=digest), full, digest)
        platforms = ", ".join(map(str, job.platforms))
        note = f"the index is rewritten for {platforms}: {selected.digest} instead of {full.digest}"
        return RootManifest(selected.descriptor, selected, full.digest, full.digest, (note,))

    def _store(self, host: str, manifest: Manifest) -> None:
        key = host, manifest.digest
        with self._lock:
            if key not in self._manifests:
                self._size += len(manifest.body) + _OVERHEAD
            self._manifests[key] = manifest
            while self._size > self._limit:
                _, oldest = self._manifests.popitem(last=False)
                self._size -= len(oldest.body) + _OVERHEAD
