"""Baseline: what the other side of an air gap already has."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import field

from concil.config import MIB
from concil.errors import ContentError, InvalidDigest, InvalidReference, NotFound, StoreError
from concil.oci.descriptor import Descriptor
from concil.oci.manifest import Digest, Manifest
from concil.oci.media_types import OCI_MANIFEST
from concil.oci.reference import Reference
from concil.oci.strict_json import InvalidJSON, parse_json
from concil.runtime.dataclass import dataclass
from concil.store.layout.referrers import LayoutReferrers
from concil.store.layout.store import LayoutBackend

# Annotation of an index.json entry: blobs missing from the layout, with their repositories.
OMITTED_BLOBS = "concil.left-out"
_MAX_REPOSITORIES = 3  # per blob: one that still exists is enough for a mount
_MAX_MANIFEST_SIZE = 4 * MIB  # bytes

RepositoriesByBlob = Mapping[Digest, tuple[str, ...]]  # blob digests to repository addresses


@dataclass(slots=True)
class Baseline:
    """Images and blobs that the other side has. Written by one thread, then read by any."""

    images: dict[str, Digest] = field(default_factory=dict)  # by name in the layout
    blobs: dict[Digest, tuple[str, ...]] = field(default_factory=dict)  # with their repositories
    referrers: dict[Digest, tuple[Descriptor, ...]] = field(default_factory=dict)  # by subject

    def add_image(self, name: str, image: Digest, blobs: Iterable[Digest]) -> None:
        """Add an image under its name in a layout, with its blobs."""
        self.images[name] = image
        repository = parse_repository(name)
        for digest in blobs:
            repositories = self.blobs.get(digest, ())
            if repository is not None and len(repositories) < _MAX_REPOSITORIES:
                repositories = tuple(dict.fromkeys((*repositories, repository)))
            self.blobs[digest] = repositories

    def find_image(self, name: str) -> Descriptor | None:
        """Return the image with a name; only its digest is valid in the descriptor."""
        digest = self.images.get(name)
        return Descriptor(OCI_MANIFEST, digest, 0) if digest is not None else None


def parse_repository(name: str) -> str | None:
    """Return the repository that an image name contains, None if there is none."""
    try:
        return Reference.parse(name).repository_address if {":", "/"} & set(name) else None
    except InvalidReference:
        return None


def read_baseline(layout: LayoutBackend) -> Baseline:
    """Read the named images of a layout with their blobs and referrers.

    Raises:
        ContentError, StoreError: the layout is damaged.
    """
    baseline = Baseline()
    for name in layout.names():
        entry = layout.find_entry(name)
        if entry is None:
            continue
        omitted = omitted_blobs(entry)
        digests = (
            blob.digest
            for blob in _iter_blobs(layout, entry)
            if blob.digest in omitted or layout.blob_size(blob.digest) == blob.size
        )
        baseline.add_image(name, entry.digest, digests)
    for subject, entry in LayoutReferrers(layout, _MAX_MANIFEST_SIZE).list_all():
        baseline.referrers[subject] = (*baseline.referrers.get(subject, ()), entry)
    return baseline


def omitted_blobs(entry: Descriptor) -> RepositoriesByBlob:
    """Return the omitted blobs that an index entry lists; empty if the annotation is invalid."""
    try:
        repositories_by_blob = parse_json(entry.annotations.get(OMITTED_BLOBS, "{}").encode())
        if not isinstance(repositories_by_blob, dict):
            return {}
        return {
            Digest.parse(digest): tuple(name for name in names if isinstance(name, str))
            for digest, names in repositories_by_blob.items()
            if isinstance(names, list)
        }
    except (InvalidJSON, InvalidDigest, UnicodeEncodeError):
        return {}


def with_omitted_blobs(entry: Descriptor, blobs: RepositoriesByBlob) -> Descriptor:
    """Return the entry with an annotation that lists the omitted blobs."""
    text = json.dumps({str(digest): names for digest, names in blobs.items()})
    return Descriptor(entry.media_type, entry.digest, entry.size, annotations={OMITTED_BLOBS: text})


def _iter_blobs(layout: LayoutBackend, entry: Descriptor) -> Iterator[Descriptor]:
    """Yield the blobs of an image; missing manifests are skipped."""
    pending, seen = [entry], {entry.digest}
    while pending:
        descriptor = pending.pop()
        try:
            body = layout.read_blob(descriptor.digest, _MAX_MANIFEST_SIZE)
            manifest = Manifest.parse(body, descriptor.media_type)
        except (NotFound, StoreError, ContentError):
            continue
        yield from manifest.blobs()
        for child in manifest.children():
            if child.digest not in seen:
                seen.add(child.digest)
                if child.is_manifest:
                    pending.append(child)
                else:
                    yield child
