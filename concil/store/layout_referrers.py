"""What refers to the manifests of a layout: what its index.json lists beside the images."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from concil.content import Descriptor, Digest, Manifest
from concil.digest_tags import digest_tag, digest_tag_parts, sibling
from concil.errors import ConcilError, ContentError, NotFound, UsageError
from concil.store.contents import Contents
from concil.store.layout_index import Mark, names_of
from concil.store.multimap import Multimap


class LayoutReferrers:
    """Finds referrers in a layout. Any thread may call any method.

    The specification of layouts does not mention referrers. oras lists every manifest in
    index.json, referrers without a name: that is what is written here, with the fields
    that a registry's list of referrers has. Read are those, and the index that regctl
    keeps under the name ``sha256-<hex>``, as clients do in a registry without a list.
    """

    def __init__(self, layout: Contents, manifest_limit: int) -> None:
        """Look into an open layout; ``manifest_limit`` is in bytes."""
        self._layout = layout
        self._limit = manifest_limit
        self._lock = threading.Lock()  # guards the fields below
        # What a manifest is about never changes: each is read once. What to list of it, and
        # its subject; None: it is no referrer.
        self._known: dict[Digest, tuple[Descriptor, Digest] | None] = {}
        self._mark: Mark | None = None  # how far the index was looked at
        self._about: Multimap[Digest, Digest] = Multimap()  # referrers in it, by subject
        self._named: Multimap[str, str] = Multimap()  # names that are a digest and a suffix

    def of(self, subject: Digest, beside: str) -> tuple[Descriptor, ...]:
        """What refers to a manifest, each once."""
        with self._lock:
            self._look()
            known = [self._known[digest] for digest in self._about.of(subject)]
        listed = {pair[0].digest: pair[0] for pair in known if pair is not None}
        for entry in self._kept_by_name(subject, beside):
            listed.setdefault(entry.digest, entry)
        return tuple(listed.values())

    def listed(self) -> Iterator[tuple[Digest, Descriptor]]:
        """Every referrer that has an entry in index.json, behind the subject it is about."""
        with self._lock:
            self._look()
            digests = dict.fromkeys(entry.digest for entry in self._layout.entries())
            known = [self._known.get(digest) for digest in digests]
        yield from ((pair[1], pair[0]) for pair in known if pair is not None)

    def names(self, subject: Digest, beside: str) -> tuple[str, ...]:
        """Names that are a digest and a suffix: of the image's repository, else of any."""
        with self._lock:
            self._look()
            names = self._named.of(digest_tag(subject))
        found: dict[str, str] = {}
        for name in names:
            tag = name.rpartition(":")[2]
            if (name == sibling(beside, tag) or tag not in found) and self._find(name) is not None:
                found[tag] = name
        return tuple(found.values())

    def add(self, manifest: Manifest, digest: Digest) -> None:
        """List a manifest that has a subject, unless it is in index.json anyhow."""
        if self._layout.entry_of(digest) is None:
            self._layout.set_entry(None, manifest.listed(digest))

    def _kept_by_name(self, subject: Digest, beside: str) -> Iterator[Descriptor]:
        """What the index lists that has the name of the subject's digest."""
        name = sibling(beside, digest_tag(subject))
        entry = self._find(name)
        # People name images by their digests, too.
        if entry is None or entry.digest == subject:
            return
        try:
            index = self._read(entry)
        except (ContentError, NotFound):
            return
        yield from index.children()

    def _find(self, name: str) -> Descriptor | None:
        """The entry of a name; None: there is none, or several images share it."""
        try:
            return self._layout.find(name)
        except UsageError:
            return None

    def _look(self) -> None:
        """Look at what was changed in the index. Holds the lock."""
        found = self._layout.edits_since(self._mark)
        self._mark = found.mark
        if found.anew:
            self._about, self._named = Multimap(), Multimap()
        for gone, came in found.edits:
            for entry in gone:
                if self._layout.entry_of(entry.digest) is None:
                    pair = self._known.get(entry.digest)
                    if pair is not None:
                        self._about.discard(pair[1], entry.digest)
            if came is not None:
                self._see(came)

    def _see(self, entry: Descriptor) -> None:
        """Take note of an entry that is in the index. Holds the lock."""
        for name in names_of(entry):
            parts = digest_tag_parts(name.rpartition(":")[2])
            if parts is not None and parts[1]:
                self._named.add(parts[0], name)
        if entry.digest not in self._known:
            self._known[entry.digest] = self._pair(entry)
        pair = self._known[entry.digest]
        if pair is not None:
            self._about.add(pair[1], entry.digest)

    def _pair(self, entry: Descriptor) -> tuple[Descriptor, Digest] | None:
        """How a manifest is listed and what it is about; None for one about nothing."""
        try:
            manifest = self._read(entry)
            subject = manifest.subject
        except ConcilError:  # a layout that is damaged elsewhere
            return None
        return None if subject is None else (manifest.listed(entry.digest), subject.digest)

    def _read(self, entry: Descriptor) -> Manifest:
        return Manifest.parse(self._layout.read_blob(entry.digest, self._limit), entry.media_type)
