"""BaseStore: a store without optional abilities."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from concil.errors import NotFound, UsageError
from concil.oci.blob_reader import BlobReader
from concil.oci.descriptor import Descriptor
from concil.oci.manifest import Digest, Manifest
from concil.store.protocols import MountResult, Store


class BaseStore:
    """A store without optional abilities: the base class of sources and destinations.

    A store overrides what it can do.
    """

    repository = ""
    lists_referrers = False
    is_shared = False
    reads_in_order = False

    def may_read_unannounced(self, *, is_single: bool) -> bool:  # noqa: ARG002 - by name
        """Return False: a lookup costs little."""
        return False

    @property
    def looks_up_by_mount(self) -> bool:
        """False: blobs are looked up by `has_blob`."""
        return False

    @property
    def was_empty(self) -> bool:
        """False: it is not known."""
        return False

    @property
    def max_uploads(self) -> int | None:
        """None: there is no limit."""
        return None

    @property
    def lost_response_count(self) -> int:
        """No response is ever lost."""
        return 0

    def find_existing(
        self: Store,
        reference: str,
        *,
        is_probably_new: bool,  # noqa: ARG002 - by name
    ) -> Descriptor | None:
        """Look the reference up."""
        return self.find_manifest(reference)

    def get_manifest(self, reference: str) -> Manifest:
        """Raise NotFound: the store returns no manifests."""
        raise NotFound(f"a destination that returns no manifests has no {reference}")

    def open_blob(
        self,
        blob: Descriptor,
        start: int = 0,  # noqa: ARG002 - part of the protocol, as the next
        stop: int | None = None,  # noqa: ARG002
    ) -> BlobReader:
        """Raise NotFound: the store returns no blobs."""
        raise NotFound(f"a destination that returns no blobs has no {blob.digest}")

    def delete_blob(self, digest: Digest, /) -> None:
        """Raise UsageError: a blob is replaced by writing it again."""
        raise UsageError(f"{digest} cannot be deleted alone")

    def referrers(self, _subject: Digest, _image_reference: str = "", /) -> Sequence[Descriptor]:
        """Return no referrers."""
        return ()

    def digest_tags(self, _subject: Digest, _image_reference: str = "", /) -> Sequence[str]:
        """Return no references."""
        return ()

    def is_access_denied(self) -> bool:
        """Return False."""
        return False

    def check_blob(self, blob: Descriptor, /) -> None:
        """Accept every blob."""

    def release_blob(self, blob: Descriptor, /) -> None:
        """Do nothing."""

    def check(self, manifest: Manifest, /) -> None:
        """Accept every image."""

    def mount(self, _blob: Descriptor, _source: str) -> MountResult:
        """Return that nothing was mounted."""
        return MountResult(is_mounted=False)

    def is_only_in_baseline(self, _reference: str) -> bool:
        """Return False: there is no baseline."""
        return False

    def add_baseline_blobs(self, reference: str, blobs: Iterable[Digest], /) -> None:
        """Do nothing: there is no baseline."""
