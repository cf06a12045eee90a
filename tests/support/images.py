"""Images made from a seed, and how they get into a registry or a layout without concil."""

from __future__ import annotations

import hashlib
import io
import json
import random
import struct
import tarfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urljoin

import requests

BLOCK_SIZE = 1024 * 1024  # bytes
TIMEOUT = 60  # seconds
STORED_BLOCK_SIZE = 65535  # bytes in one stored block of deflate


@dataclass(frozen=True, slots=True)
class MediaTypes:
    """The names that one of the two families has for the same things."""

    index: str
    manifest: str
    config: str
    layer: str


OCI = MediaTypes(
    index="application/vnd.oci.image.index.v1+json",
    manifest="application/vnd.oci.image.manifest.v1+json",
    config="application/vnd.oci.image.config.v1+json",
    layer="application/vnd.oci.image.layer.v1.tar+gzip",
)
DOCKER = MediaTypes(
    index="application/vnd.docker.distribution.manifest.list.v2+json",
    manifest="application/vnd.docker.distribution.manifest.v2+json",
    config="application/vnd.docker.container.image.v1+json",
    layer="application/vnd.docker.image.rootfs.diff.tar.gzip",
)
MANIFEST_ACCEPT = f"{OCI.index}, {OCI.manifest}, {DOCKER.index}, {DOCKER.manifest}"


def digest_of(content: bytes) -> str:
    """Return `sha256:<hex>`."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def make_blob(seed: int, size: int) -> bytes:
    """Return `size` random bytes, the same for the same seed; a shorter one is a prefix."""
    generator = random.Random(seed)
    blocks = (generator.randbytes(BLOCK_SIZE) for _ in range(0, size, BLOCK_SIZE))
    return b"".join(blocks)[:size]


def write_blob(path: Path, seed: int, size: int) -> str:
    """Write `make_blob(seed, size)` to a file with little memory; return its digest."""
    generator = random.Random(seed)
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for start in range(0, size, BLOCK_SIZE):
            block = generator.randbytes(BLOCK_SIZE)[: size - start]
            digest.update(block)
            file.write(block)
    return f"sha256:{digest.hexdigest()}"


@dataclass(frozen=True, slots=True)
class Layer:
    """A gzipped tar archive."""

    blob: bytes
    diff_id: str


def make_layer(seed: int, size: int) -> Layer:
    """Return a layer that holds one file of `size` random bytes."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        member = tarfile.TarInfo(f"content-{seed}")
        member.size = size
        tar.addfile(member, io.BytesIO(make_blob(seed, size)))
    content = archive.getvalue()
    return Layer(_stored_gzip(content), digest_of(content))


def _stored_gzip(content: bytes) -> bytes:
    """Wrap without compression: zlib's output differs between its versions, this does not."""
    parts = [b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"]
    for start in range(0, len(content), STORED_BLOCK_SIZE):
        piece = content[start : start + STORED_BLOCK_SIZE]
        last = start + STORED_BLOCK_SIZE >= len(content)
        parts += [struct.pack("<BHH", last, len(piece), len(piece) ^ 0xFFFF), piece]
    parts.append(struct.pack("<II", zlib.crc32(content), len(content) & 0xFFFFFFFF))
    return b"".join(parts)


@dataclass(frozen=True, slots=True)
class Image:
    """An image or an index: its manifest and everything below it."""

    media_type: str
    manifest: bytes
    blobs: Mapping[str, bytes] = field(default_factory=dict)  # config and layers, by digest
    children: tuple[Image, ...] = ()
    platform: str | None = None  # os/architecture[/variant]

    @property
    def digest(self) -> str:
        """The digest of the manifest."""
        return digest_of(self.manifest)

    def walk(self) -> Iterator[Image]:
        """Yield everything below before what refers to it, itself last."""
        for child in self.children:
            yield from child.walk()
        yield self

    def all_blobs(self) -> dict[str, bytes]:
        """Return the blobs of all platforms, by digest."""
        return {digest: blob for image in self.walk() for digest, blob in image.blobs.items()}

    def descriptor(self) -> dict[str, object]:
        """Return what an index says about it."""
        described = _descriptor(self.media_type, self.manifest)
        if self.platform:
            names = ("os", "architecture", "variant")
            described["platform"] = dict(zip(names, self.platform.split("/"), strict=False))
        return described


def make_image(
    seed: int,
    layers: Sequence[Layer | int] = (2000, 1000),
    *,
    platform: str = "linux/amd64",
    types: MediaTypes = OCI,
    subject: Image | None = None,
    created: str | None = None,
) -> Image:
    """Build an image for one platform.

    Args:
        seed: Decides the content of the layers.
        layers: Layers to share with other images, or sizes in bytes of new ones.
        platform: `os/architecture[/variant]`.
        types: `OCI` or `DOCKER`.
        subject: What it is a referrer of.
        created: The date in its config.
    """
    made = [
        layer if isinstance(layer, Layer) else make_layer(seed * 1000 + index, layer)
        for index, layer in enumerate(layers)
    ]
    system, architecture = platform.split("/")[:2]
    config = _encode(
        {
            "architecture": architecture,
            "os": system,
            "config": {"Labels": {"seed": str(seed)}},
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in made]},
            "history": [{"created_by": "concil tests"} for _ in made],
            **({"created": created} if created is not None else {}),
        }
    )
    manifest: dict[str, object] = {
        "schemaVersion": 2,
        "mediaType": types.manifest,
        "config": _descriptor(types.config, config),
        "layers": [_descriptor(types.layer, layer.blob) for layer in made],
    }
    if subject:
        manifest["subject"] = _descriptor(subject.media_type, subject.manifest)
    blobs = {digest_of(blob): blob for blob in (config, *(layer.blob for layer in made))}
    return Image(types.manifest, _encode(manifest), blobs, platform=platform)


def make_index(
    children: Sequence[Image],
    *,
    types: MediaTypes = OCI,
    subject: Image | None = None,
    fields: Mapping[str, object] | None = None,
    entries: Mapping[str, Mapping[str, object]] | None = None,
) -> Image:
    """Build an index of images, or of indexes.

    Args:
        children: What it lists.
        types: `OCI` or `DOCKER`.
        subject: What it is a referrer of.
        fields: More fields of its own.
        entries: More fields of what it lists, by digest.
    """
    manifest: dict[str, object] = {
        "schemaVersion": 2,
        "mediaType": types.index,
        "manifests": [{**c.descriptor(), **(entries or {}).get(c.digest, {})} for c in children],
        **(fields or {}),
    }
    if subject:
        manifest["subject"] = _descriptor(subject.media_type, subject.manifest)
    return Image(types.index, _encode(manifest), children=tuple(children))


def make_three_platforms(types: MediaTypes = OCI, layers: Sequence[int] = (1_200_000, 50)) -> Image:
    """Build an index of three platforms with layers of these sizes."""
    platforms = ("linux/amd64", "linux/arm64", "linux/arm/v7")
    return make_index(
        [
            make_image(seed, layers, platform=platform, types=types)
            for seed, platform in enumerate(platforms)
        ],
        types=types,
    )


@contextmanager
def _session(given: requests.Session | None) -> Iterator[requests.Session]:
    if given is not None:
        yield given
        return
    with requests.Session() as session:
        session.trust_env = False
        yield session


def put_blob(
    url: str, repository: str, blob: bytes, session: requests.Session | None = None
) -> str:
    """Upload one blob and return its digest.

    Args:
        url: The registry's address without a path.
        repository: The name in it.
        blob: The content.
        session: Brings credentials and certificates, where the registry wants them.
    """
    digest = digest_of(blob)
    with _session(session) as used:
        opened = used.post(f"{url}/v2/{repository}/blobs/uploads/", timeout=TIMEOUT)
        opened.raise_for_status()
        location = urljoin(opened.url, opened.headers["Location"])
        joint = "&" if "?" in location else "?"
        used.put(
            f"{location}{joint}digest={digest}",
            data=blob,
            headers={"Content-Type": "application/octet-stream"},
            timeout=TIMEOUT,
        ).raise_for_status()
    return digest


def put_image(
    url: str,
    repository: str,
    tag: str,
    image: Image,
    *,
    session: requests.Session | None = None,
) -> str:
    """Upload everything below an image, then itself under a tag; return its digest."""
    with _session(session) as used:
        for blob in image.all_blobs().values():
            put_blob(url, repository, blob, used)
        for each in image.walk():
            reference = tag if each is image else each.digest
            used.put(
                f"{url}/v2/{repository}/manifests/{reference}",
                data=each.manifest,
                headers={"Content-Type": each.media_type},
                timeout=TIMEOUT,
            ).raise_for_status()
    return image.digest


def get_manifest(
    url: str, repository: str, reference: str, session: requests.Session | None = None
) -> bytes:
    """Return a manifest's bytes as the registry serves them."""
    with _session(session) as used:
        answer = used.get(
            f"{url}/v2/{repository}/manifests/{reference}",
            headers={"Accept": MANIFEST_ACCEPT},
            timeout=TIMEOUT,
        )
        answer.raise_for_status()
        return answer.content


def get_blob(
    url: str, repository: str, digest: str, session: requests.Session | None = None
) -> bytes:
    """Return a blob's bytes as the registry serves them."""
    with _session(session) as used:
        answer = used.get(f"{url}/v2/{repository}/blobs/{digest}", timeout=TIMEOUT)
        answer.raise_for_status()
        return answer.content


def assert_same_image(
    url: str, repository: str, tag: str, image: Image, session: requests.Session | None = None
) -> None:
    """Compare all that a registry holds below a tag with the image, byte for byte."""
    with _session(session) as used:
        assert get_manifest(url, repository, tag, used) == image.manifest
        for each in image.walk():
            assert get_manifest(url, repository, each.digest, used) == each.manifest
        for digest, blob in image.all_blobs().items():
            assert get_blob(url, repository, digest, used) == blob


def write_layout(directory: Path, images: Mapping[str, Image]) -> None:
    """Write an OCI image layout that holds images by tag."""
    blobs = directory / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    (directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    entries = []
    for tag, image in images.items():
        contents = [*image.all_blobs().values(), *(each.manifest for each in image.walk())]
        for content in contents:
            (blobs / digest_of(content).removeprefix("sha256:")).write_bytes(content)
        named = {"annotations": {"org.opencontainers.image.ref.name": tag}}
        entries.append(image.descriptor() | named)
    index = {"schemaVersion": 2, "mediaType": OCI.index, "manifests": entries}
    (directory / "index.json").write_bytes(_encode(index))


def _encode(document: Mapping[str, object]) -> bytes:
    return json.dumps(document, indent=2).encode()


def _descriptor(media_type: str, content: bytes) -> dict[str, object]:
    return {"mediaType": media_type, "digest": digest_of(content), "size": len(content)}
