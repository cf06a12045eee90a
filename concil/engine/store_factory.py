"""Opens the store behind an address and shares its sessions."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeAlias

from concil.auth.credentials.credentials import CredentialProviders, Credentials
from concil.auth.credentials.keychain import AuthFilePaths, Keychain
from concil.config import Timeouts, TransferConfig
from concil.errors import UsageError
from concil.http.requests_session import TLSSettings, create_session
from concil.http.throttle.host_limiters import HostLimiters
from concil.http.throttle.shared_limiter import share_limiters
from concil.http.transport import Transport
from concil.http.warning_header import WarningLog
from concil.oci.address import Address, LayoutAddress
from concil.oci.descriptor import Descriptor
from concil.oci.manifest import Digest
from concil.oci.reference import Reference, is_loopback, limits_by_api_host
from concil.progress.events import ProgressSink
from concil.progress.request_observer import RequestObserver
from concil.registry.client import RegistryClient
from concil.registry.endpoint import Endpoint
from concil.registry.list_cache import ListCache
from concil.registry.missing_tags import MissingTags
from concil.registry.quirks import HostProfiles
from concil.registry.referrers import SharedReferrers
from concil.runtime import arguments
from concil.runtime.dataclass import dataclass
from concil.runtime.parent_process import ParentProcess
from concil.store.registry.blob_body import RegistryBlobReader
from concil.store.registry.repository import RepositoryStore

if TYPE_CHECKING:  # archives and layouts are imported when an address is one
    from concil.store.archive.pool import ArchivePool, ArchiveWrites, LocalDestination, LocalSource
    from concil.store.layout.directory import LayoutDirectory
    from concil.store.layout.store import LayoutStore
    from concil.store.layout.usage_lock import UsageLock

SourceStore: TypeAlias = "RepositoryStore | LocalSource"
DestinationStore: TypeAlias = "RepositoryStore | LocalDestination"


@dataclass(frozen=True, slots=True)
class EndpointOptions:
    """Connection options of one side of a transfer."""

    tls: TLSSettings = field(default_factory=TLSSettings)
    credentials: Credentials | None = None  # used if the address has none
    authfile: str | None = None  # file with logins; None: those of podman and docker
    tls_by_host: Mapping[str, TLSSettings] = field(default_factory=dict, hash=False)  # for ``tls``

    def __post_init__(self) -> None:
        """Check the types of the fields; a path may be an `os.PathLike`."""
        arguments.check_instance("tls", self.tls, TLSSettings)
        arguments.check_instance("credentials", self.credentials, (Credentials, type(None)))
        if self.authfile is not None:
            object.__setattr__(self, "authfile", arguments.to_path("authfile", self.authfile))


class StoreFactory:
    """Opens each store of one run once. Any thread may call any method.

    Different TLS settings never share a session, because requests would reuse connections
    that were opened with other settings (CVE-2024-35195).
    """

    def __init__(  # noqa: PLR0913 - what is shared by all stores of a run
        self,
        config: TransferConfig,
        *,
        timeouts: Timeouts | None,
        cancel: threading.Event,
        host_profiles: HostProfiles | None = None,
        parent: ParentProcess | None = None,
        progress: ProgressSink | None = None,
        list_cache: ListCache | None = None,
        observer: RequestObserver | None = None,
    ) -> None:
        """Create the factory without opening anything; `close` closes every connection.

        Args:
            host_profiles: recorded behaviour of hosts; None: the built-in profiles only.
            parent: of a run that is split over several processes.
            progress, observer: receive the pauses of hosts, and each request.
            list_cache: of lists of tags and repositories; None: they are always read.
        """
        self.list_cache = list_cache
        self._parent = parent
        self._config = config
        self._timeouts, self._cancel = timeouts, cancel
        self.host_limiters = HostLimiters(
            config.requests,
            limits_by_api_host(config.host_limits),
            config.retry.max_retry_after,
            create_limiter=None if parent is None else share_limiters(parent),
            progress=progress,
        )
        self.host_limiters.observer = observer
        self.warnings = WarningLog(parent)
        self._host_profiles = host_profiles or HostProfiles()
        self._referrers = (
            SharedReferrers()
            if parent is None
            else SharedReferrers(lambda name: parent.slot(name, 1, cancel))
        )
        self._missing_tags = MissingTags()
        self._transports: dict[TLSSettings, Transport] = {}
        self._keychains: dict[str | None, Keychain] = {}  # by authfile
        self._endpoints: dict[tuple[str, EndpointOptions, str], Endpoint] = {}
        self._layouts: dict[str, tuple[LayoutDirectory, LayoutStore]] = {}
        self._usage_locks: dict[str, UsageLock] = {}  # of layouts written to by single images
        self._archives: ArchivePool | None = None
        self._lock = threading.Lock()  # guards the fields above

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close all sessions and archives."""
        self.close()

    def forget_tags(self) -> None:
        """Forget what an earlier call has found out about tags and referrers."""
        self._referrers.clear()
        self._missing_tags.clear()

    def open_source(self, address: Address, options: EndpointOptions | None = None) -> SourceStore:
        """Open a store to read from.

        Raises:
            StoreError, NotFound: the layout or archive does not exist or is invalid.
        """
        if isinstance(address, Reference):
            return self.open_repository(address, options)
        if address.is_archive:
            return self._archive_pool().open_source(address)
        return self._open_layout(address.path, create=False)[1]

    def open_destination(
        self,
        address: Address,
        options: EndpointOptions | None = None,
        archives: ArchiveWrites | None = None,
    ) -> DestinationStore:
        """Open a store to write to; a layout or archive is created if it is missing.

        Args:
            archives: the archives that the current call of the engine writes.
        Raises:
            UsageError: it is an archive, and ``archives`` is None.
        """
        if isinstance(address, Reference):
            return self.open_repository(address, options)
        if not address.is_archive:
            layout, store = self._open_layout(address.path, create=True)
            if archives is not None:
                return archives.layout(address.path, layout)
            self._lock_usage(address.path)
            return store
        if archives is None:
            raise UsageError(
                f"{address}: single images cannot be written into an archive",
                remedy="copy or mirror images to it",
            )
        return archives.open_destination(address)

    def open_repository(
        self, reference: Reference, options: EndpointOptions | None = None
    ) -> RepositoryStore:
        """Open a repository of a registry."""
        endpoint = self.get_endpoint(reference, options)
        client = RegistryClient(
            endpoint,
            reference.repository,
            policy=self._config.retry,
            max_manifest_size=self._config.max_manifest_size,
            list_cache=self.list_cache,
        )
        return RepositoryStore(
            client,
            name=reference.repository_address,
            host_profiles=self._host_profiles,
            chunk_size=self._config.chunk_size,
            referrers=self._referrers,
            missing_tags=self._missing_tags,
        )

    def open_foreign_layer(
        self, blob: Descriptor, start: int = 0, stop: int | None = None
    ) -> RegistryBlobReader:
        """Open a layer at a URL in its manifest, without credentials or client certificate."""
        from concil.store.registry.foreign_layer_url import open_foreign_layer  # noqa: PLC0415  # rare

        with self._lock:
            transport = self._get_transport(TLSSettings())
        return open_foreign_layer(transport, blob, start, stop)

    def close(self) -> None:
        """Close all sessions and archives."""
        with self._lock:
            archives = self._archives
        if archives is not None:
            archives.close()
        with self._lock:
            transports, usage_locks = [*self._transports.values()], [*self._usage_locks.values()]
            self._transports.clear()
            self._usage_locks.clear()
            self._endpoints.clear()
        for transport in transports:
            transport.session.close()
        for usage_lock in usage_locks:
            usage_lock.close()

    def _open_layout(self, path: str, *, create: bool) -> tuple[LayoutDirectory, LayoutStore]:
        from concil.store.layout.directory import LayoutDirectory  # noqa: PLC0415  # not for registries
        from concil.store.layout.store import LayoutStore  # noqa: PLC0415

        with self._lock:
            if path not in self._layouts:
                layout = LayoutDirectory(path, create=create)
                store = LayoutStore(layout, manifest_limit=self._config.max_manifest_size)
                self._layouts[path] = layout, store
            return self._layouts[path]

    def _lock_usage(self, path: str) -> None:
        """Keep garbage collection away from a layout until the factory is closed."""
        from concil.store.layout.usage_lock import UsageLock  # noqa: PLC0415  # not for registries

        with self._lock:
            if path not in self._usage_locks:
                self._usage_locks[path] = UsageLock.shared(Path(path))

    def open_archive_writes(
        self, progress: ProgressSink | None
    ) -> AbstractContextManager[ArchiveWrites]:
        """Return a context manager for a call that may write archives."""
        return self._archive_pool().open_writes(progress)

    def _archive_pool(self) -> ArchivePool:
        from concil.store.archive.pool import ArchivePool  # noqa: PLC0415  # not for registries

        with self._lock:
            if self._archives is None:
                self._archives = ArchivePool(self._config, self._cancel)
            return self._archives

    def get_endpoint(
        self, reference: Reference, options: EndpointOptions | None = None
    ) -> Endpoint:
        """Return the endpoint of a reference, with the credentials for its repository."""
        options = options or EndpointOptions()
        credentials, is_anonymous = options.credentials, reference.username == ""
        if reference.username is not None:
            credentials = Credentials(reference.username, reference.password or "")
        tls = options.tls_by_host.get(reference.host, options.tls)
        credentials = None if is_anonymous else credentials
        options = EndpointOptions(tls, credentials, options.authfile)
        base_url = f"{reference.api_scheme}://{reference.api_host}"
        keychain = self.get_keychain(options.authfile)
        # Repositories of one host may have separate logins, which need separate tokens.
        scope = keychain.credential_scope(f"{reference.host}/{reference.repository}")
        if is_anonymous or credentials is not None:
            providers, scope = CredentialProviders(credentials), ""
        else:
            providers = CredentialProviders(stored=lambda: keychain.find_credentials(scope))
        with self._lock:
            endpoint = self._endpoints.get((base_url, options, scope))
            if endpoint is None:
                # Docker tries plain http for loopback hosts, skopeo if verification is off.
                may_use_http = is_loopback(reference.api_host) or options.tls.verify is False
                endpoint = Endpoint(
                    self._get_transport(options.tls),
                    base_url,
                    providers=providers,
                    allow_plain_http=may_use_http and reference.scheme == "docker",
                    parent=self._parent,
                )
                self._endpoints[base_url, options, scope] = endpoint
            return endpoint

    def get_keychain(self, authfile: str | None = None) -> Keychain:
        """Return the logins stored in a file, or in all files that podman and docker read."""
        with self._lock:
            keychain = self._keychains.get(authfile)
            if keychain is None:
                keychain = Keychain(AuthFilePaths.resolve(authfile), cancel=self._cancel)
                self._keychains[authfile] = keychain
            return keychain

    def _get_transport(self, tls: TLSSettings) -> Transport:
        """Return the transport for TLS settings. The caller holds the lock."""
        transport = self._transports.get(tls)
        if transport is None:
            connections = 2 * (self._config.workers + self._config.concurrent_images) + 2
            transport = self._transports[tls] = Transport(
                create_session(tls, pool_maxsize=connections),
                timeouts=self._timeouts,
                cancel=self._cancel,
                host_limiters=self.host_limiters,
                warnings=self.warnings,
            )
        return transport


def blob_size(store: SourceStore, digest: Digest) -> int | None:
    """Return the size of a blob in a store, in bytes; None: it does not exist."""
    if isinstance(store, RepositoryStore):
        return store.blob_size(digest)
    from concil.store.layout.store import LayoutStore  # noqa: PLC0415  # not for registries

    return (store.backend if isinstance(store, LayoutStore) else store).blob_size(digest)


def list_images(store: SourceStore) -> Iterator[tuple[str, Digest | None]]:
    """Yield name ("" if unnamed) and digest (None if it takes a request) of every image."""
    from concil.store.archive.docker_reader import DockerArchiveReader  # noqa: PLC0415  # seldom called
    from concil.store.layout.store import LayoutStore  # noqa: PLC0415

    if not isinstance(store, LayoutStore):
        for tag in store.tags():
            yield tag, None
        if isinstance(store, DockerArchiveReader):
            yield from [("", None)] * store.untagged_count
        return
    named_digests = set()
    for name in store.tags():
        entry = store.backend.find_entry(name)
        if entry is not None:
            named_digests.add(entry.digest)
            yield name, entry.digest
    for entry in store.backend.entries():
        if entry.digest not in named_digests:
            yield "", entry.digest


def reference_in_store(address: Address) -> str:
    """Return the reference of an address in its store: a digest, a tag, or "" for the default."""
    if address.digest is not None:
        return str(address.digest)
    if isinstance(address, LayoutAddress):
        return address.name or ""
    return address.tag or "latest"
