"""What a docker-archive says of its images: its manifest.json, and their configs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from concil.content import Digest
from concil.errors import InvalidDigest, InvalidManifest, InvalidReference
from concil.reference import tagged_name
from concil.strict_json import InvalidJson, read_json

DAMAGED = "the archive is damaged; save the image again"


@dataclass(frozen=True, slots=True)
class Image:
    """One entry of a manifest.json: names of members, and tags in full."""

    config: str
    layers: tuple[str, ...]
    tags: tuple[str, ...]


def parse_images(body: bytes, subject: str) -> list[Image]:
    """Read a manifest.json; ``subject`` is its name, for messages.

    Raises:
        InvalidManifest: it is no list of images.
    """
    try:
        document = read_json(body)
    except InvalidJson as error:
        raise InvalidManifest(f"{subject} is {error}", remedy=DAMAGED) from error
    if not isinstance(document, list):
        raise InvalidManifest(f"{subject} is not a list", remedy=DAMAGED)
    return [_image(entry, subject) for entry in document]


def diff_ids_of(config: bytes, subject: str) -> list[Digest]:
    """Return what an image's config says of its layers: the digests of what is not packed.

    Raises:
        InvalidManifest: it is no config of an image.
    Source: image-spec, config, "rootfs".
    """
    try:
        document = read_json(config)
    except InvalidJson as error:
        raise InvalidManifest(f"{subject} is {error}", remedy=DAMAGED) from error
    rootfs = document.get("rootfs") if isinstance(document, dict) else None
    found = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if not isinstance(rootfs, dict) or not isinstance(found or [], list):
        raise InvalidManifest(f"{subject} is no config of an image", remedy=DAMAGED)
    try:
        return [Digest.parse(text) for text in found or []]
    except InvalidDigest as error:
        raise InvalidManifest(f"{subject}: {error}", remedy=DAMAGED) from error


def _image(entry: object, subject: str) -> Image:
    known = entry if isinstance(entry, dict) else {}
    config, layers, tags = (known.get(name) for name in ("Config", "Layers", "RepoTags"))
    if not isinstance(config, str) or not _texts(layers) or not _texts(tags):
        raise InvalidManifest(f"{subject} has an entry without sense", remedy=DAMAGED)
    return Image(_plain(config), tuple(map(_plain, layers or ())), tuple(_tags(tags or [])))


def _texts(value: object) -> bool:
    return value is None or (isinstance(value, list) and all(isinstance(one, str) for one in value))


def _plain(name: str) -> str:
    return name.removeprefix("./")


def _tags(found: list[str]) -> Iterator[str]:
    """The tags that are any: images without are saved as <none>:<none> by some."""
    for tag in found:
        try:
            yield tagged_name(tag)
        except InvalidReference:
            continue
