"""Compares two images: platforms, configs, layers, and what a copy would have to move."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import field
from typing import Any

from concil.engine.images.reader import ImageManifest, ImageReader, artifact_type_of, blobs_of
from concil.oci.descriptor import Descriptor
from concil.oci.platform import Platform
from concil.runtime.dataclass import dataclass
from concil.transfer.image.graph import Node


@dataclass(frozen=True, slots=True)
class FieldDifference:
    """A field that has different values in two documents."""

    name: str  # the path, for example config.Env
    first: Any  # None: it is missing
    second: Any


@dataclass(frozen=True, slots=True)
class PlatformDifference:
    """The images of one platform in two indexes; "" for an image that is missing."""

    platform: str
    first: str  # digest
    second: str


@dataclass(frozen=True, slots=True)
class ImageDiff:
    """The differences of two images."""

    first: str
    second: str
    first_digest: str
    second_digest: str
    manifest: tuple[FieldDifference, ...] = ()  # media type, artifact type and annotations
    platforms: tuple[PlatformDifference, ...] = ()  # those that differ, if both are indexes
    config: tuple[FieldDifference, ...] = ()  # if both are single images
    common_layers: tuple[Descriptor, ...] = ()
    first_layers: tuple[Descriptor, ...] = ()  # only in the first image
    second_layers: tuple[Descriptor, ...] = ()
    bytes_to_second: int = 0  # bytes of the first image that the second lacks
    bytes_to_first: int = 0
    notes: tuple[str, ...] = field(default=())

    @property
    def is_identical(self) -> bool:
        """Whether both are the same image."""
        return self.first_digest == self.second_digest


def diff_images(
    reader: ImageReader, first: ImageManifest, second: ImageManifest, platform: Platform | None
) -> ImageDiff:
    """Compare two images, or their images of one platform.

    Args:
        platform: required to compare an index with a single image; None compares both as a whole.
    """
    notes: tuple[str, ...] = ()
    if platform is not None:
        first, second = reader.select(first, platform), reader.select(second, platform)
    elif first.manifest.is_index != second.manifest.is_index:
        kinds = ["an index" if i.manifest.is_index else "an image" for i in (first, second)]
        text = f"{first.name} is {kinds[0]} and {second.name} is {kinds[1]}"
        notes = (f"{text}: give a platform to compare one image with the other",)
    nodes = reader.read_graph(first), reader.read_graph(second)
    layers = tuple(_layers_of(node) for node in nodes)
    sizes = tuple(blobs_of(node) for node in nodes)
    return ImageDiff(
        first.name,
        second.name,
        str(first.digest),
        str(second.digest),
        tuple(_diff_fields(_manifest_fields(first), _manifest_fields(second))),
        tuple(_diff_platforms(first, second)),
        tuple(_diff_fields(_config_of(reader, first), _config_of(reader, second))),
        tuple(layer for digest, layer in layers[0].items() if digest in layers[1]),
        tuple(layer for digest, layer in layers[0].items() if digest not in layers[1]),
        tuple(layer for digest, layer in layers[1].items() if digest not in layers[0]),
        sum(size for digest, size in sizes[0].items() if digest not in sizes[1]),
        sum(size for digest, size in sizes[1].items() if digest not in sizes[0]),
        notes,
    )


def _layers_of(node: Node) -> dict[object, Descriptor]:
    """Return the layers of all platforms by digest, in order, without configs."""
    layers: dict[object, Descriptor] = {}
    for below in node.walk():
        blobs = list(below.listed_blobs())
        for blob in blobs if below.manifest.is_index else blobs[1:]:
            layers.setdefault(blob.digest, blob)
    return layers


def _manifest_fields(image: ImageManifest) -> dict[str, Any]:
    manifest = image.manifest
    fields: dict[str, Any] = {"mediaType": manifest.media_type}
    if not manifest.is_index:
        fields["artifactType"] = artifact_type_of(manifest)
    return fields | {"annotations": dict(manifest.annotations)}


def _config_of(reader: ImageReader, image: ImageManifest) -> dict[str, Any]:
    config = reader.read_config(image) or {}
    # The layers are compared by themselves, and their history repeats them.
    return {name: value for name, value in config.items() if name not in ("rootfs", "history")}


def _diff_platforms(first: ImageManifest, second: ImageManifest) -> Iterator[PlatformDifference]:
    names = [_digest_by_platform(image) for image in (first, second)]
    for platform in {**names[0], **names[1]}:
        digests = [digest_by_platform.get(platform, "") for digest_by_platform in names]
        if digests[0] != digests[1]:
            yield PlatformDifference(platform, *digests)


def _digest_by_platform(image: ImageManifest) -> dict[str, str]:
    return {str(c.platform): str(c.digest) for c in image.manifest.children() if c.platform}


def _diff_fields(
    first: Mapping[str, Any], second: Mapping[str, Any], path: str = ""
) -> Iterator[FieldDifference]:
    """Yield the fields with different values, with objects compared field by field."""
    for name in {**first, **second}:
        values = first.get(name), second.get(name)
        if values[0] == values[1]:
            continue
        if all(isinstance(value, Mapping) or value is None for value in values):
            yield from _diff_fields(values[0] or {}, values[1] or {}, f"{path}{name}.")
        else:
            yield FieldDifference(f"{path}{name}", *values)
