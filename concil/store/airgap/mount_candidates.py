"""Repositories from which the blobs of the baseline can be mounted."""

from __future__ import annotations

from collections.abc import Sequence

from concil.errors import ConcilError, InvalidReference
from concil.oci.descriptor import Descriptor
from concil.oci.reference import Reference
from concil.store.airgap.baseline import RepositoriesByBlob, omitted_blobs
from concil.store.layout.store import LayoutStore
from concil.store.protocols import Destination, Source


class MountCandidates:
    """Finds repositories of the destination from which omitted blobs can be mounted.

    A layout lists each omitted blob with the names of images that had it in earlier copies.
    The target of the current image shows how names map to repositories of the destination;
    the same mapping is applied to those names.
    """

    def __init__(self, source: Source, reference: str, destination: Destination) -> None:
        """Read the list of omitted blobs, if there is one and the destination supports mounts."""
        self._source = source if isinstance(source, LayoutStore) else None
        self._omitted_blobs: RepositoriesByBlob = {}
        self._prefix: str | None = None
        if self._source is not None and destination.repository:
            self._omitted_blobs = self._read_omitted_blobs(self._source, reference)
            if self._omitted_blobs:
                self._prefix = _destination_prefix(reference, destination.repository)

    def repositories_for(self, blob: Descriptor) -> Sequence[str]:
        """Return the repositories from which a blob missing in the layout may be mounted."""
        if self._source is None or self._prefix is None or self._source.has_blob(blob):
            return ()
        names = (_parse_repository(name) for name in self._omitted_blobs.get(blob.digest, ()))
        return [f"{self._prefix}{name}" for name in names if name is not None]

    @staticmethod
    def _read_omitted_blobs(source: LayoutStore, reference: str) -> RepositoriesByBlob:
        try:
            entry = source.backend.find_entry(reference or None)
        except ConcilError:  # the error is reported when the image is read
            return {}
        return omitted_blobs(entry) if entry is not None else {}


def _destination_prefix(reference: str, repository: str) -> str | None:
    """Return what the target repository has in front of the image's own name, or None."""
    source_repository = _parse_repository(reference)
    if source_repository is None or not f"/{repository}".endswith(f"/{source_repository}"):
        return None
    return repository.removesuffix(source_repository)


def _parse_repository(name: str) -> str | None:
    try:
        return Reference.parse(name).repository
    except InvalidReference:
        return None
