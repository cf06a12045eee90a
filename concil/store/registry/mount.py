"""Mounts blobs into a repository of a registry, and looks blobs up by mounting them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from concil.errors import ConnectionLost, ProtocolViolation, QuotaExceeded, StatusError
from concil.oci.descriptor import Descriptor
from concil.oci.digest import Digest
from concil.registry.client import RegistryClient
from concil.registry.quirks import HostProfiles
from concil.registry.upload_session import UploadSession
from concil.store.protocols import MountResult
from concil.store.registry.blob_check import repository_name

if TYPE_CHECKING:
    from concil.store.registry.blob_upload import RegistryBlobWriter

logger = logging.getLogger(__name__)
# Bytes; sending a larger blob twice costs more than one request to look it up.
MAX_UNCHECKED_SIZE = 256 * 1024


class BlobMounter:
    """Mounts blobs into one repository. Any thread may call any method.

    A mount from the repository itself answers 201 if the blob is there, and otherwise opens the
    session in which it is sent: one request instead of a HEAD and a POST. The specification
    allows a registry to answer every mount with 202. So until a registry has found a blob in
    this way, a HEAD confirms that a large blob is missing. A 201 is always confirmed by a HEAD,
    because it does not report the size of the stored file.
    Source: distribution-spec, "Mounting a blob from another repository"; REGISTRIES.md 1.8.
    """

    def __init__(
        self,
        client: RegistryClient,
        host_profiles: HostProfiles,
        stored_size: Callable[[Descriptor], int | None],
        create_writer: Callable[[int, Digest], RegistryBlobWriter],
        was_repository_empty: Callable[[], bool] = lambda: False,
    ) -> None:
        """Mount into the repository of ``client``.

        Args:
            host_profiles: records which hosts look blobs up in this way.
            stored_size: returns the size of a stored blob as `RegistryClient.head_blob` does.
            create_writer: returns the writer of a blob, given its size and digest.
            was_repository_empty: returns whether a list has shown that the repository had no tags.
        """
        self._client = client
        self._host_profiles = host_profiles
        self._stored_size = stored_size
        self._create_writer = create_writer
        self._was_repository_empty = was_repository_empty
        self._lock = threading.Lock()  # guards the field below
        self._refused: set[Digest | None] = set()  # lookups that the registry refused

    def mount(self, blob: Descriptor, source: str) -> MountResult:
        """Mount ``blob`` from the repository ``source``; no refusal is an error.

        Raises:
            ConnectionLost: there was no answer to a mount from the repository itself.
        """
        is_lookup = source == self._client.repository
        try:
            session = UploadSession.start_by_mount(self._client, blob.digest, source)
        except (StatusError, ConnectionLost, ProtocolViolation) as error:
            if is_lookup and isinstance(error, ConnectionLost | QuotaExceeded):
                raise
            logger.debug("%s: no mount from %s: %s", self._name, source, error)
            if is_lookup and not (isinstance(error, StatusError) and error.transient):
                with self._lock:
                    self._refused.add(blob.digest)
            return MountResult(is_mounted=False)
        if is_lookup:
            return self._lookup_result(blob, session)
        return MountResult(is_mounted=True) if session is None else self._begin(blob, session)

    def record_upload(self, digest: Digest | None) -> None:
        """Record that a plain upload was begun: if its lookup was refused, none is sent again."""
        with self._lock:
            is_refused = digest in self._refused
            self._refused.discard(digest)
        if is_refused:
            self._record_lookup(works=False)

    def _lookup_result(self, blob: Descriptor, session: UploadSession | None) -> MountResult:
        """Return the result of a mount from the repository itself."""
        if session is None:
            return MountResult(self._is_confirmed(blob))
        is_known = self._host_profiles.quirks_for(self._host).lookup_by_mount is not None
        is_unlikely = blob.size <= MAX_UNCHECKED_SIZE or self._was_repository_empty()
        if is_known or is_unlikely or not self._is_found(blob):
            return self._begin(blob, session)
        self._record_lookup(works=False)
        session.cancel()
        return MountResult(is_mounted=True)

    def _begin(self, blob: Descriptor, session: UploadSession) -> MountResult:
        """Return the writer that sends the blob into the session."""
        if self._host_profiles.quirks_for(self._host).max_uploads is not None:
            session.cancel()  # uploads wait for a slot before they open their session
            return MountResult(is_mounted=False)
        writer = self._create_writer(blob.size, blob.digest).use_session(session)
        return MountResult(is_mounted=False, writer=writer)

    def _is_confirmed(self, blob: Descriptor) -> bool:
        """Return whether a HEAD confirms a 201 for a blob of the repository itself."""
        try:
            size = self._stored_size(blob)
        except StatusError as error:
            logger.debug("%s: %s", self._name, error)
            return False
        is_complete = size in (-1, blob.size)
        if size is None or is_complete:
            self._record_lookup(works=is_complete)
        return is_complete

    def _is_found(self, blob: Descriptor) -> bool:
        """Return whether a HEAD finds a blob that a mount has not found."""
        try:
            return self._stored_size(blob) in (-1, blob.size)
        except StatusError as error:
            # Killing distribution 2.8 can leave an empty link file; an upload rewrites it.
            logger.debug("%s: %s", self._name, error)
            return False

    def _record_lookup(self, *, works: bool) -> None:
        self._host_profiles.set_lookup_by_mount(self._host, works=works)

    @property
    def _host(self) -> str:
        return self._client.endpoint.host

    @property
    def _name(self) -> str:
        return repository_name(self._client)
