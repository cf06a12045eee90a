"""ImageVerifier: accepts or refuses an image by its signatures, which a SignatureReader reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from concil.errors import InvalidManifest, NotFound
from concil.oci.descriptor import Descriptor
from concil.oci.manifest import Digest, Manifest
from concil.oci.referrers_tag import referrers_tag
from concil.runtime.dataclass import dataclass
from concil.store.protocols import Source
from concil.transfer.blob.image_config import read_small_blob
from concil.transfer.context import TransferContext


@dataclass(frozen=True, slots=True)
class SignatureReader:
    """Reads the signatures of one image from its source. Any thread may call any method."""

    store: Source
    image_reference: str  # tag or digest of the image
    image_name: str  # as users write it
    context: TransferContext
    may_read_unannounced: bool  # a GET of a tag that may be missing counts against no quota

    def find_by_tag(self, subject: Digest, suffix: str) -> Manifest | None:
        """Return the manifest under a tag made of a digest and a suffix; None: there is none.

        The tag is requested by its name: a list of the tags of a large repository takes longer.
        """
        tag = referrers_tag(subject) + suffix
        if not self.store.host:
            names = self.store.digest_tags(subject, self.image_reference)
            tag = next((name for name in names if name.rpartition(":")[2] == tag), "")
        is_missing = not tag or (
            not self.may_read_unannounced and self.store.find_manifest(tag) is None
        )
        if is_missing:
            return None
        try:
            return self.store.get_manifest(tag)
        except NotFound:
            return None

    def referrers(self, subject: Digest) -> Sequence[Descriptor]:
        """Return the listed referrers of a manifest; the list is not trusted."""
        if not self.store.lists_referrers:
            return ()
        return self.store.referrers(subject, self.image_reference)

    def find_by_digest(self, digest: Digest) -> Manifest | None:
        """Return a manifest; None: it is listed, but does not exist."""
        try:
            return self.store.get_manifest(str(digest))
        except NotFound:
            return None

    def read_blob(self, blob: Descriptor, limit: int) -> bytes:
        """Read a blob into memory and verify its digest.

        Args:
            limit: bytes.
        Raises:
            InvalidManifest: it is larger than ``limit``.
            NotFound, DigestMismatch, ConnectionLost: as for any blob.
        """
        if blob.size > limit:
            raise InvalidManifest(f"{blob.digest} is larger than {limit} bytes")
        return read_small_blob(self.store, blob, self.context)


class ImageVerifier(Protocol):
    """Accepts or refuses images. It can be pickled, compared and hashed, by its content."""

    @property
    def policy_id(self) -> str:
        """A text that is equal for verifiers that accept the same signatures."""
        ...

    def verify(self, reader: SignatureReader, digest: Digest) -> None:
        """Verify the signatures of a manifest or index.

        Raises:
            UntrustedImage: it has none that is accepted.
            UsageError: a package that is needed is not installed.
            ConcilError: the signatures could not be read.
        """
        ...
