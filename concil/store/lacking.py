"""A layout that is to be carried over, without what the other side has."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence

from concil.content import Descriptor, Digest, Manifest
from concil.errors import NotFound
from concil.store.held import Held, with_left_out
from concil.store.layout import LayoutStore
from concil.store.protocol import BlobWriter, RangeWriter, WriterState


class LackingStore:
    """A layout as a destination that counts as there what is held elsewhere. Any thread.

    An image that is held under its name is up to date; of the others all manifests are
    written, and a note of the blobs that were left out, also of what refers to them: on
    the other side it is copied with them. So an image that is held is written, too, once
    something new refers to it.
    """

    host = ""

    def __init__(self, store: LayoutStore, held: Held) -> None:
        """Write to ``store`` what is not held."""
        self.name = store.name
        self.realm = store.realm
        self._store = store
        self._held = held

    def find_manifest(self, reference: str) -> Descriptor | None:
        """Ask the layout; what it has not under a name may be held elsewhere."""
        return self._store.find_manifest(reference) or self._held.find(reference)

    def get_manifest(self, reference: str) -> Manifest:
        """Read a manifest that is in the layout."""
        return self._store.get_manifest(reference)

    def referrers(self, subject: Digest, beside: str = "", /) -> Sequence[Descriptor]:
        """What refers to a manifest, here or on the other side.

        What is here beside an image that is not does not count: a run was killed before
        the image that leads to it was written.
        """
        held = self._held.referrers.get(subject, ())
        return (
            *held,
            *(() if self.is_promised(beside) else self._store.referrers(subject, beside)),
        )

    def digest_tags(self, subject: Digest, beside: str = "", /) -> Sequence[str]:
        """Names that are a digest and a suffix. See `store.protocol.Referring`."""
        return self._store.digest_tags(subject, beside)

    def is_promised(self, reference: str) -> bool:
        """Whether an image is held, and not in the layout."""
        here = self._store.find_manifest(reference)
        return here is None and self._held.find(reference) is not None

    def promise(self, reference: str, blobs: Iterable[Digest]) -> None:
        """Let the blobs of an image that is held count as held, too: a report may not list them."""
        self._held.add(reference, self._held.images[reference], blobs)

    def has_blob(self, blob: Descriptor) -> bool:
        """Whether the layout has it, or the other side."""
        return blob.digest in self._held.blobs or self._store.has_blob(blob)

    def begin_blob(
        self, size: int, digest: Digest | None = None, resume: WriterState | None = None
    ) -> BlobWriter | RangeWriter:
        """Begin to write a blob into the layout."""
        return self._store.begin_blob(size, digest, resume)

    def put_manifest(self, manifest: Manifest, reference: str) -> None:
        """Write a manifest; its entry has a note of what was left out below it."""
        self._store.put_manifest(manifest, reference)
        named = reference and not reference.startswith(("sha256:", "sha512:"))
        entry = self._store.layout.find(reference) if named else None
        if entry is not None and entry.digest == manifest.digest:
            lacking = self._lacking(manifest, reference, set())
            left = {blob.digest: self._held.blobs[blob.digest] for blob in lacking}
            if left:
                self._store.layout.set_entry(reference, with_left_out(entry, left))

    def _lacking(self, manifest: Manifest, name: str, seen: set[Digest]) -> Iterator[Descriptor]:
        """Yield the blobs that were left out below a manifest, and of what refers to it.

        Args:
            name: of the image.
        """
        seen.add(manifest.digest)
        below = [str(child.digest) for child in manifest.children() if child.is_manifest]
        below += [str(entry.digest) for entry in self._store.referrers(manifest.digest, name)]
        below += self._store.digest_tags(manifest.digest, name)
        for reference in below:
            with contextlib.suppress(NotFound):  # of a platform that is not in the index
                found = self._store.get_manifest(reference)
                if found.digest not in seen:
                    yield from self._lacking(found, name, seen)
        for blob in (*manifest.blobs(), *manifest.children()):
            is_left = blob.digest in self._held.blobs and not self._store.has_blob(blob)
            if not blob.is_manifest and is_left:
                yield blob
