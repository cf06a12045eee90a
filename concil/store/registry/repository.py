"""Repository of a registry as source and destination."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import requests

from concil.errors import (
    NotFound,
    ProtocolViolation,
    SizeMismatch,
)
from concil.fs.resume_state import WriterState
from concil.http.transport import content_length
from concil.oci.descriptor import Descriptor
from concil.oci.manifest import Digest, Manifest
from concil.registry import manifest_check
from concil.registry.client import RegistryClient
from concil.registry.missing_tags import MissingTags
from concil.registry.quirks import MIN_ADAPTIVE_CHUNK, HostProfiles, Strategy
from concil.registry.referrers import Referrers, SharedReferrers
from concil.store.base_store import BaseStore
from concil.store.protocols import MountResult
from concil.store.registry.blob_body import RegistryBlobReader
from concil.store.registry.mount import BlobMounter

if TYPE_CHECKING:
    from concil.store.registry.blob_upload import RegistryBlobWriter

UNKNOWN_SIZE = 2**62  # bytes; larger than any stream, so that no chunk counts as the last


class RepositoryStore(BaseStore):
    """A repository as a source and a destination."""

    lists_referrers = True

    def __init__(  # noqa: PLR0913 - what is shared by all stores of a run
        self,
        client: RegistryClient,
        *,
        name: str,
        host_profiles: HostProfiles,
        chunk_size: int | None = None,
        referrers: SharedReferrers | None = None,
        missing_tags: MissingTags | None = None,
    ) -> None:
        """Create a store that uses ``client``.

        Args:
            name: the repository in its usual form.
            host_profiles: what is known about hosts; shared by all stores of a run.
            referrers, missing_tags: what is known about their tags; shared in the same way.
            chunk_size: bytes of one PATCH, unless the host has its own limits;
                None: what the host transfers in about two seconds, 10 to 64 MiB.
        """
        self.client = client
        self.name = name
        self.repository = client.repository
        self._host_profiles = host_profiles
        self._chunk_size = chunk_size
        self._wrong_size_blobs: set[Digest] = set()  # blobs with another size
        self._referrers = Referrers(client, referrers or SharedReferrers())
        self._missing_tags = missing_tags or MissingTags()
        self._mounter = BlobMounter(
            client, host_profiles, self._stored_size, self.create_writer, lambda: self.was_empty
        )

    @property
    def host(self) -> str:
        """The registry's host[:port]."""
        return self.client.endpoint.host

    @property
    def mount_scope(self) -> str:
        """The registry: its repositories can mount blobs from one another."""
        return self.host

    @property
    def lost_response_count(self) -> int:
        """Number of answers of the registry lost so far. See `transfer.image.history`."""
        return self.client.endpoint.lost_response_count

    @property
    def max_uploads(self) -> int | None:
        """Maximum number of parallel uploads. See `store.protocols.Destination`."""
        return self._host_profiles.quirks_for(self.host).max_uploads

    def find_manifest(self, reference: str) -> Descriptor | None:
        """Look up a tag or digest. See `store.protocols.Source`."""
        return self.client.head_manifest(reference or "latest")

    def find_existing(self, reference: str, *, is_probably_new: bool) -> Descriptor | None:
        """Look up what a reference names before it is written. See `MissingTags`."""
        if ":" in reference or not is_probably_new:
            return self.find_manifest(reference)
        return self._missing_tags.find(self.client, reference or "latest", self.find_manifest)

    def get_manifest(self, reference: str) -> Manifest:
        """Fetch a manifest by tag or digest; a digest is verified."""
        return self.client.get_manifest(reference or "latest")

    def put_manifest(self, manifest: Manifest, reference: str) -> None:
        """Write a manifest, bytes unchanged; one with a subject is listed as a referrer.

        Raises:
            RegistryError: the registry accepts the manifest but cannot return it.
        Source: distribution-spec, "Pushing Manifests with Subject".
        """
        subject = manifest.subject  # raises for an invalid manifest before anything is written
        reference = reference or "latest"

        def put() -> requests.Response:
            return self.client.put_manifest(manifest.body, manifest.media_type, reference)

        answer = put()
        self._missing_tags.record_put(self.client, reference)
        manifest_check.confirm_manifest(
            self.client, manifest, reference, put, self._host_profiles.confirmed_manifests
        )
        if subject is not None and "OCI-Subject" not in answer.headers:
            digest = Digest.parse(reference) if ":" in reference else manifest.digest
            self._referrers.add_to_tag(manifest, digest, subject.digest)

    def referrers(self, subject: Digest, _image_reference: str = "", /) -> Sequence[Descriptor]:
        """Return the referrers of a manifest. See `store.protocols.Store`."""
        return self._referrers.list_referrers(subject)

    def digest_tags(self, subject: Digest, _image_reference: str = "", /) -> Sequence[str]:
        """Return tags made of a digest and a suffix. See `store.protocols.Store`."""
        return self._referrers.digest_tags(subject)

    def delete_manifest(self, reference: str) -> None:
        """Remove a manifest and all tags that refer to it.

        Raises:
            NotFound: there is no such tag or digest.
        """
        descriptor = self.client.head_manifest(reference or "latest")
        if descriptor is None:
            raise NotFound(
                f"{self.name}: {reference or 'latest'} does not exist",
                remedy="check the tag or digest",
            )
        self.client.delete_manifest(str(descriptor.digest))

    def delete_tag(self, tag: str) -> None:
        """Remove a tag and keep its manifest.

        Raises:
            StatusError: the registry does not support it; distribution 2.8 answers 400.
        Source: distribution-spec, "Deleting tags".
        """
        self.client.delete_manifest(tag)

    def is_access_denied(self) -> bool:
        """Return whether all access was denied. See `store.protocols.Store`."""
        return self.client.endpoint.authenticator.is_access_denied()

    def tags(self) -> Iterator[str]:
        """Yield the tags, page by page."""
        return self.client.list_tags()

    def has_blob(self, blob: Descriptor) -> bool:
        """Return whether the registry has the blob with the right size."""
        return self._stored_size(blob) in (-1, blob.size)

    def _stored_size(self, blob: Descriptor) -> int | None:
        """Return the size of a blob as `head_blob` does, and remember a wrong one."""
        size = self.client.head_blob(blob.digest)
        if size is not None and size not in (-1, blob.size):
            self._wrong_size_blobs.add(blob.digest)
        return size

    def blob_size(self, digest: Digest) -> int | None:
        """Return the size of a blob in bytes, None if it is missing.

        Raises:
            ProtocolViolation: the registry does not report the size.
        """
        size = self.client.head_blob(digest)
        if size == -1:
            raise ProtocolViolation(f"{self.name}@{digest}: the registry does not return its size")
        return size

    def open_blob(
        self, blob: Descriptor, start: int = 0, stop: int | None = None
    ) -> RegistryBlobReader:
        """Open the bytes from ``start``; a registry without range support begins at 0.

        Raises:
            SizeMismatch: the size of the blob differs from the descriptor.
        """
        is_range = blob.size > 0 and (start > 0 or (stop is not None and stop < blob.size))
        response = self.client.get_blob(
            blob.digest, start if is_range else 0, stop if is_range else None
        )
        is_partial = response.status_code == requests.codes.partial_content
        length = content_length(response)
        expected = (min(stop or blob.size, blob.size) - start) if is_partial else blob.size
        if length is not None and length != expected:
            response.close()
            raise SizeMismatch(
                f"{self.name}@{blob.digest}: the registry sends {length} bytes, not {expected}",
                remedy="the blob does not match its manifest; push the image again",
            )
        return RegistryBlobReader(response, start if is_partial else 0)

    def delete_blob(self, digest: Digest, /) -> None:
        """Delete a blob of this repository. See `store.protocols.Destination`."""
        self.client.delete_blob(digest)

    def can_upload_without_digest(self, size: int) -> bool:
        """Return whether a blob of ``size`` bytes may be started before its digest is known."""
        quirks = self._host_profiles.quirks_for(self.host)
        # That a fast host takes larger chunks is no reason to read a file twice.
        large = size > quirks.chunk_size(self._chunk_size or MIN_ADAPTIVE_CHUNK)
        return large and quirks.strategy is Strategy.CHUNKS

    def may_read_unannounced(self, *, is_single: bool) -> bool:
        """Return whether a manifest may be read without a lookup. See `store.protocols.Source`."""
        has_quota = self._host_profiles.quirks_for(self.host).has_pull_quota
        return not has_quota and self.client.endpoint.may_pull_unannounced(is_single=is_single)

    @property
    def was_empty(self) -> bool:
        """Whether the repository was unknown or had no tags. See `MissingTags`."""
        return self._missing_tags.was_repository_empty(self.client)

    @property
    def looks_up_by_mount(self) -> bool:
        """Whether a mount replaces a lookup. See `store.protocols.Destination`."""
        quirks = self._host_profiles.quirks_for(self.host)
        # With a limit no session may be opened for a blob that may be present.
        return quirks.lookup_by_mount is not False and quirks.max_uploads is None

    def mount(self, blob: Descriptor, source: str) -> MountResult:
        """Mount a blob, or look it up by a mount from this repository. See `BlobMounter`."""
        return self._mounter.mount(blob, source)

    def begin_blob(
        self, size: int, digest: Digest | None = None, resume: WriterState | None = None
    ) -> RegistryBlobWriter:
        """Begin an upload, or resume one if the registry still has its session."""
        writer = self.create_writer(size, digest).start(resume)
        self._mounter.record_upload(digest)
        return writer

    def begin_stream(self) -> RegistryBlobWriter:
        """Begin an upload whose size and digest become known at its end."""
        return self.create_writer(UNKNOWN_SIZE).start()

    def create_writer(self, size: int, digest: Digest | None = None) -> RegistryBlobWriter:
        """Return the writer of a blob of ``size`` bytes, before its first request."""
        from concil.store.registry.blob_upload import RegistryBlobWriter  # noqa: PLC0415  # to write

        return RegistryBlobWriter(
            self.client,
            self._host_profiles,
            self._chunk_size,
            size,
            digest,
            has_to_check_size=digest in self._wrong_size_blobs,
        )
