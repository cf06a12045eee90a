"""Protocols of sources, destinations and blob writers, and a base class for stores."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from concil.errors import UsageError
from concil.runtime.dataclass import dataclass

if TYPE_CHECKING:
    from concil.fs.partial_file import PartialFile
    from concil.fs.resume_state import WriterState
    from concil.oci.blob_reader import BlobReader
    from concil.oci.descriptor import Descriptor
    from concil.oci.manifest import Body, Digest, Manifest


class DigestRequired(UsageError):
    """The destination needs the digest of a blob before the upload starts."""


class BlobWriter(Protocol):
    """A blob that is written in order and stays invisible until it is committed.

    One thread at a time. After any error from `append`, call `resync` before anything
    else. After `close` the bytes stay for a later `begin_blob(resume=...)`; after `abort`
    they are deleted.
    """

    @property
    def offset(self) -> int:
        """Number of bytes that the destination has acknowledged."""
        ...

    @property
    def chunk_size(self) -> int:
        """Number of bytes for one `append`; changes only when the upload starts again."""
        ...

    def append(self, body: Body, /) -> None:
        """Write the next bytes, which begin at ``offset``.

        Raises:
            ConnectionLost, StatusError: some bytes may have arrived; `resync` finds out.
            SessionLost: no bytes were kept; `resync` starts again at 0.
        """
        ...

    def resync(self) -> int:
        """Find out where to resume; set and return ``offset``, which is 0 for a new start."""
        ...

    def state(self) -> WriterState | None:
        """Return the state to store for a resume, or None if the write cannot be resumed."""
        ...

    def commit(self, digest: Digest, /) -> None:
        """Make the blob visible under its digest.

        Raises:
            DigestMismatch: the destination computed another digest; nothing is visible.
            SessionLost: no bytes were kept; `resync` starts again at 0.
        """
        ...

    def close(self) -> None:
        """Release the resources and keep the bytes that were written."""
        ...

    def abort(self) -> None:
        """Delete the bytes that were written and ignore errors; `resync` then starts again at 0."""
        ...


@dataclass(frozen=True, slots=True)
class MountResult:
    """Result of a request to mount a blob."""

    is_mounted: bool
    writer: BlobWriter | None = None  # of the upload that the destination began instead


class Store(Protocol):
    """What sources and destinations have in common. Any thread may call any method.

    `BaseStore` has the answers of a store that lacks an ability.
    """

    @property
    def name(self) -> str:
        """Name for messages, without secrets."""
        ...

    @property
    def host(self) -> str:
        """The host that rate limits apply to, as host[:port]; "" for local stores."""
        ...

    @property
    def repository(self) -> str:
        """Name of the repository from which others mount blobs; "": the store mounts none."""
        ...

    @property
    def lists_referrers(self) -> bool:
        """Whether the store lists the referrers of its manifests."""
        ...

    @property
    def is_shared(self) -> bool:
        """Whether several transfers share the bytes that are read, which limits the requests."""
        ...

    @property
    def reads_in_order(self) -> bool:
        """Whether a blob has to be read from its first byte on, not in parallel ranges."""
        ...

    def find_manifest(self, reference: str) -> Descriptor | None:
        """Look up a tag or digest without fetching the manifest.

        Returns:
            The descriptor, or None if there is no such manifest. If the store does not
            report a digest, the manifest is fetched and its digest computed. The descriptor
            is a hint until the manifest itself was read.
        """
        ...

    def get_manifest(self, reference: str) -> Manifest:
        """Fetch a manifest by tag or digest; a digest is verified.

        Raises:
            NotFound, DigestMismatch, InvalidManifest.
        """
        ...

    def open_blob(self, blob: Descriptor, start: int = 0, stop: int | None = None) -> BlobReader:
        """Open the bytes from ``start`` up to ``stop``, half-open; they are not verified.

        Raises:
            NotFound: the store has no such blob, or returns none.
            SizeMismatch: its size differs from the descriptor.
        """
        ...

    def referrers(self, subject: Digest, image_reference: str = "", /) -> Sequence[Descriptor]:
        """Return the listed referrers of ``subject``, each once; some may no longer exist.

        A manifest with a ``subject`` that is written to the store is listed as a referrer.

        Args:
            image_reference: the reference of an image in the same repository, for stores
                whose names include the repository.
        """
        ...

    def digest_tags(self, subject: Digest, image_reference: str = "", /) -> Sequence[str]:
        """Return references made of a digest and a suffix, as cosign uses; they may not exist."""
        ...

    def is_access_denied(self) -> bool:
        """Return whether all access was denied; a single missing permission does not count."""
        ...


class Source(Store, Protocol):
    """A store that content is read from. Any thread may call any method."""

    def may_read_unannounced(self, *, is_single: bool) -> bool:
        """Return whether `get_manifest` may be called for a tag without `find_manifest` before.

        False where it counts against a quota: several tags may have one manifest.

        Args:
            is_single: only one image is copied.
        """
        ...

    def check_blob(self, blob: Descriptor) -> None:
        """Check that the source has a blob, before the destination begins to write it.

        Only for sources that may omit blobs which the destination is expected to have.

        Raises:
            NotFound: the blob is missing; the message says what to do about it.
        """
        ...

    def release_blob(self, blob: Descriptor) -> None:
        """Record that a destination has a blob, or that its transfer has failed."""
        ...


class Destination(Store, Protocol):
    """A store that content is written to. Any thread may call any method."""

    @property
    def mount_scope(self) -> str:
        """Scope within which stores share blobs, or can at least mount them from one another."""
        ...

    @property
    def max_uploads(self) -> int | None:
        """Maximum number of parallel uploads; None for no limit."""
        ...

    @property
    def lost_response_count(self) -> int:
        """Number of responses that were lost, or were server errors, since the run began.

        The store may have been restarted, and may have lost content.
        """
        ...

    def find_existing(self, reference: str, *, is_probably_new: bool) -> Descriptor | None:
        """Look up what would be replaced by `put_manifest`; otherwise as `find_manifest`.

        Args:
            is_probably_new: a list of tags may replace the lookup.
        """
        ...

    def check(self, manifest: Manifest) -> None:
        """Reject an image that cannot be stored, before any of its content is copied.

        Raises:
            UsageError: the destination cannot store the image; the message says why.
        """
        ...

    def has_blob(self, blob: Descriptor) -> bool:
        """Return whether the destination has the blob, with its size."""
        ...

    def delete_blob(self, digest: Digest) -> None:
        """Delete a blob, so that it can be written anew.

        Raises:
            UsageError: the destination needs no deletion to replace a blob, or cannot replace it.
            StatusError: the registry does not support it.
        """
        ...

    def begin_blob(
        self, size: int, digest: Digest | None = None, resume: WriterState | None = None
    ) -> BlobWriter | PartialFile:
        """Begin to write a blob, or resume an interrupted write.

        Args:
            size: bytes.
            digest: None if it is known only after the last byte. A PartialFile, which any
                thread may fill in any order, needs it, because it names the file.
        Raises:
            UsageError: the digest is missing and needed.
        """
        ...

    def put_manifest(self, manifest: Manifest, reference: str) -> None:
        """Write a manifest under a tag or under its digest; its bytes are not changed."""
        ...

    @property
    def was_empty(self) -> bool:
        """Whether a list has shown that the destination had no images when the run began."""
        ...

    @property
    def looks_up_by_mount(self) -> bool:
        """Whether `mount` from the destination's own repository replaces `has_blob`."""
        ...

    def mount(self, blob: Descriptor, source: str) -> MountResult:
        """Mount ``blob`` from the repository ``source``.

        A registry may begin an upload instead; the caller continues or aborts it.
        """
        ...

    def is_only_in_baseline(self, reference: str) -> bool:
        """Return whether an image is up to date only because an earlier export contained it."""
        ...

    def add_baseline_blobs(self, reference: str, blobs: Iterable[Digest]) -> None:
        """Treat the blobs of an image in the baseline as present, too."""
        ...


class SupportsTags(Protocol):
    """A store that can list its tags."""

    def tags(self) -> Iterator[str]:
        """Yield the tags, page by page."""
        ...
