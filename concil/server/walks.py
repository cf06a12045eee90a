"""What can be reached from manifests: found by reading each once, looked up by digest."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from concil.content import Descriptor, Digest, Manifest
from concil.errors import ConcilError
from concil.store.multimap import Multimap

logger = logging.getLogger(__name__)

Read = Callable[[Descriptor], Manifest]  # raises ConcilError


@dataclass(slots=True)
class Walk:
    """What can be reached from one manifest, itself included."""

    manifests: dict[Digest, str] = field(default_factory=dict)  # media types, children last
    blobs: set[Digest] = field(default_factory=set)
    subjects: dict[Digest, Digest] = field(default_factory=dict)  # of manifests


class Walks:
    """What can be reached from some manifests. One thread at a time."""

    def __init__(self, read: Read) -> None:
        """Begin without any manifest."""
        self._read = read
        self._walks: dict[Digest, Walk] = {}  # by the manifest that it begins at
        self._roots: Multimap[Digest, Digest] = Multimap()  # by what can be reached from them
        self._referrers: Multimap[Digest, Digest] = Multimap()  # by their subject

    def add(self, entry: Descriptor) -> None:
        """Find what can be reached from a manifest, unless that is known."""
        if entry.digest in self._walks:
            return
        walk = self._walks[entry.digest] = self._walked(entry)
        for digest in (*walk.manifests, *walk.blobs):
            self._roots.add(digest, entry.digest)
        for digest, subject in walk.subjects.items():
            self._referrers.add(subject, digest)

    def walk(self, root: Digest) -> Walk | None:
        """What can be reached from a manifest; None: it was not added."""
        return self._walks.get(root)

    def remove(self, root: Digest) -> None:
        """Forget what can be reached from a manifest, if it is known."""
        walk = self._walks.pop(root, None)
        if walk is not None:
            for digest in (*walk.manifests, *walk.blobs):
                self._roots.discard(digest, root)
            for digest, subject in walk.subjects.items():
                if digest not in self._roots:
                    self._referrers.discard(subject, digest)

    def roots_of(self, digest: Digest) -> Collection[Digest]:
        """The manifests from which a blob or manifest can be reached."""
        return self._roots.of(digest)

    def manifest_type(self, root: Digest, digest: Digest) -> str | None:
        """The media type of a manifest that can be reached from a root; None: it cannot be."""
        return self._walks[root].manifests.get(digest)

    def subject_of(self, root: Digest) -> Digest | None:
        """What a root refers to; None: nothing, or it cannot be read."""
        return self._walks[root].subjects.get(root)

    def referrers(self, subject: Digest) -> Collection[Digest]:
        """The manifests whose subject it is."""
        return self._referrers.of(subject)

    def _walked(self, root: Descriptor) -> Walk:
        """Find what can be reached, parents before their children; circles do no harm."""
        walk, todo = Walk(), [root]
        while todo:
            entry = todo.pop(0)
            if entry.digest in walk.manifests:
                continue
            try:
                manifest = self._read(entry)
                blobs, subject = manifest.blobs(), manifest.subject
                children = manifest.children()
            except ConcilError as error:
                # Usual for an index of which only some platforms were copied.
                logger.debug("%s is not served: %s", entry.digest, error)
                continue
            walk.manifests[entry.digest] = manifest.media_type
            walk.blobs.update(blob.digest for blob in blobs)
            if subject is not None:
                walk.subjects[entry.digest] = subject.digest
            # An index may list blobs as well, as the caches of BuildKit do.
            todo += [child for child in children if child.is_manifest]
            walk.blobs.update(child.digest for child in children if not child.is_manifest)
        return walk
