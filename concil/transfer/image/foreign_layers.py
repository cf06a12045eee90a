"""Chooses where foreign layers are read from."""

from __future__ import annotations

from concil.errors import NotFound
from concil.oci.blob_reader import BlobReader
from concil.oci.descriptor import Descriptor
from concil.oci.manifest import Manifest
from concil.store.base_store import BaseStore
from concil.store.protocols import Source
from concil.transfer.image.job import ForeignLayerOpener, ForeignLayers, ImageJob


class _ForeignLayerSource(BaseStore):
    """A source that fetches foreign layers from their URLs if it lacks them."""

    def __init__(self, source: Source, opener: ForeignLayerOpener) -> None:
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


def source_for(job: ImageJob, blob: Descriptor) -> Source:
    """Return the source from which a blob of an image is read."""
    uses_urls = blob.is_foreign and job.foreign_layers is ForeignLayers.URLS
    if uses_urls and job.open_foreign_layer is not None:
        return _ForeignLayerSource(job.source, job.open_foreign_layer)
    return job.source
