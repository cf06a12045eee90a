"""Resolves addresses of images to open sources and destinations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import field, replace
from pathlib import Path

from concil.engine.store_factory import (
    DestinationStore,
    EndpointOptions,
    SourceStore,
    StoreFactory,
    reference_in_store,
)
from concil.errors import ConcilError, UsageError
from concil.http.requests_session import TLSSettings
from concil.oci.address import (
    DOCKER_ARCHIVE,
    Address,
    LayoutAddress,
    parse_address,
)
from concil.oci.descriptor import Descriptor
from concil.oci.platform import Platform
from concil.oci.reference import Reference
from concil.plan.registry_rules import PLACEHOLDER_REPOSITORY
from concil.registry.catalog import list_repositories
from concil.runtime import arguments
from concil.runtime.dataclass import dataclass
from concil.store.airgap.baseline import Baseline
from concil.store.airgap.delta_layout import DeltaLayoutStore
from concil.store.airgap.mount_candidates import MountCandidates
from concil.store.archive.docker_reader import DockerArchiveReader
from concil.store.archive.docker_writer import DockerArchiveWriter, already_exists_error
from concil.store.archive.pool import ArchiveWrites
from concil.store.layout.store import LayoutStore
from concil.store.protocols import Destination
from concil.store.registry.repository import RepositoryStore
from concil.transfer.image.dry_run import ReadOnlyDestination
from concil.transfer.image.job import ImageJob
from concil.transfer.mirror.denied_hosts import DeniedHosts
from concil.transfer.mirror.report import MirrorItem


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Connection options of the source and the destination."""

    source: EndpointOptions = field(default_factory=EndpointOptions)
    destination: EndpointOptions = field(default_factory=EndpointOptions)
    baseline: Baseline | None = None  # content to leave out of layouts, as the receiver has it
    # By host, as users write it; these replace the TLS settings of either side.
    tls_by_host: Mapping[str, TLSSettings] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the types of the fields."""
        arguments.check_instance("source", self.source, EndpointOptions)
        arguments.check_instance("destination", self.destination, EndpointOptions)
        arguments.check_instance("baseline", self.baseline, (Baseline, type(None)))
        arguments.check_instance("tls_by_host", self.tls_by_host, Mapping)

    def options_for(self, options: EndpointOptions, address: Address) -> EndpointOptions:
        """Return the options for an address, with the TLS settings of its host."""
        tls = self.tls_by_host.get(address.host) if isinstance(address, Reference) else None
        if tls is None:
            return options
        tls = replace(tls, cert=tls.cert or options.tls.cert)
        return replace(options, tls=tls, tls_by_host={})


class ImageResolver:
    """Opens the stores of addresses. Any thread may call any method."""

    def __init__(self, store_factory: StoreFactory, endpoints: Endpoints) -> None:
        """Open stores with ``store_factory``."""
        self._store_factory = store_factory
        self._endpoints = endpoints

    def resolve(
        self,
        item: MirrorItem,
        archives: ArchiveWrites | None = None,
    ) -> ImageJob:
        """Open both stores of an image; a destination layout is created if it is missing.

        Args:
            archives: the archives that the current call writes.
        Raises:
            NotFound: there is no such image; only checked before a layout is created.
        """
        destination = parse_address(item.destination)
        job = self._create_job(item, ReadOnlyDestination(None, ""))
        if _is_new_layout(destination) and job.source.find_manifest(job.source_reference) is None:
            # Raises NotFound, so that a wrong name does not leave an empty layout behind.
            job.source.get_manifest(job.source_reference)
        store: Destination = self.open_destination(destination, archives)
        if self._endpoints.baseline is not None and isinstance(store, LayoutStore):
            store = DeltaLayoutStore(store, self._endpoints.baseline)
        candidates = MountCandidates(job.source, job.source_reference, store)
        return replace(job, destination=store, mount_candidates=candidates.repositories_for)

    def resolve_dry_run(self, item: MirrorItem) -> ImageJob:
        """Open both stores of an image for a dry run, without creating anything."""
        address = parse_address(item.destination)
        destination: Destination | None = self.open_existing_destination(address)
        # Only layouts use a baseline, and only a layout may not exist yet.
        layout = address if isinstance(address, LayoutAddress) else None
        if destination is None and layout is not None and layout.scheme == DOCKER_ARCHIVE:
            destination = DockerArchiveWriter(
                Path(layout.path)
            )  # creates no file until content is written
        baseline = self._endpoints.baseline if layout is not None else None
        name = (
            destination.name
            if destination is not None
            else layout.store_address
            if layout is not None
            else ""
        )
        return self._create_job(item, ReadOnlyDestination(destination, name, baseline))

    def open_destination(
        self, address: Address, archives: ArchiveWrites | None = None
    ) -> DestinationStore:
        """Open a store to write to. See `StoreFactory.open_destination`."""
        options = self._endpoints.options_for(self._endpoints.destination, address)
        return self._store_factory.open_destination(address, options, archives)

    def resolve_alone(self, item: MirrorItem) -> ImageJob:
        """Open the store of an image that has no source but itself.

        Raises:
            UsageError: it is in a docker-archive.
        """
        address = parse_address(item.destination)
        store = self._store_factory.open_source(
            address, self._endpoints.options_for(self._endpoints.destination, address)
        )
        if isinstance(store, DockerArchiveReader):
            raise UsageError(
                f"{address} cannot be checked: a docker-archive has no digests of its layers",
                remedy="check the image that it was made from, or use oci-archive:FILE",
            )
        reference = reference_in_store(address)
        destination = ReadOnlyDestination(store, store.name)
        options = tuple(Platform.parse(text) for text in item.platforms), item.referrers
        return ImageJob(store, reference, destination, reference, *options, item.foreign_layers)

    def open_existing_destination(
        self, destination: Address
    ) -> RepositoryStore | LayoutStore | None:
        """Open an existing destination; None: a layout that does not exist yet.

        Raises:
            UsageError: it is an archive, which cannot be changed after it was written.
        """
        if _is_new_layout(destination):
            return None
        store = self._store_factory.open_source(
            destination, self._endpoints.options_for(self._endpoints.destination, destination)
        )
        if isinstance(store, DockerArchiveReader):
            raise already_exists_error(Path(store.name.partition(":")[2]))
        return store

    def open_repository(self, text: str) -> RepositoryStore:
        """Open a repository to write to."""
        address = parse_address(text)
        if isinstance(address, LayoutAddress):
            raise UsageError(f"{text} is not a registry", remedy="write host[:port]/repository")
        return self._store_factory.open_repository(
            address, self._endpoints.options_for(self._endpoints.destination, address)
        )

    def find_manifest(self, source: str) -> Descriptor | None:
        """Find an image at its source, by its address; None: it does not exist."""
        address = parse_address(source)
        store = self.open_source(address)
        return store.find_manifest(reference_in_store(address))

    def list_tags(self, source: Address, denied_hosts: DeniedHosts) -> Iterator[str]:
        """Yield the tags of a source.

        Raises:
            NotTried: its host has denied access before.
        """
        store = self.open_source(source)
        yield from _skip_denied_host(store, store.tags(), denied_hosts)

    def list_repositories(self, registry: str, denied_hosts: DeniedHosts) -> Iterator[str]:
        """Yield the repositories of a registry. Raises as `list_tags`."""
        store = self.open_source(parse_address(f"{registry.rstrip('/')}/{PLACEHOLDER_REPOSITORY}"))
        if not isinstance(store, RepositoryStore):
            raise UsageError(f"{registry} is not a registry", remedy="write host[:port]")
        client = store.client
        repositories = list_repositories(
            client.endpoint, client.policy, self._store_factory.list_cache
        )
        yield from _skip_denied_host(store, repositories, denied_hosts)

    def open_source(self, address: Address) -> SourceStore:
        """Open a store to read from."""
        return self._store_factory.open_source(
            address, self._endpoints.options_for(self._endpoints.source, address)
        )

    def _create_job(self, item: MirrorItem, destination: Destination) -> ImageJob:
        source = parse_address(item.source)
        options = self._endpoints.options_for(self._endpoints.source, source)
        return ImageJob(
            self._store_factory.open_source(source, options),
            reference_in_store(source),
            destination,
            reference_in_store(parse_address(item.destination)),
            tuple(Platform.parse(text) for text in item.platforms),
            item.referrers,
            item.foreign_layers,
            self._store_factory.open_foreign_layer,
            immutable=item.immutable,
            recheck=item.recheck,
            overwrite=item.overwrite,
            verifier=item.verifier,
        )


def _skip_denied_host(
    store: SourceStore, names: Iterator[str], denied_hosts: DeniedHosts
) -> Iterator[str]:
    """Yield ``names``, unless the host of the store has denied access before."""
    denied_error = denied_hosts.find_error(store)
    if denied_error is not None:
        raise denied_error.with_traceback(None)
    try:
        yield from names
    except ConcilError as error:
        reported_error = denied_hosts.record_error(error, store)
        if reported_error is error:
            raise
        raise reported_error.with_traceback(None) from error


def _is_new_layout(destination: Address) -> bool:
    """Whether the address is a layout or archive that has to be created."""
    if not isinstance(destination, LayoutAddress):
        return False
    path = Path(destination.path)
    return not path.exists() or (path.is_dir() and not any(path.iterdir()))
