"""Checks images by their addresses: opens their stores, and lists the images of layouts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from concil.engine.components import EngineComponents
from concil.engine.store_factory import list_images
from concil.errors import NotFound, UsageError
from concil.oci.address import DOCKER_ARCHIVE, LayoutAddress, parse_address
from concil.runtime import arguments
from concil.runtime.dataclass import dataclass
from concil.store.archive.pool import ArchiveWrites
from concil.transfer.check.check_run import CheckOptions, CheckRun
from concil.transfer.image.job import ImageJob
from concil.transfer.mirror.mirror import Mirror, MirrorOptions
from concil.transfer.mirror.report import MirrorItem, MirrorReport


@dataclass(frozen=True, slots=True)
class Check:
    """One check of an engine. One thread calls `run`."""

    components: EngineComponents
    options: CheckOptions
    archives: ArchiveWrites

    def run(
        self, items: Iterable[MirrorItem | str], mirror_options: MirrorOptions, coordinators: int
    ) -> MirrorReport:
        """Check every image; one that cannot be checked is a failed outcome of the report."""
        components = self.components
        check_run = CheckRun(components.pool, components.progress, self.options)
        cancel = components.transfer_context.cancel
        mirror = Mirror(check_run, self._create_job, cancel, mirror_options)
        report = mirror.run(self._expand(items), coordinators)
        if check_run.verified is not None:
            report.bytes_verified = check_run.verified.bytes_read
            report.bytes_verified_before = check_run.verified.bytes_skipped
            if not report.failed:  # else a further check continues this one
                check_run.verified.finish()
        return report

    def _create_job(self, item: MirrorItem) -> ImageJob:
        resolver = self.components.image_resolver
        if is_alone(item):
            return resolver.resolve_alone(item)
        if self.options.repair:
            return self.components.create_job(item, self.archives)
        return resolver.resolve_dry_run(item)

    def _expand(self, items: Iterable[MirrorItem | str]) -> Iterator[MirrorItem]:
        """Yield the images; an address of a layout or archive means all images in it.

        Raises:
            TypeError: an item is of another type.
            UsageError: an image cannot be checked, or repaired, in this way.
        """
        if isinstance(items, str):
            raise arguments.type_error("items", "an iterable of MirrorItem or addresses", items)
        for each in items:
            item = MirrorItem(each, each) if isinstance(each, str) else each
            arguments.check_instance("items", item, MirrorItem, "MirrorItem objects or addresses")
            if is_alone(item):
                yield from self._expand_alone(item)
                continue
            for single in item.split():
                check_destination(single, repair=self.options.repair)
                yield single

    def _expand_alone(self, item: MirrorItem) -> Iterator[MirrorItem]:
        """Yield the images of an address that has no source."""
        address = parse_address(item.destination)
        if self.options.repair:
            raise UsageError(
                f"{address} cannot be repaired without its source",
                remedy="check a plan or list, with the destination of its images",
            )
        if not isinstance(address, LayoutAddress) or address.name or address.digest:
            yield item
            return
        is_any_listed = False
        for name, digest in list_images(self.components.image_resolver.open_source(address)):
            is_any_listed = True
            found = str(LayoutAddress(address.path, name or None, digest, address.scheme))
            yield replace(item, source=found, destination=found)
        if not is_any_listed:
            raise NotFound(f"{address} has no images", remedy="check the path")


def is_alone(item: MirrorItem) -> bool:
    """Return whether an image is checked without a source."""
    return item.source == item.destination


def check_destination(item: MirrorItem, *, repair: bool) -> None:
    """Check that the images at a destination can be compared with their sources, and repaired.

    Raises:
        UsageError: they cannot.
    """
    address = parse_address(item.destination)
    if not isinstance(address, LayoutAddress) or not address.is_archive or is_alone(item):
        return
    if address.scheme == DOCKER_ARCHIVE:
        raise UsageError(
            f"{address.store_address} cannot be compared with the sources of its images: a "
            "docker-archive does not keep their manifests",
            remedy="mirror to oci-archive:FILE, which does",
        )
    if repair:
        raise UsageError(
            f"{address.store_address} cannot be repaired: an archive is written as a whole",
            remedy="remove the file, and mirror again",
        )
