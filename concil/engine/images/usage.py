"""Disk usage of images: bytes in all, unique to an image, and shared with others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import field, replace

from concil.engine.images.reader import ImageReader, blobs_of
from concil.errors import ConcilError
from concil.oci.address import parse_address
from concil.oci.descriptor import Descriptor
from concil.oci.manifest import Digest
from concil.oci.platform import Platform
from concil.runtime.dataclass import dataclass
from concil.transfer.image.graph import select_platforms
from concil.transfer.mirror.report import MirrorItem


@dataclass(frozen=True, slots=True)
class ImageUsage:
    """The size of one image, in bytes of different blobs and manifests."""

    name: str
    total: int = 0
    unique: int = 0  # no other of the images has them
    error: ConcilError | None = None  # why it could not be read

    @property
    def shared(self) -> int:
        """Bytes that at least one other of the images has, too."""
        return self.total - self.unique


@dataclass(frozen=True, slots=True)
class DiskUsage:
    """The sizes of several images."""

    images: tuple[ImageUsage, ...] = ()
    distinct: int = 0  # bytes of all different blobs and manifests
    shared: int = 0  # bytes of those that more than one image has
    errors: tuple[ConcilError, ...] = field(default=())

    @property
    def total(self) -> int:
        """Bytes of the images if they shared nothing."""
        return sum(image.total for image in self.images)


def measure_usage(reader: ImageReader, items: Iterable[MirrorItem]) -> DiskUsage:
    """Return the disk usage of the sources of items; one that cannot be read has an error."""
    sizes: dict[Digest, int] = {}
    counts: Counter[Digest] = Counter()
    images: list[tuple[str, dict[Digest, int], ConcilError | None]] = []
    for item in dict.fromkeys(items):
        name = str(parse_address(item.source))
        try:
            blobs = _measure(reader, item)
        except ConcilError as error:
            images.append((name, {}, error))
            continue
        sizes |= blobs
        counts.update(blobs.keys())
        images.append((name, blobs, None))
    return DiskUsage(
        tuple(
            ImageUsage(
                name,
                sum(blobs.values()),
                sum(size for digest, size in blobs.items() if counts[digest] == 1),
                error,
            )
            for name, blobs, error in images
        ),
        sum(sizes.values()),
        sum(size for digest, size in sizes.items() if counts[digest] > 1),
        tuple(error for _, _, error in images if error is not None),
    )


def _measure(reader: ImageReader, item: MirrorItem) -> dict[Digest, int]:
    """Return the sizes of the blobs and manifests that a copy of an item would need."""
    image = reader.read(item.source)
    platforms = [Platform.parse(text) for text in item.platforms]
    if len(platforms) == 1:
        image = reader.select(image, platforms[0])
    elif platforms:
        selected = select_platforms(image.manifest, platforms, image.name)
        if isinstance(selected, Descriptor):  # several names of one platform
            image = reader.select(image, platforms[0])
        else:
            image = replace(image, manifest=selected, digest=selected.digest)
    return blobs_of(reader.read_graph(image))
