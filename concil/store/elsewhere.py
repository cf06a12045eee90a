"""Where the other side of an air gap has the blobs that a layout lacks."""

from __future__ import annotations

from collections.abc import Sequence

from concil.content import Descriptor
from concil.errors import ConcilError, InvalidReference
from concil.reference import Reference
from concil.store.held import Repositories, left_out
from concil.store.layout import LayoutStore
from concil.store.protocol import Destination, Mounter, Source


class Elsewhere:
    """Repositories of the destination that may have what the image of a layout lacks.

    The layout notes by what names the blobs were carried over before. As this image's own
    name went to the repository that it is copied to, theirs went to repositories beside it.
    """

    def __init__(self, source: Source, reference: str, destination: Destination) -> None:
        """Read the note of an image, if it has one and the destination can mount."""
        self._source = source if isinstance(source, LayoutStore) else None
        self._left: Repositories = {}
        self._prefix: str | None = None
        if self._source is not None and isinstance(destination, Mounter):
            self._left = self._note(self._source, reference)
            if self._left:
                self._prefix = _prefix(reference, destination.repository)

    def repositories(self, blob: Descriptor) -> Sequence[str]:
        """Tell from where a blob that the layout lacks may be mounted."""
        if self._source is None or self._prefix is None or self._source.has_blob(blob):
            return ()
        names = (_repository(name) for name in self._left.get(blob.digest, ()))
        return [f"{self._prefix}{name}" for name in names if name is not None]

    @staticmethod
    def _note(source: LayoutStore, reference: str) -> Repositories:
        try:
            entry = source.layout.find(reference or None)
        except ConcilError:  # reading the image says what is wrong
            return {}
        return left_out(entry) if entry is not None else {}


def _prefix(reference: str, repository: str) -> str | None:
    """What the repository of an image was put below; None if it was named in another way."""
    own = _repository(reference)
    if own is None or not f"/{repository}".endswith(f"/{own}"):
        return None
    return repository.removesuffix(own)


def _repository(name: str) -> str | None:
    try:
        return Reference.parse(name).repository
    except InvalidReference:
        return None
