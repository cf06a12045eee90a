"""Opens the store behind an address: sessions by TLS setting, endpoints by host and user."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import requests

from concil import arguments
from concil.archives import Archives, ArchiveWriting, LocalSource, LocalTarget
from concil.config import Timeouts, TransferConfig
from concil.content import Descriptor, Digest
from concil.errors import UsageError
from concil.progress import ProgressSink
from concil.reference import Address, LayoutAddress, Reference, by_server, is_loopback
from concil.registry.client import RegistryClient
from concil.registry.credentials import Credentials, Login
from concil.registry.endpoint import Endpoint
from concil.registry.gates import Gates
from concil.registry.http_session import TLSSettings, new_session
from concil.registry.keyring import Keyring, Shelf
from concil.registry.quirks import Knowledge
from concil.registry.referrers import SharedReferrers
from concil.registry.session import Transport
from concil.registry.warning_header import WarningLog
from concil.store.docker_archive import DockerArchive
from concil.store.foreign import open_elsewhere
from concil.store.layout import LayoutStore
from concil.store.layout_directory import Layout
from concil.store.remote import RemoteBlob, RemoteStore

Store = RemoteStore | LocalSource
Target = RemoteStore | LocalTarget


@dataclass(frozen=True, slots=True)
class Access:
    """How one side of a transfer is reached."""

    tls: TLSSettings = field(default_factory=TLSSettings)
    credentials: Credentials | None = None  # where the address itself has none
    authfile: str | None = None  # the file of logins; None: those of podman and docker

    def __post_init__(self) -> None:
        """Refuse what is of another type; a path may be one of `os.PathLike`."""
        arguments.instance("tls", self.tls, TLSSettings)
        arguments.instance("credentials", self.credentials, (Credentials, type(None)))
        if self.authfile is not None:
            object.__setattr__(self, "authfile", arguments.path("authfile", self.authfile))


class Stores:
    """Every store of one run, opened once. Any thread may call any method.

    TLS settings never share a session: requests keeps the first one's connections
    (CVE-2024-35195).
    """

    def __init__(
        self,
        config: TransferConfig,
        *,
        timeouts: Timeouts | None,
        cancel: threading.Event,
        knowledge: Knowledge | None = None,
    ) -> None:
        """Open nothing yet; `close` ends every connection.

        Args:
            knowledge: what is known of the hosts; None: what is declared.
        """
        self._config = config
        self._timeouts = timeouts
        self._cancel = cancel
        self._gates = Gates(config.requests, by_server(config.hosts))
        self.warnings = WarningLog()
        self._knowledge = knowledge or Knowledge()
        self.referrers = SharedReferrers()
        self._transports: dict[TLSSettings, Transport] = {}
        self._keyrings: dict[str | None, Keyring] = {}  # by file of logins
        self._endpoints: dict[tuple[str, Access, str], Endpoint] = {}
        self._layouts: dict[str, tuple[Layout, LayoutStore]] = {}
        self._archives = Archives(config, cancel)
        self._lock = threading.Lock()  # guards the dictionaries above

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()

    def source(self, address: Address, access: Access | None = None) -> Store:
        """Open a store to read from.

        Raises:
            StoreError, NotFound: a layout or archive that is not there, or is none.
        """
        if isinstance(address, Reference):
            return self.repository(address, access)
        if address.is_archive:
            return self._archives.source(address)
        return self._layout(address.path, create=False)[1]

    def destination(
        self,
        address: Address,
        access: Access | None = None,
        archives: ArchiveWriting | None = None,
    ) -> Target:
        """Open a store to write to; a layout or archive is made if it is missing.

        Args:
            archives: those that the call of the engine writes to.
        Raises:
            UsageError: it is an archive, and none are written.
        """
        if isinstance(address, Reference):
            return self.repository(address, access)
        if not address.is_archive:
            layout, store = self._layout(address.path, create=True)
            return store if archives is None else archives.layout(address.path, layout)
        if archives is None:
            raise UsageError(
                f"{address}: an archive is not written an image at a time",
                remedy="copy or mirror to it",
            )
        return archives.destination(address)

    def repository(self, reference: Reference, access: Access | None = None) -> RemoteStore:
        """Open a repository of a registry."""
        endpoint = self.endpoint(reference, access)
        client = RegistryClient(
            endpoint,
            reference.repository,
            policy=self._config.retry,
            manifest_limit=self._config.manifest_limit,
        )
        return RemoteStore(
            client,
            name=reference.repository_address,
            knowledge=self._knowledge,
            chunk_size=self._config.chunk_size,
            referrers=self.referrers,
        )

    def foreign_layer(
        self, blob: Descriptor, start: int = 0, stop: int | None = None
    ) -> RemoteBlob:
        """Open a layer at a URL of its manifest, with nobody's credentials or certificate."""
        with self._lock:
            transport = self._transport(TLSSettings())
        return open_elsewhere(transport, blob, start, stop)

    def close(self) -> None:
        """Close every session, and every archive."""
        self._archives.close()
        with self._lock:
            transports = list(self._transports.values())
            self._transports.clear()
            self._endpoints.clear()
        for transport in transports:
            transport.session.close()

    def _layout(self, path: str, *, create: bool) -> tuple[Layout, LayoutStore]:
        with self._lock:
            if path not in self._layouts:
                layout = Layout(path, create=create)
                store = LayoutStore(layout, manifest_limit=self._config.manifest_limit)
                self._layouts[path] = layout, store
            return self._layouts[path]

    def writing(self, progress: ProgressSink | None) -> AbstractContextManager[ArchiveWriting]:
        """Hold while images are copied that may go into archives."""
        return self._archives.writing(progress)

    def endpoint(self, reference: Reference, access: Access | None = None) -> Endpoint:
        """Open the registry of a reference, as the user whom its repository is for."""
        access = access or Access()
        credentials, nobody = access.credentials, reference.username == ""
        if reference.username is not None:
            given = Credentials(reference.username, reference.password or "")
            credentials = None if nobody else given
        access = Access(access.tls, credentials, access.authfile)
        base = f"{reference.api_scheme}://{reference.api_host}"
        keyring = self.keyring(access.authfile)
        # Two repositories of a host may have logins of their own, and then tokens, too.
        scope = keyring.scope(f"{reference.host}/{reference.repository}")
        if nobody or credentials is not None:
            login, scope = Login(credentials), ""
        else:
            login = Login(stored=lambda: keyring.find(scope))
        with self._lock:
            endpoint = self._endpoints.get((base, access, scope))
            if endpoint is None:
                # Docker tries plain http on a loopback host, skopeo where nothing is verified.
                plain = is_loopback(reference.api_host) or access.tls.verify is False
                endpoint = Endpoint(
                    self._transport(access.tls),
                    base,
                    login=login,
                    may_be_plain=plain and reference.scheme == "docker",
                )
                self._endpoints[base, access, scope] = endpoint
            return endpoint

    def keyring(self, authfile: str | None = None) -> Keyring:
        """Return the stored logins: those of a file, or of all that podman and docker read."""
        with self._lock:
            keyring = self._keyrings.get(authfile)
            if keyring is None:
                keyring = Keyring(Shelf.of(authfile), cancel=self._cancel)
                self._keyrings[authfile] = keyring
            return keyring

    def _transport(self, tls: TLSSettings) -> Transport:
        """The transport for a TLS setting. The caller holds the lock."""
        transport = self._transports.get(tls)
        if transport is None:
            connections = 2 * (self._config.workers + self._config.images) + 2
            session: requests.Session = new_session(tls, connections=connections)
            transport = self._transports[tls] = Transport(
                session,
                timeouts=self._timeouts,
                cancel=self._cancel,
                gates=self._gates,
                warnings=self.warnings,
            )
        return transport


def blob_size(store: Store, digest: Digest) -> int | None:
    """Bytes of a blob in a store; None: not there."""
    if isinstance(store, LayoutStore):
        return store.layout.blob_size(digest)
    return store.blob_size(digest)


def listing(store: Store) -> Iterator[tuple[str, Digest | None]]:
    """Yield every image of a store by name, "" for those that have none.

    Digests are told where that costs nothing.
    """
    if not isinstance(store, LayoutStore):
        for tag in store.tags():
            yield tag, None
        if isinstance(store, DockerArchive):
            yield from [("", None)] * store.untagged
        return
    named = set()
    for name in store.tags():
        entry = store.layout.find(name)
        if entry is not None:
            named.add(entry.digest)
            yield name, entry.digest
    for entry in store.layout.entries():
        if entry.digest not in named:
            yield "", entry.digest


def reference_of(address: Address) -> str:
    """What an address names in its store: a digest, a tag, or "" for the default."""
    if address.digest is not None:
        return str(address.digest)
    if isinstance(address, LayoutAddress):
        return address.name or ""
    return address.tag or "latest"
