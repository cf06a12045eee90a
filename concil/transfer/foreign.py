"""Layers that are not to be distributed: from the source, or from where the manifest says."""

from __future__ import annotations

from concil.content import Descriptor, Manifest
from concil.errors import NotFound
from concil.store.protocol import BlobReader, Source
from concil.transfer.job import ForeignLayers, ImageJob, Opener


class _Elsewhere:
    """A source whose foreign layers are looked for at their URLs if it has not got them."""

    def __init__(self, source: Source, opener: Opener) -> None:
        self._source = source
        self._opener = opener
        self.name = source.name
        self.host = source.host

    def find_manifest(self, reference: str) -> Descriptor | None:
        return self._source.find_manifest(reference)

    def get_manifest(self, reference: str) -> Manifest:
        return self._source.get_manifest(reference)

    def open_blob(self, blob: Descriptor, start: int = 0, stop: int | None = None) -> BlobReader:
        try:
            return self._source.open_blob(blob, start, stop)
        except NotFound:
            return self._opener(blob, start, stop)


def source_of(job: ImageJob, blob: Descriptor) -> Source:
    """Where a blob of an image is read from."""
    wanted = blob.is_foreign and job.foreign is ForeignLayers.URLS
    if wanted and job.elsewhere is not None:
        return _Elsewhere(job.source, job.elsewhere)
    return job.source
