"""Layout writer for `--since`: blobs in the baseline count as present and are not written."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence

from concil.errors import NotFound
from concil.fs.partial_file import PartialFile
from concil.fs.resume_state import WriterState
from concil.oci.descriptor import Descriptor
from concil.oci.manifest import Digest, Manifest
from concil.store.airgap.baseline import Baseline, with_omitted_blobs
from concil.store.base_store import BaseStore
from concil.store.layout.store import LayoutStore
from concil.store.protocols import BlobWriter


class DeltaLayoutStore(BaseStore):
    """A layout destination that omits what the baseline has. Any thread may call any method.

    A named image in the baseline is up to date. For all other images, every manifest is
    written, with an annotation that lists the blobs omitted below it and below its referrers,
    because all of them are copied together on the other side. An image in the baseline
    therefore is written, too, when it has a new referrer.
    """

    host = ""
    lists_referrers = True

    def __init__(self, store: LayoutStore, baseline: Baseline) -> None:
        """Write to ``store`` whatever is not in the baseline."""
        self.name = store.name
        self.mount_scope = store.mount_scope
        self._store = store
        self._baseline = baseline

    def find_manifest(self, reference: str) -> Descriptor | None:
        """Look up an image in the layout, then in the baseline."""
        return self._store.find_manifest(reference) or self._baseline.find_image(reference)

    def get_manifest(self, reference: str) -> Manifest:
        """Read a manifest of the layout."""
        return self._store.get_manifest(reference)

    def referrers(self, subject: Digest, image_reference: str = "", /) -> Sequence[Descriptor]:
        """Return the referrers of a manifest in the baseline and in the layout.

        Referrers in the layout are ignored while their image is missing from it: a run was
        killed before it wrote the image's entry.
        """
        baseline_referrers = self._baseline.referrers.get(subject, ())
        return (
            *baseline_referrers,
            *(
                ()
                if self.is_only_in_baseline(image_reference)
                else self._store.referrers(subject, image_reference)
            ),
        )

    def digest_tags(self, subject: Digest, image_reference: str = "", /) -> Sequence[str]:
        """Return names made of a digest and a suffix. See `store.protocols.Store`."""
        return self._store.digest_tags(subject, image_reference)

    def is_only_in_baseline(self, reference: str) -> bool:
        """Return whether an image is in the baseline and not in the layout."""
        entry = self._store.find_manifest(reference)
        return entry is None and self._baseline.find_image(reference) is not None

    def add_baseline_blobs(self, reference: str, blobs: Iterable[Digest]) -> None:
        """Add blobs to an image of the baseline, because a report may not list them."""
        self._baseline.add_image(reference, self._baseline.images[reference], blobs)

    def has_blob(self, blob: Descriptor) -> bool:
        """Return whether the layout or the baseline has the blob."""
        return blob.digest in self._baseline.blobs or self._store.has_blob(blob)

    def begin_blob(
        self, size: int, digest: Digest | None = None, resume: WriterState | None = None
    ) -> BlobWriter | PartialFile:
        """Begin to write a blob into the layout."""
        return self._store.begin_blob(size, digest, resume)

    def put_manifest(self, manifest: Manifest, reference: str) -> None:
        """Write a manifest; its entry lists the blobs that were omitted below it."""
        self._store.put_manifest(manifest, reference)
        has_name = reference and not reference.startswith(("sha256:", "sha512:"))
        entry = self._store.backend.find_entry(reference) if has_name else None
        if entry is not None and entry.digest == manifest.digest:
            omitted_blobs = self._iter_omitted_blobs(manifest, reference, set())
            repositories_by_blob = {
                blob.digest: self._baseline.blobs[blob.digest] for blob in omitted_blobs
            }
            if repositories_by_blob:
                self._store.backend.set_entry(
                    reference, with_omitted_blobs(entry, repositories_by_blob)
                )

    def _iter_omitted_blobs(
        self, manifest: Manifest, name: str, seen_digests: set[Digest]
    ) -> Iterator[Descriptor]:
        """Yield the omitted blobs below a manifest and below its referrers.

        Args:
            name: of the image.
        """
        seen_digests.add(manifest.digest)
        references = [str(child.digest) for child in manifest.children() if child.is_manifest]
        references += [str(entry.digest) for entry in self._store.referrers(manifest.digest, name)]
        references += self._store.digest_tags(manifest.digest, name)
        for reference in references:
            with contextlib.suppress(NotFound):  # the manifest of a platform that was not copied
                manifest_below = self._store.get_manifest(reference)
                if manifest_below.digest not in seen_digests:
                    yield from self._iter_omitted_blobs(manifest_below, name, seen_digests)
        for blob in (*manifest.blobs(), *manifest.children()):
            is_omitted = blob.digest in self._baseline.blobs and not self._store.has_blob(blob)
            if not blob.is_manifest and is_omitted:
                yield blob
