"""What the other side of an air gap has already, and what a layout therefore lacks."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from concil.config import MIB
from concil.content import OCI_MANIFEST, Descriptor, Digest, Manifest
from concil.errors import ContentError, InvalidDigest, InvalidReference, NotFound, StoreError
from concil.reference import Reference
from concil.store.layout import Contents
from concil.store.layout_referrers import LayoutReferrers
from concil.strict_json import InvalidJson, read_json

# Of an entry in index.json: the blobs that are not in the layout, and repositories that have them.
LEFT_OUT = "concil.left-out"
_MOST_REPOSITORIES = 3  # of a blob: one is enough to mount it from, if it is still there
_MANIFEST_LIMIT = 4 * MIB  # bytes

Repositories = Mapping[Digest, tuple[str, ...]]  # of blobs; as people write them


@dataclass(slots=True)
class Held:
    """Images and blobs that are on the other side. Filled by one thread, then read by any."""

    images: dict[str, Digest] = field(default_factory=dict)  # by the name in a layout
    blobs: dict[Digest, tuple[str, ...]] = field(default_factory=dict)  # and their repositories
    referrers: dict[Digest, tuple[Descriptor, ...]] = field(default_factory=dict)  # by subject

    def add(self, name: str, image: Digest, blobs: Iterable[Digest]) -> None:
        """Add an image, by its name in a layout, with blobs of it."""
        self.images[name] = image
        repository = repository_of(name)
        for digest in blobs:
            known = self.blobs.get(digest, ())
            if repository is not None and len(known) < _MOST_REPOSITORIES:
                known = tuple(dict.fromkeys((*known, repository)))
            self.blobs[digest] = known

    def find(self, name: str) -> Descriptor | None:
        """What is there under a name; of it no more is known than the digest."""
        digest = self.images.get(name)
        return Descriptor(OCI_MANIFEST, digest, 0) if digest is not None else None


def repository_of(name: str) -> str | None:
    """The repository that an image of a layout comes from; None if its name tells none."""
    try:
        return Reference.parse(name).repository_address if {":", "/"} & set(name) else None
    except InvalidReference:
        return None


def held_in(contents: Contents) -> Held:
    """Walk the images of a layout that have a name.

    Raises:
        ContentError, StoreError: the layout is damaged.
    """
    held = Held()
    for name in contents.names():
        entry = contents.find(name)
        if entry is None:
            continue
        left = left_out(entry)
        there = (
            blob.digest
            for blob in _blobs(contents, entry)
            if blob.digest in left or contents.blob_size(blob.digest) == blob.size
        )
        held.add(name, entry.digest, there)
    for subject, entry in LayoutReferrers(contents, _MANIFEST_LIMIT).listed():
        held.referrers[subject] = (*held.referrers.get(subject, ()), entry)
    return held


def left_out(entry: Descriptor) -> Repositories:
    """What an entry of an index says is not in the layout; nothing where that has no sense."""
    try:
        found = read_json(entry.annotations.get(LEFT_OUT, "{}").encode())
        if not isinstance(found, dict):
            return {}
        return {
            Digest.parse(digest): tuple(name for name in names if isinstance(name, str))
            for digest, names in found.items()
            if isinstance(names, list)
        }
    except (InvalidJson, InvalidDigest, UnicodeEncodeError):
        return {}


def with_left_out(entry: Descriptor, blobs: Repositories) -> Descriptor:
    """The entry with a note of what is not in the layout."""
    text = json.dumps({str(digest): names for digest, names in blobs.items()})
    return Descriptor(entry.media_type, entry.digest, entry.size, annotations={LEFT_OUT: text})


def _blobs(contents: Contents, entry: Descriptor) -> Iterator[Descriptor]:
    """Yield the blobs of an image; a manifest that is missing leads to none."""
    waiting, seen = [entry], {entry.digest}
    while waiting:
        one = waiting.pop()
        try:
            body = contents.read_blob(one.digest, _MANIFEST_LIMIT)
            manifest = Manifest.parse(body, one.media_type)
        except (NotFound, StoreError, ContentError):
            continue
        yield from manifest.blobs()
        for child in manifest.children():
            if child.digest not in seen:
                seen.add(child.digest)
                if child.is_manifest:
                    waiting.append(child)
                else:
                    yield child
