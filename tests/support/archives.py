"""Archives of images as others write them, made without concil."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tests.support.images import Image, Layer, digest_of, make_image, write_layout

Member = tuple[tarfile.TarInfo, bytes]


def member(name: str, content: bytes = b"", *, kind: bytes = tarfile.REGTYPE) -> Member:
    """Return a member of an archive."""
    header = tarfile.TarInfo(name)
    header.size, header.type = len(content), kind
    return header, content


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> Member:
    """Return a link."""
    header, _ = member(name, kind=kind)
    header.linkname = target
    return header, b""


def write_tar(path: Path, members: Iterable[Member], **options: Any) -> Path:  # noqa: ANN401 - tarfile's own
    """Write an archive of these members, in this order."""
    with tarfile.open(path, "w", **options) as tar:
        for header, content in members:
            tar.addfile(header, io.BytesIO(content))
    return path


def layout_members(directory: Path, images: Mapping[str, Image]) -> dict[str, bytes]:
    """Return the files of a layout by name."""
    write_layout(directory, images)
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in files}


def image_of(seed: int, layers: int = 2) -> tuple[Image, dict[str, bytes], list[bytes]]:
    """Build an image; return it, its config by digest, and its layers as plain tars."""
    plain = [plain_layer(seed * 10 + n) for n in range(layers)]
    made = [Layer(content, digest_of(content)) for content in plain]
    image = make_image(seed, made)
    config = json.loads(image.manifest)["config"]["digest"]
    return image, {config: image.blobs[config]}, plain


def plain_layer(seed: int) -> bytes:
    """Return a tar archive of one file."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        header, content = member(f"file-{seed}", bytes([seed % 256]) * 3000)
        tar.addfile(header, io.BytesIO(content))
    return archive.getvalue()


def legacy_members(tag: str, config: bytes, layers: list[bytes]) -> list[Member]:
    """An image as docker saved it up to 24: a directory a layer, layers that repeat as links."""
    members: list[Member] = []
    names: list[str] = []
    for number, layer in enumerate(layers):
        directory = f"{number:064x}"
        names.append(f"{directory}/layer.tar")
        members += [
            member(f"{directory}/", kind=tarfile.DIRTYPE),
            member(f"{directory}/VERSION", b"1.0"),
            member(f"{directory}/json", b"{}"),
        ]
        first = layers.index(layer)
        if first < number:
            members.append(link(names[-1], f"../{first:064x}/layer.tar"))
        else:
            members.append(member(names[-1], layer))
    name = f"{digest_of(config).removeprefix('sha256:')}.json"
    members.append(member(name, config))
    members.append(manifest_member({"Config": name, "RepoTags": [tag], "Layers": names}))
    repository, _, version = tag.rpartition(":")
    members.append(member("repositories", json.dumps({repository: {version: "0" * 64}}).encode()))
    return members


def manifest_member(*entries: dict[str, Any]) -> Member:
    """Return a manifest.json."""
    return member("manifest.json", json.dumps(entries).encode())
