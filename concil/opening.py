"""Opens the places that images are copied between, and asks sources what they have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from concil import arguments
from concil.archives import ArchiveWriting
from concil.content import Descriptor, Platform
from concil.errors import ConcilError, UsageError
from concil.plan.registries import PROBE
from concil.reference import DOCKER_ARCHIVE, Address, LayoutAddress, Reference, parse_address
from concil.registry.catalog import repositories
from concil.registry.http_session import TLSSettings
from concil.store.docker_archive import DockerArchive
from concil.store.docker_archive_writer import DockerArchiveWriter, is_taken
from concil.store.elsewhere import Elsewhere
from concil.store.held import Held
from concil.store.lacking import LackingStore
from concil.store.layout import LayoutStore
from concil.store.protocol import Destination
from concil.store.remote import RemoteStore
from concil.stores import Access, Store, Stores, reference_of
from concil.transfer.job import ImageJob
from concil.transfer.mirror import MirrorItem
from concil.transfer.refusals import Refusals
from concil.transfer.survey import Untouched


@dataclass(frozen=True, slots=True)
class Sides:
    """How the source and the destination are reached."""

    source: Access = field(default_factory=Access)
    destination: Access = field(default_factory=Access)
    held: Held | None = None  # what is left out of layouts: they are carried to where it is
    # Of single hosts, as people write them, instead of those of either side.
    tls: Mapping[str, TLSSettings] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what is of another type."""
        arguments.instance("source", self.source, Access)
        arguments.instance("destination", self.destination, Access)
        arguments.instance("held", self.held, (Held, type(None)))
        arguments.instance("tls", self.tls, Mapping)

    def to(self, side: Access, address: Address) -> Access:
        """How an address is reached on one of the sides."""
        own = self.tls.get(address.host) if isinstance(address, Reference) else None
        if own is None:
            return side
        return replace(side, tls=replace(own, cert=own.cert or side.tls.cert))


class Opening:
    """Turns addresses into open places. Any thread may call any method."""

    def __init__(self, stores: Stores, sides: Sides) -> None:
        """Open them by ``stores``."""
        self._stores = stores
        self._sides = sides

    def image(self, item: MirrorItem, archives: ArchiveWriting | None = None) -> ImageJob:
        """Open both sides of an image; a layout to write to is made if it is missing.

        Args:
            archives: those that are written.
        Raises:
            NotFound: there is no such image, where that has to be known before a layout is made.
        """
        destination = parse_address(item.destination)
        job = self._job(item, Untouched(None, ""))
        if _is_new(destination) and job.source.find_manifest(job.source_reference) is None:
            # Said before the layout is made: a wrong name leaves no empty one behind.
            job.source.get_manifest(job.source_reference)
        store: Destination = self._stores.destination(
            destination, self._sides.to(self._sides.destination, destination), archives
        )
        if self._sides.held is not None and isinstance(store, LayoutStore):
            store = LackingStore(store, self._sides.held)
        carried = Elsewhere(job.source, job.source_reference, store)
        return replace(job, destination=store, carried=carried.repositories)

    def survey(self, item: MirrorItem) -> ImageJob:
        """Open both sides of an image to look at them; nothing is made."""
        address = parse_address(item.destination)
        place: Destination | None = self.written(address)
        # Only of layouts anything is left out, and only a layout may not be there yet.
        layout = address if isinstance(address, LayoutAddress) else None
        if place is None and layout is not None and layout.kind == DOCKER_ARCHIVE:
            place = DockerArchiveWriter(Path(layout.path))  # writes nothing until it is given some
        held = self._sides.held if layout is not None else None
        name = place.name if place is not None else layout.place if layout is not None else ""
        return self._job(item, Untouched(place, name, held))

    def written(self, destination: Address) -> RemoteStore | LayoutStore | None:
        """Open what was written to before; None: a layout that was not.

        Raises:
            UsageError: it is an archive that is not written to twice.
        """
        if _is_new(destination):
            return None
        store = self._stores.source(
            destination, self._sides.to(self._sides.destination, destination)
        )
        if isinstance(store, DockerArchive):
            raise is_taken(Path(store.name.partition(":")[2]))
        return store

    def repository(self, text: str) -> RemoteStore:
        """Open a repository to write to."""
        address = parse_address(text)
        if isinstance(address, LayoutAddress):
            raise UsageError(f"{text}: not a registry", remedy="write host[:port]/repository")
        return self._stores.repository(address, self._sides.to(self._sides.destination, address))

    def find(self, source: str) -> Descriptor | None:
        """Ask a source for an image, by its address; None: it is not there."""
        address = parse_address(source)
        store = self.source(address)
        return store.find_manifest(reference_of(address))

    def tags(self, source: Address, refusals: Refusals) -> Iterator[str]:
        """Yield the tags of a source.

        Raises:
            NotTried: its host has refused the user before.
        """
        store = self.source(source)
        yield from _asked(store, store.tags(), refusals)

    def repositories(self, registry: str, refusals: Refusals) -> Iterator[str]:
        """Yield the repositories of a registry. As `tags`."""
        store = self.source(parse_address(f"{registry.rstrip('/')}/{PROBE}"))
        if not isinstance(store, RemoteStore):
            raise UsageError(f"{registry}: not a registry", remedy="write host[:port]")
        found = repositories(store.client.endpoint, store.client.policy)
        yield from _asked(store, found, refusals)

    def source(self, address: Address) -> Store:
        """Open a place to read from."""
        return self._stores.source(address, self._sides.to(self._sides.source, address))

    def _job(self, item: MirrorItem, destination: Destination) -> ImageJob:
        source = parse_address(item.source)
        return ImageJob(
            self.source(source),
            reference_of(source),
            destination,
            reference_of(parse_address(item.destination)),
            tuple(Platform.parse(text) for text in item.platforms),
            item.referrers,
            item.foreign_layers,
            self._stores.foreign_layer,
            immutable=item.immutable,
            recheck=item.recheck,
        )


def _asked(store: Store, names: Iterator[str], refusals: Refusals) -> Iterator[str]:
    """What a place lists, unless its host has refused the user before."""
    untried = refusals.untried(store)
    if untried is not None:
        raise untried.with_traceback(None)
    try:
        yield from names
    except ConcilError as error:
        cause = refusals.cause(error, store)
        if cause is error:
            raise
        raise cause.with_traceback(None) from error


def _is_new(destination: Address) -> bool:
    """Whether it is a layout that has to be made."""
    if not isinstance(destination, LayoutAddress):
        return False
    path = Path(destination.path)
    return not path.exists() or (path.is_dir() and not any(path.iterdir()))
