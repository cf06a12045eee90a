"""Reads manifests and configs of images without copying them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from concil.engine.image_resolver import ImageResolver
from concil.engine.store_factory import SourceStore, reference_in_store
from concil.errors import InvalidManifest
from concil.oci.address import Address, parse_address
from concil.oci.descriptor import Descriptor
from concil.oci.manifest import Digest, Manifest
from concil.oci.platform import Platform
from concil.runtime import arguments
from concil.runtime.dataclass import dataclass
from concil.transfer.blob.image_config import (
    CONFIG_TYPES,
    is_other_platform,
    platform_of,
    read_config,
)
from concil.transfer.image.graph import (
    MAX_MANIFESTS,
    GraphReader,
    Node,
    check_descriptor,
    missing_platform_error,
    select_platforms,
)
from concil.transfer.worker_pool import WorkerPool

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class ImageManifest:
    """The manifest at an address, or that of one platform of it."""

    address: Address
    store: SourceStore
    digest: Digest
    manifest: Manifest

    @property
    def name(self) -> str:
        """The address, as users write it."""
        return str(self.address)


@dataclass(frozen=True, slots=True)
class ImageReader:
    """Reads images with the workers of an engine. Any thread but a worker."""

    resolver: ImageResolver
    pool: WorkerPool

    def open(self, address: str) -> tuple[Address, SourceStore]:
        """Open the store of an address."""
        parsed = parse_address(arguments.check_str("address", address))
        return parsed, self.resolver.open_source(parsed)

    def read(self, address: str, platform: Platform | None = None) -> ImageManifest:
        """Read the manifest at an address; for a platform, that of the platform's image.

        Raises:
            NotFound: there is no such image, or none for the platform.
        """
        parsed, store = self.open(address)
        manifest = store.get_manifest(reference_in_store(parsed))
        image = ImageManifest(parsed, store, parsed.digest or manifest.digest, manifest)
        return image if platform is None else self.select(image, platform)

    def select(self, image: ImageManifest, platform: Platform) -> ImageManifest:
        """Return the image of one platform.

        Raises:
            NotFound: the index has no such image, or the config is for another platform.
        """
        selected = select_platforms(image.manifest, [platform], image.name)
        if isinstance(selected, Descriptor):
            child = image.store.get_manifest(str(selected.digest))
            check_descriptor(selected, child, image.name)
            return ImageManifest(image.address, image.store, selected.digest, child)
        if not image.manifest.is_index:
            existing = platform_of(self.read_config(image))
            if is_other_platform(existing, [platform]):
                raise missing_platform_error(image.name, [platform], [str(existing)])
        return image

    def read_config(self, image: ImageManifest) -> dict[str, Any] | None:
        """Read the config of an image; None: it is an index, or an artifact."""
        return read_config(image.store, image.manifest, self.pool.context, image.name)

    def read_graph(self, image: ImageManifest) -> Node:
        """Read the manifests below that of an image.

        Raises:
            InvalidManifest: there are too many, or they are nested too deeply.
            NotFound: the store has only some of the platforms.
        """

        def fetch(level: Iterable[Descriptor]) -> list[Manifest]:
            return self.run_all(
                [lambda child=child: self.read_child(image, child) for child in level],  # type: ignore[misc]
                image.store,
            )

        return GraphReader(fetch, image.name).read(image.manifest, image.digest)

    def read_child(self, image: ImageManifest, child: Descriptor) -> Manifest:
        """Read a manifest that another one of the same store lists."""
        manifest = image.store.get_manifest(str(child.digest))
        check_descriptor(child, manifest, image.name)
        return manifest

    def run_all(self, calls: Iterable[Callable[[], Result]], store: SourceStore) -> list[Result]:
        """Make calls for one store concurrently."""
        return self.pool.run_all(calls, (store.host,))


def check_count(count: int, name: str) -> None:
    """Raise InvalidManifest if there are more manifests than any regular image has."""
    if count > MAX_MANIFESTS:
        raise InvalidManifest(f"{name}: there are more than {MAX_MANIFESTS} manifests")


def artifact_type_of(manifest: Manifest) -> str:
    """Return the artifact type of a manifest; "" for an image."""
    artifact_type = manifest.artifact_type
    return "" if artifact_type in CONFIG_TYPES else artifact_type


def blobs_of(node: Node) -> dict[Digest, int]:
    """Return the sizes of all blobs and manifests of an image by digest, in bytes."""
    sizes: dict[Digest, int] = {}
    for below in node.walk():
        sizes[below.digest] = len(below.manifest.body)
        for blob in below.listed_blobs():
            sizes[blob.digest] = blob.size
    return sizes
