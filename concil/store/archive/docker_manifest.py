"""Parses the manifest.json and configs of docker-archives."""

from __future__ import annotations

from collections.abc import Iterator

from concil.errors import InvalidDigest, InvalidManifest, InvalidReference
from concil.oci.address import normalize_tag
from concil.oci.manifest import Digest
from concil.oci.strict_json import InvalidJSON, parse_json
from concil.runtime.dataclass import dataclass

DAMAGED = "the archive is damaged; save the image again"


@dataclass(frozen=True, slots=True)
class Image:
    """One entry of a manifest.json: names of members, and full tags."""

    config: str
    layers: tuple[str, ...]
    tags: tuple[str, ...]


def parse_images(body: bytes, subject: str) -> list[Image]:
    """Parse a manifest.json; ``subject`` is its name, for messages.

    Raises:
        InvalidManifest: it is not a list of images.
    """
    try:
        document = parse_json(body)
    except InvalidJSON as error:
        raise InvalidManifest(f"{subject} is {error}", remedy=DAMAGED) from error
    if not isinstance(document, list):
        raise InvalidManifest(f"{subject} is not a list", remedy=DAMAGED)
    return [_parse_image(entry, subject) for entry in document]


def parse_diff_ids(config: bytes, subject: str) -> list[Digest]:
    """Return the diff IDs of an image's config: the digests of its uncompressed layers.

    Raises:
        InvalidManifest: it is not the config of an image.
    Source: image-spec, config, "rootfs".
    """
    try:
        document = parse_json(config)
    except InvalidJSON as error:
        raise InvalidManifest(f"{subject} is {error}", remedy=DAMAGED) from error
    rootfs = document.get("rootfs") if isinstance(document, dict) else None
    diff_ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if not isinstance(rootfs, dict) or not isinstance(diff_ids or [], list):
        raise InvalidManifest(f"{subject} is not an image config", remedy=DAMAGED)
    try:
        return [Digest.parse(text) for text in diff_ids or []]
    except InvalidDigest as error:
        raise InvalidManifest(f"{subject}: {error}", remedy=DAMAGED) from error


def _parse_image(entry: object, subject: str) -> Image:
    fields = entry if isinstance(entry, dict) else {}
    config, layers, tags = (fields.get(name) for name in ("Config", "Layers", "RepoTags"))
    if not isinstance(config, str) or not _is_string_list(layers) or not _is_string_list(tags):
        raise InvalidManifest(f"{subject} has an invalid entry", remedy=DAMAGED)
    return Image(
        _strip_dot_slash(config),
        tuple(map(_strip_dot_slash, layers or ())),
        tuple(_valid_tags(tags or [])),
    )


def _is_string_list(value: object) -> bool:
    return value is None or (
        isinstance(value, list) and all(isinstance(item, str) for item in value)
    )


def _strip_dot_slash(name: str) -> str:
    return name.removeprefix("./")


def _valid_tags(tags: list[str]) -> Iterator[str]:
    """Yield the valid tags: some tools save untagged images as <none>:<none>."""
    for tag in tags:
        try:
            yield normalize_tag(tag)
        except InvalidReference:
            continue
