"""CopyMethods: the methods of Engine that copy one image, to one or several destinations."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from concil.engine.components import EngineComponents
from concil.errors import Cancelled, ConcilError, DigestMismatch, UsageError
from concil.oci.address import DOCKER_ARCHIVE, LayoutAddress, parse_address
from concil.oci.reference import Reference
from concil.plan.target_names import address_key
from concil.runtime import arguments
from concil.runtime.cancellation import SupportsIsSet, call_scope
from concil.transfer.image.job import ForeignLayers
from concil.transfer.image.result import ImageResult
from concil.transfer.mirror.mirror import copy_image
from concil.transfer.mirror.report import MirrorItem, Outcome


class CopyMethods:
    """Copies single images; a base class of `Engine`."""

    _components: EngineComponents

    def copy(  # noqa: PLR0913 - each an option of its own
        self,
        source: str,
        destination: str,
        *,
        platforms: Sequence[str] = (),
        referrers: bool = False,
        foreign_layers: ForeignLayers | str = ForeignLayers.SKIP,
        recheck: bool = False,
        overwrite: bool = True,
        cancel: SupportsIsSet | None = None,
    ) -> ImageResult:
        """Copy one image with all or some of its platforms; digests are preserved.

        Args:
            source, destination: store addresses.
            platforms: ``os/architecture[/variant]`` each; empty: all.
            referrers: copy its signatures, attestations and SBOMs, and their own referrers.
            foreign_layers: "skip", "source" or "urls": whether to copy layers that must not
                be distributed, and from where.
            recheck: check the content of an image that is up to date, and copy what is missing.
            overwrite: False: leave a destination that exists as it is, whatever it is.
            cancel: when set, cancels this call only.
        Raises:
            NotFound: the source has no such image or platform.
            Cancelled: the call was cancelled; copy again to resume.
        """
        foreign_choice = ForeignLayers.parse("foreign_layers", foreign_layers)
        platform_names = arguments.to_str_tuple("platforms", platforms)
        item = MirrorItem(
            source,
            destination,
            platform_names,
            referrers,
            foreign_choice,
            recheck=recheck,
            overwrite=overwrite,
        )
        # Not by `_copy`: few functions shall stand between a command and a blob.
        self._components.store_factory.forget_tags()
        with self._components.archive_call(cancel) as archives:
            result = self._components.copier.copy(self._components.create_job(item, archives))
            archives.commit(strict=True)
            return result

    def copy_to(  # noqa: PLR0913 - each an option of its own
        self,
        source: str,
        destinations: Iterable[str],
        *,
        platforms: Sequence[str] = (),
        referrers: bool = False,
        foreign_layers: ForeignLayers | str = ForeignLayers.SKIP,
        recheck: bool = False,
        overwrite: bool = True,
        cancel: SupportsIsSet | None = None,
    ) -> tuple[Outcome, ...]:
        """Copy one image to several destinations, reading the source once.

        The first copy is made from the source, and each further one from that copy; from the
        source if it is in the same registry, which then mounts the blobs, or if the copy cannot
        be read.

        Args: as `copy`.
        Returns:
            An outcome for each destination, in their order: a result, or an error.
        Raises:
            UsageError: there is no destination, or two are the same; nothing was copied.
            Cancelled: the call was cancelled; copy again to resume.
        """
        foreign_choice = ForeignLayers.parse("foreign_layers", foreign_layers)
        platform_names = arguments.to_str_tuple("platforms", platforms)
        items = [
            MirrorItem(
                source,
                destination,
                platform_names,
                referrers,
                foreign_choice,
                recheck=recheck,
                overwrite=overwrite,
            )
            for destination in arguments.to_str_tuple("destinations", destinations)
        ]
        _check_destinations(items)
        # A docker-archive cannot be read with the digests of the image.
        order = sorted(range(len(items)), key=lambda n: _is_docker_archive(items[n]))
        outcomes: dict[int, Outcome] = {}
        first: ImageResult | None = None
        for number in order:
            item = items[number]
            try:
                result = self._copy_again(item, items[order[0]], first, cancel)
            except Cancelled:
                raise
            except ConcilError as error:
                outcomes[number] = Outcome(item, None, error)
                continue
            outcomes[number] = Outcome(item, result)
            if number == order[0] and not _is_docker_archive(item):
                first = result
        return tuple(outcomes[number] for number in range(len(items)))

    def copy_item(self, item: MirrorItem, *, cancel: SupportsIsSet | None = None) -> ImageResult:
        """Copy one item of a mirror whose list the caller manages. Raises as `copy`."""
        with call_scope(cancel):
            return copy_image(self._components.copier, self._components.create_job(item))

    def _copy_again(
        self,
        item: MirrorItem,
        first_item: MirrorItem,
        first: ImageResult | None,
        cancel: SupportsIsSet | None,
    ) -> ImageResult:
        """Copy an item from the first copy of its image, if there is one that can be read."""
        is_mountable = _registry_of(item.source) == _registry_of(item.destination) != ""
        if first is None or is_mountable or not item.overwrite:
            return self._copy(item, cancel)
        from_copy = MirrorItem(
            first_item.destination,
            item.destination,
            (),
            item.referrers,
            # The copy has those layers that its own copy has.
            ForeignLayers.SKIP if item.foreign_layers == "skip" else ForeignLayers.SOURCE,
            recheck=item.recheck,
        )
        try:
            result = self._copy(from_copy, cancel, reads_destination=True)
        except Cancelled:
            raise
        except ConcilError:
            return self._copy(item, cancel)
        if result.digest != first.digest:
            raise DigestMismatch(
                f"{result.destination}: {result.source} was changed by another client meanwhile",
                remedy="copy it again",
            )
        return result

    def _copy(
        self, item: MirrorItem, cancel: SupportsIsSet | None, *, reads_destination: bool = False
    ) -> ImageResult:
        self._components.store_factory.forget_tags()
        with self._components.archive_call(cancel) as archives:
            job = self._components.create_job(item, archives, reads_destination=reads_destination)
            result = self._components.copier.copy(job)
            archives.commit(strict=True)
            return result


def _check_destinations(items: Sequence[MirrorItem]) -> None:
    """Raise UsageError unless there are destinations, and all are different."""
    if not items:
        raise UsageError("there is no destination", remedy="give one or more")
    seen: set[tuple[str, ...]] = set()
    for item in items:
        address = parse_address(item.destination)
        key = address_key(address)
        if key in seen:
            raise UsageError(f"{address} is given twice", remedy="omit one of them")
        seen.add(key)


def _is_docker_archive(item: MirrorItem) -> bool:
    address = parse_address(item.destination)
    return isinstance(address, LayoutAddress) and address.scheme == DOCKER_ARCHIVE


def _registry_of(text: str) -> str:
    """Return the host of a registry; "" for a local store."""
    address = parse_address(text)
    return address.api_host if isinstance(address, Reference) else ""
