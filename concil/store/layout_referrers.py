"""What refers to the manifests of a layout: what its index.json lists beside the images."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from concil.content import Descriptor, Digest, Manifest
from concil.digest_tags import digest_tag, sibling
from concil.errors import ConcilError, ContentError, NotFound
from concil.store.contents import Contents


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
        # What a manifest is about never changes: each is read once.
        self._known: dict[Digest, Descriptor | None] = {}  # what to list; None: no referrer
        self._subjects: dict[Digest, Digest] = {}
        self._seen: tuple[Descriptor, ...] | None = None
        self._about: dict[Digest, list[Digest]] = {}  # in the entries that were seen

    def of(self, subject: Digest, beside: str) -> tuple[Descriptor, ...]:
        """What refers to a manifest, each once."""
        found = {digest: self._known[digest] for digest in self._listed().get(subject, ())}
        listed = {d: entry for d, entry in found.items() if entry is not None}
        for entry in self._kept_by_name(subject, beside):
            listed.setdefault(entry.digest, entry)
        return tuple(listed.values())

    def listed(self) -> Iterator[tuple[Digest, Descriptor]]:
        """Every referrer that has an entry in index.json, behind the subject it is about."""
        for subject, digests in self._listed().items():
            known = (self._known[digest] for digest in digests)
            yield from ((subject, entry) for entry in known if entry is not None)

    def names(self, subject: Digest, beside: str) -> tuple[str, ...]:
        """Names that are a digest and a suffix: of the image's repository, else of any."""
        stem = f"{digest_tag(subject)}."
        found: dict[str, str] = {}
        for name in self._layout.names():
            tag = name.rpartition(":")[2]
            if tag.startswith(stem) and (name == sibling(beside, tag) or tag not in found):
                found[tag] = name
        return tuple(found.values())

    def add(self, manifest: Manifest, digest: Digest) -> None:
        """List a manifest that has a subject, unless it is in index.json anyhow."""
        if self._layout.entry_of(digest) is None:
            self._layout.set_entry(None, manifest.listed(digest))

    def _kept_by_name(self, subject: Digest, beside: str) -> Iterator[Descriptor]:
        """What the index lists that has the name of the subject's digest."""
        name = sibling(beside, digest_tag(subject))
        entry = self._layout.find(name) if name in self._layout.names() else None
        # People name images by their digests, too.
        if entry is None or entry.digest == subject:
            return
        try:
            index = self._read(entry)
        except (ContentError, NotFound):
            return
        yield from index.children()

    def _listed(self) -> dict[Digest, list[Digest]]:
        """The referrers among the entries of index.json, by what they are about."""
        entries = self._layout.entries()
        with self._lock:
            if entries is self._seen:
                return self._about
            new = [entry for entry in entries if entry.digest not in self._known]
        found = [(entry.digest, self._look(entry)) for entry in new]
        with self._lock:
            for digest, pair in found:
                self._known[digest] = pair[0] if pair is not None else None
                if pair is not None:
                    self._subjects[digest] = pair[1]
            about: dict[Digest, list[Digest]] = {}
            for digest in dict.fromkeys(entry.digest for entry in entries):
                if digest in self._subjects:
                    about.setdefault(self._subjects[digest], []).append(digest)
            self._seen, self._about = entries, about
            return about

    def _look(self, entry: Descriptor) -> tuple[Descriptor, Digest] | None:
        """How a manifest is listed and what it is about; None for one about nothing."""
        try:
            manifest = self._read(entry)
            subject = manifest.subject
        except ConcilError:  # a layout that is damaged elsewhere
            return None
        return None if subject is None else (manifest.listed(entry.digest), subject.digest)

    def _read(self, entry: Descriptor) -> Manifest:
        return Manifest.parse(self._layout.read_blob(entry.digest, self._limit), entry.media_type)
