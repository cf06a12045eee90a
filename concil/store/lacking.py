"""A layout that is to be carried over, without what the other side has."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from concil.content import Descriptor, Digest, Manifest
from concil.errors import NotFound
from concil.store.held import Held, with_left_out
from concil.store.layout import LayoutStore
from concil.store.protocol import BlobWriter, RangeWriter, WriterState


class LackingStore:
    """A layout as a destination that counts as there what is held elsewhere. Any thread.

    An image that is held under its name is up to date; of the others all manifests are
    written, and a note of the blobs that were left out.
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
            left = {blob.digest: self._held.blobs[blob.digest] for blob in self._lacking(manifest)}
            if left:
                self._store.layout.set_entry(reference, with_left_out(entry, left))

    def _lacking(self, manifest: Manifest) -> Iterator[Descriptor]:
        """Yield the blobs below a manifest that were left out."""
        for blob in (*manifest.blobs(), *manifest.children()):
            if blob.is_manifest:
                with contextlib.suppress(NotFound):  # of a platform that is not in the index
                    yield from self._lacking(self._store.get_manifest(str(blob.digest)))
            elif blob.digest in self._held.blobs and not self._store.has_blob(blob):
                yield blob
