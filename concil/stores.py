"""Opens the store behind an address: sessions by TLS setting, endpoints by host and user."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import requests

from concil.config import Timeouts, TransferConfig
from concil.content import Digest
from concil.reference import Address, LayoutAddress, Reference, is_loopback
from concil.registry.client import RegistryClient
from concil.registry.credentials import Credentials, Login
from concil.registry.endpoint import Endpoint
from concil.registry.quirks import Knowledge
from concil.registry.session import Pauses, TLSSettings, Transport, new_session
from concil.store.layout import LayoutStore
from concil.store.layout_directory import Layout
from concil.store.remote import RemoteStore

Store = RemoteStore | LayoutStore


@dataclass(frozen=True, slots=True)
class Access:
    """How one side of a transfer is reached."""

    tls: TLSSettings = field(default_factory=TLSSettings)
    credentials: Credentials | None = None  # where the address itself has none


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
        self._pauses = Pauses()
        self._knowledge = knowledge or Knowledge()
        self._transports: dict[TLSSettings, Transport] = {}
        self._endpoints: dict[tuple[str, Access], Endpoint] = {}
        self._layouts: dict[str, LayoutStore] = {}
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
            StoreError, NotFound: a layout that is not there, or is none.
        """
        return self._open(address, access or Access(), create=False)

    def destination(self, address: Address, access: Access | None = None) -> Store:
        """Open a store to write to; a layout is made if it is missing."""
        return self._open(address, access or Access(), create=True)

    def repository(self, reference: Reference, access: Access | None = None) -> RemoteStore:
        """Open a repository of a registry."""
        endpoint = self._endpoint(reference, access or Access())
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
        )

    def close(self) -> None:
        """Close every session."""
        with self._lock:
            transports = list(self._transports.values())
            self._transports.clear()
            self._endpoints.clear()
        for transport in transports:
            transport.session.close()

    def _open(self, address: Address, access: Access, *, create: bool) -> Store:
        if isinstance(address, Reference):
            return self.repository(address, access)
        with self._lock:
            store = self._layouts.get(address.path)
            if store is None:
                layout = Layout(address.path, create=create)
                store = LayoutStore(layout, manifest_limit=self._config.manifest_limit)
                self._layouts[address.path] = store
            return store

    def _endpoint(self, reference: Reference, access: Access) -> Endpoint:
        credentials = access.credentials
        if reference.username is not None:
            credentials = Credentials(reference.username, reference.password or "")
        access = Access(access.tls, credentials)
        base = f"{reference.api_scheme}://{reference.api_host}"
        with self._lock:
            endpoint = self._endpoints.get((base, access))
            if endpoint is None:
                # Docker tries plain http on a loopback host, skopeo where nothing is verified.
                plain = is_loopback(reference.api_host) or access.tls.verify is False
                endpoint = Endpoint(
                    self._transport(access.tls),
                    base,
                    login=Login(credentials),
                    may_be_plain=plain and reference.scheme == "docker",
                )
                self._endpoints[base, access] = endpoint
            return endpoint

    def _transport(self, tls: TLSSettings) -> Transport:
        """The transport for a TLS setting. The caller holds the lock."""
        transport = self._transports.get(tls)
        if transport is None:
            connections = 2 * (self._config.workers + self._config.images) + 2
            session: requests.Session = new_session(tls, connections=connections)
            transport = self._transports[tls] = Transport(
                session, timeouts=self._timeouts, cancel=self._cancel, pauses=self._pauses
            )
        return transport


def blob_size(store: Store, digest: Digest) -> int | None:
    """Bytes of a blob in a store; None: not there."""
    return (
        store.blob_size(digest)
        if isinstance(store, RemoteStore)
        else store.layout.blob_size(digest)
    )


def reference_of(address: Address) -> str:
    """What an address names in its store: a digest, a tag, or "" for the default."""
    if address.digest is not None:
        return str(address.digest)
    if isinstance(address, LayoutAddress):
        return address.name or ""
    return address.tag or "latest"
