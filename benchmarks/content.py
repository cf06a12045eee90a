"""Random blobs and images of a wanted size, put into a registry without concil."""

from __future__ import annotations

import hashlib
import http.client
import json
import random
import shutil
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import MIB
from benchmarks.servers.registry import MemoryRegistry

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
# Not compressed, and said so: no client is tempted to look inside.
LAYER = "application/vnd.oci.image.layer.v1.tar"
OCTETS = "application/octet-stream"
TAG = "tag"


@dataclass(frozen=True, slots=True)
class Blob:
    """A file and what its bytes hash to."""

    path: Path
    digest: str
    size: int  # bytes

    def descriptor(self, media_type: str) -> dict[str, object]:
        return {"mediaType": media_type, "digest": self.digest, "size": self.size}


@dataclass(frozen=True, slots=True)
class Image:
    """An image in a layout directory, there named `TAG`."""

    layout: Path
    config: Blob
    layers: tuple[Blob, ...]
    manifest: Blob


def make_blob(directory: Path, seed: int, size: int) -> Blob:
    """Write ``size`` random bytes, the same for the same seed, to a file named by its hash."""
    generator, hasher = random.Random(seed), hashlib.sha256()
    growing = directory / "growing"
    with growing.open("wb") as file:
        for start in range(0, size, MIB):
            block = generator.randbytes(min(MIB, size - start))
            hasher.update(block)
            file.write(block)
    path = growing.rename(directory / hasher.hexdigest())
    return Blob(path, f"sha256:{hasher.hexdigest()}", size)


def make_image(layout: Path, layers: Sequence[tuple[int, int]]) -> Image:
    """Write an image layout whose one image has layers of these seeds and sizes in bytes."""
    shutil.rmtree(layout, ignore_errors=True)
    blobs = layout / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    written = tuple(make_blob(blobs, seed, size) for seed, size in layers)
    root = {"type": "layers", "diff_ids": [layer.digest for layer in written]}
    platform = {"architecture": "amd64", "os": "linux"}
    config = _document(blobs, platform | {"config": {}, "rootfs": root})
    manifest = _document(
        blobs,
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": config.descriptor(CONFIG),
            "layers": [layer.descriptor(LAYER) for layer in written],
        },
    )
    name = {"annotations": {"org.opencontainers.image.ref.name": TAG}}
    index = {"schemaVersion": 2, "manifests": [manifest.descriptor(MANIFEST) | name]}
    (layout / "index.json").write_text(json.dumps(index))
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return Image(layout, config, written, manifest)


def put_blob(registry: MemoryRegistry, repository: str, blob: Blob) -> None:
    """Upload a blob in one request."""
    where = _ask(registry, "POST", f"/v2/{repository}/blobs/uploads/", 202)
    target = urllib.parse.urlsplit(where)
    _ask(registry, "PUT", f"{target.path}?{target.query}&digest={blob.digest}", 201, (blob, OCTETS))


def put_image(registry: MemoryRegistry, repository: str, image: Image, tag: str = TAG) -> None:
    """Upload an image under a tag."""
    for blob in (image.config, *image.layers):
        put_blob(registry, repository, blob)
    path = f"/v2/{repository}/manifests/{tag}"
    _ask(registry, "PUT", path, 201, (image.manifest, MANIFEST))


def hash_of(path: Path) -> str:
    """The digest of a file's bytes."""
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def _document(blobs: Path, document: Mapping[str, object]) -> Blob:
    content = json.dumps(document).encode()
    hexadecimal = hashlib.sha256(content).hexdigest()
    (blobs / hexadecimal).write_bytes(content)
    return Blob(blobs / hexadecimal, f"sha256:{hexadecimal}", len(content))


def _ask(
    registry: MemoryRegistry,
    method: str,
    path: str,
    expected: int,
    body: tuple[Blob, str] | None = None,
) -> str:
    """Make one request, with a blob of a media type as its body; return the answer's Location."""
    connection = http.client.HTTPConnection(registry.host, timeout=120, blocksize=MIB)
    try:
        if body is None:
            connection.request(method, path, headers={"Content-Length": "0"})
        else:
            blob, media_type = body
            headers = {"Content-Length": str(blob.size), "Content-Type": media_type}
            with blob.path.open("rb") as file:
                connection.request(method, path, body=file, headers=headers)
        answer = connection.getresponse()
        said = answer.read()
        assert answer.status == expected, f"{method} {path}: {answer.status} {said[:300]!r}"
        return answer.getheader("Location", "")
    finally:
        connection.close()
