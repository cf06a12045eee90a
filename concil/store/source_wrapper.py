"""SourceWrapper: a source that is read through another one."""

from __future__ import annotations

from collections.abc import Sequence

from concil.oci.blob_reader import BlobReader
from concil.oci.descriptor import Descriptor
from concil.oci.manifest import Digest, Manifest
from concil.store.base_store import BaseStore
from concil.store.protocols import Source


class SourceWrapper(BaseStore):
    """A source that returns what another one returns; subclasses change some of it. Any thread."""

    def __init__(self, source: Source) -> None:
        """Read from ``source``, under its name."""
        self.name = source.name
        self.host = source.host
        self.repository = source.repository
        self.lists_referrers = source.lists_referrers
        self._source = source

    def find_manifest(self, reference: str) -> Descriptor | None:
        """Look up a tag or digest."""
        return self._source.find_manifest(reference)

    def get_manifest(self, reference: str) -> Manifest:
        """Fetch a manifest."""
        return self._source.get_manifest(reference)

    def open_blob(self, blob: Descriptor, start: int = 0, stop: int | None = None) -> BlobReader:
        """Open the bytes of a blob, or a range of them."""
        return self._source.open_blob(blob, start, stop)

    def referrers(self, subject: Digest, image_reference: str = "", /) -> Sequence[Descriptor]:
        """Return the listed referrers of ``subject``."""
        return self._source.referrers(subject, image_reference)

    def digest_tags(self, subject: Digest, image_reference: str = "", /) -> Sequence[str]:
        """Return references made of a digest and a suffix."""
        return self._source.digest_tags(subject, image_reference)

    def is_access_denied(self) -> bool:
        """Return whether all access has been denied."""
        return self._source.is_access_denied()

    def may_read_unannounced(self, *, is_single: bool) -> bool:
        """Return whether a GET of a manifest needs no HEAD before."""
        return self._source.may_read_unannounced(is_single=is_single)

    def check_blob(self, blob: Descriptor, /) -> None:
        """Check that the source has a blob."""
        self._source.check_blob(blob)
