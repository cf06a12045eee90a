"""Referrers among the entries of index.json."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from concil.errors import ConcilError, ContentError, NotFound, UsageError
from concil.oci.descriptor import Descriptor
from concil.oci.manifest import Digest, Manifest
from concil.oci.referrers_tag import referrers_tag, split_digest_tag, tag_beside_image
from concil.store.layout.backend import LayoutBackend
from concil.store.layout.index import Mark, entry_names
from concil.store.layout.multimap import Multimap


class LayoutReferrers:
    """Finds the referrers in a layout. Any thread may call any method.

    The layout specification does not mention referrers. oras lists every manifest in
    index.json, referrers without a name. Referrers are written in the same way, with the
    fields of a registry's referrers list. Reading supports these entries, and also the index
    that regctl stores under the name ``sha256-<hex>``, like the referrers tag of a registry.
    """

    def __init__(self, backend: LayoutBackend, manifest_limit: int) -> None:
        """Use an open layout; ``manifest_limit`` is in bytes."""
        self._backend = backend
        self._manifest_limit = manifest_limit
        self._lock = threading.Lock()  # guards the fields below
        # Manifests are immutable, so each is read only once. The values are the descriptor to list
        # and the subject; None: not a referrer.
        self._descriptors: dict[Digest, tuple[Descriptor, Digest] | None] = {}
        self._mark: Mark | None = None  # the changes of the index that were read so far
        # Referrers in it, by subject.
        self._digests_by_subject: Multimap[Digest, Digest] = Multimap()
        self._named: Multimap[str, str] = Multimap()  # names made of a digest and a suffix

    def list_referrers(self, subject: Digest, image_reference: str) -> tuple[Descriptor, ...]:
        """Return the referrers of a manifest, each once."""
        with self._lock:
            self._read_referrer()
            pairs = [self._descriptors[digest] for digest in self._digests_by_subject.of(subject)]
        listed = {pair[0].digest: pair[0] for pair in pairs if pair is not None}
        for entry in self._read_referrers_tag(subject, image_reference):
            listed.setdefault(entry.digest, entry)
        return tuple(listed.values())

    def list_all(self) -> Iterator[tuple[Digest, Descriptor]]:
        """Yield every referrer with an entry in index.json, as a pair of subject and descriptor."""
        with self._lock:
            self._read_referrer()
            digests = dict.fromkeys(entry.digest for entry in self._backend.entries())
            pairs = [self._descriptors.get(digest) for digest in digests]
        yield from ((pair[1], pair[0]) for pair in pairs if pair is not None)

    def digest_tags(self, subject: Digest, image_reference: str) -> tuple[str, ...]:
        """Return digest names with a suffix, preferably those in the image's own repository."""
        with self._lock:
            self._read_referrer()
            names = self._named.of(referrers_tag(subject))
        name_by_tag: dict[str, str] = {}
        for name in names:
            tag = name.rpartition(":")[2]
            if (
                name == tag_beside_image(image_reference, tag) or tag not in name_by_tag
            ) and self._find(name) is not None:
                name_by_tag[tag] = name
        return tuple(name_by_tag.values())

    def add(self, manifest: Manifest, digest: Digest) -> None:
        """Add an entry for a manifest with a subject, unless index.json already has one."""
        if self._backend.entry_of(digest) is None:
            self._backend.set_entry(None, manifest.referrer_descriptor(digest))

    def _read_referrers_tag(self, subject: Digest, image_reference: str) -> Iterator[Descriptor]:
        """Yield the entries of the index stored under the referrers tag of the subject."""
        name = tag_beside_image(image_reference, referrers_tag(subject))
        entry = self._find(name)
        # Users may name an image by its digest, too.
        if entry is None or entry.digest == subject:
            return
        try:
            index = self._read_manifest(entry)
        except (ContentError, NotFound):
            return
        yield from index.children()

    def _find(self, name: str) -> Descriptor | None:
        """Return the entry with a name; None if there is none or several images share it."""
        try:
            return self._backend.find_entry(name)
        except UsageError:
            return None

    def _read_referrer(self) -> None:
        """Read the changes of the index since the last call. The caller holds the lock."""
        changes = self._backend.edits_since(self._mark)
        self._mark = changes.mark
        if changes.anew:
            self._digests_by_subject, self._named = Multimap(), Multimap()
        for removed, added in changes.edits:
            for entry in removed:
                if self._backend.entry_of(entry.digest) is None:
                    pair = self._descriptors.get(entry.digest)
                    if pair is not None:
                        self._digests_by_subject.discard(pair[1], entry.digest)
            if added is not None:
                self._see(added)

    def _see(self, entry: Descriptor) -> None:
        """Record an entry of the index. The caller holds the lock."""
        for name in entry_names(entry):
            parts = split_digest_tag(name.rpartition(":")[2])
            if parts is not None and parts[1]:
                self._named.add(parts[0], name)
        if entry.digest not in self._descriptors:
            self._descriptors[entry.digest] = self._pair(entry)
        pair = self._descriptors[entry.digest]
        if pair is not None:
            self._digests_by_subject.add(pair[1], entry.digest)

    def _pair(self, entry: Descriptor) -> tuple[Descriptor, Digest] | None:
        """Return the descriptor to list and the subject of a manifest; None without a subject."""
        try:
            manifest = self._read_manifest(entry)
            subject = manifest.subject
        except ConcilError:  # the layout is damaged in another place
            return None
        return (
            None
            if subject is None
            else (manifest.referrer_descriptor(entry.digest), subject.digest)
        )

    def _read_manifest(self, entry: Descriptor) -> Manifest:
        return Manifest.parse(
            self._backend.read_blob(entry.digest, self._manifest_limit), entry.media_type
        )
