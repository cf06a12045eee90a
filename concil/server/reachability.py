"""Content that can be reached from the manifests of a repository."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from dataclasses import field

from concil.errors import ConcilError
from concil.oci.descriptor import Descriptor
from concil.oci.manifest import Digest, Manifest
from concil.runtime.dataclass import dataclass
from concil.store.layout.multimap import Multimap

logger = logging.getLogger(__name__)

Read = Callable[[Descriptor], Manifest]  # raises ConcilError


@dataclass(slots=True)
class ReachableSet:
    """The manifests and blobs that are reachable from a manifest, itself included."""

    manifests: dict[Digest, str] = field(default_factory=dict)  # media types, parents first
    blobs: set[Digest] = field(default_factory=set)
    subjects: dict[Digest, Digest] = field(default_factory=dict)  # by manifest


class ReachabilityIndex:
    """Reachable content of a set of root manifests. Not thread-safe."""

    def __init__(self, read: Read) -> None:
        """Create an empty index."""
        self._read = read
        self._walks: dict[Digest, ReachableSet] = {}  # by root manifest
        self._roots: Multimap[Digest, Digest] = Multimap()  # by reachable digest
        self._referrers: Multimap[Digest, Digest] = Multimap()  # by subject

    def add(self, entry: Descriptor) -> None:
        """Add a root manifest with its reachable content, unless it is known."""
        if entry.digest in self._walks:
            return
        reachable = self._walks[entry.digest] = self._reachable_set(entry)
        for digest in (*reachable.manifests, *reachable.blobs):
            self._roots.add(digest, entry.digest)
        for digest, subject in reachable.subjects.items():
            self._referrers.add(subject, digest)

    def walk(self, root: Digest) -> ReachableSet | None:
        """Return the content that is reachable from a root; None if it was not added."""
        return self._walks.get(root)

    def remove(self, root: Digest) -> None:
        """Remove a root and its reachable content, if it is known."""
        reachable = self._walks.pop(root, None)
        if reachable is not None:
            for digest in (*reachable.manifests, *reachable.blobs):
                self._roots.discard(digest, root)
            for digest, subject in reachable.subjects.items():
                if digest not in self._roots:
                    self._referrers.discard(subject, digest)

    def roots_of(self, digest: Digest) -> Collection[Digest]:
        """Return the roots from which a blob or manifest is reachable."""
        return self._roots.of(digest)

    def manifest_type(self, root: Digest, digest: Digest) -> str | None:
        """Return the media type of a manifest reachable from a root; None if it is not."""
        return self._walks[root].manifests.get(digest)

    def subject_of(self, root: Digest) -> Digest | None:
        """Return the subject of a root; None if it has none or cannot be read."""
        return self._walks[root].subjects.get(root)

    def referrers(self, subject: Digest) -> Collection[Digest]:
        """Return the manifests with the given subject."""
        return self._referrers.of(subject)

    def _reachable_set(self, root: Descriptor) -> ReachableSet:
        """Find the reachable content, parents before children; cycles are harmless."""
        reachable, pending = ReachableSet(), [root]
        while pending:
            entry = pending.pop(0)
            if entry.digest in reachable.manifests:
                continue
            try:
                manifest = self._read(entry)
                blobs, subject = manifest.blobs(), manifest.subject
                children = manifest.children()
            except ConcilError as error:
                # Common: an index of which only some platforms were copied.
                logger.debug("%s is not served: %s", entry.digest, error)
                continue
            reachable.manifests[entry.digest] = manifest.media_type
            reachable.blobs.update(blob.digest for blob in blobs)
            if subject is not None:
                reachable.subjects[entry.digest] = subject.digest
            # An index may list blobs as well, as BuildKit's caches do.
            pending += [child for child in children if child.is_manifest]
            reachable.blobs.update(child.digest for child in children if not child.is_manifest)
        return reachable
