"""What a test of any store needs: content, and the two ways to fill a writer."""

from __future__ import annotations

import itertools
import json
import threading
from dataclasses import dataclass
from typing import Protocol

import pytest

from concil.config import RetryPolicy, TransferConfig
from concil.engine.store_factory import StoreFactory
from concil.fs.partial_file import PartialFile
from concil.oci.descriptor import Descriptor
from concil.oci.manifest import Digest, Manifest
from concil.oci.media_types import OCI_CONFIG, OCI_INDEX, OCI_MANIFEST
from concil.oci.reference import Reference
from concil.server import EmbeddedRegistry
from concil.store.archive.oci import OCIArchive
from concil.store.layout.store import LayoutDirectory, LayoutStore
from concil.store.protocols import Destination, Source, SupportsTags
from tests.support.images import make_blob
from tests.support.memory_store import MemoryHost

LAYER = "application/vnd.oci.image.layer.v1.tar"
CHUNK = 64 * 1024  # bytes of a chunk where a store can be told
BLOCK = 10_000  # bytes of one write; no divisor of a chunk


class Store(Source, Destination, SupportsTags, Protocol):
    """A store that can do everything the contract is about."""

    def delete_manifest(self, reference: str) -> None:
        """Remove an image by tag or digest."""


_numbers = itertools.count(1)


def memory_store(request: pytest.FixtureRequest) -> Store:
    """Return an empty repository in memory."""
    return MemoryHost(chunk_size=CHUNK).repository("contract")


def layout_store(request: pytest.FixtureRequest) -> Store:
    """Return an empty layout."""
    path = request.getfixturevalue("tmp_path") / "layout"
    return LayoutStore(LayoutDirectory(path, create=True))


def oci_archive_store(request: pytest.FixtureRequest) -> Store:
    """Return an empty archive that is being written."""
    archive = OCIArchive(request.getfixturevalue("tmp_path") / "archive.tar", writable=True)
    request.addfinalizer(archive.close)
    return LayoutStore(archive)


def embedded_registry_store(request: pytest.FixtureRequest) -> Store:
    """Return an empty repository of the embedded registry."""
    registry = EmbeddedRegistry(request.getfixturevalue("tmp_path") / "served")
    registry.start()
    request.addfinalizer(registry.close)
    return _repository(request, registry.host)


def docker_registry_store(request: pytest.FixtureRequest) -> Store:
    """Return an empty repository of the real registry."""
    return _repository(request, request.getfixturevalue("docker_registry").host)


# The contract holds for each of them; a new kind of store is one more line.
FACTORIES = [
    pytest.param(memory_store, id="memory"),
    pytest.param(layout_store, id="layout"),
    pytest.param(oci_archive_store, id="oci-archive"),
    pytest.param(embedded_registry_store, id="embedded-registry"),
    pytest.param(docker_registry_store, id="docker-registry", marks=pytest.mark.real),
]


def _repository(request: pytest.FixtureRequest, host: str) -> Store:
    config = TransferConfig(chunk_size=CHUNK, retry=RetryPolicy(backoff_base=0.001))
    stores = StoreFactory(config, timeouts=None, cancel=threading.Event())
    request.addfinalizer(stores.close)
    return stores.open_repository(Reference.parse(f"http://{host}/contract/{next(_numbers)}"))


class Window:
    """A stretch of bytes as a Body."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._position = 0

    def __len__(self) -> int:
        return len(self._content)

    def read(self, size: int = -1, /) -> bytes:
        stop = len(self._content) if size < 0 else self._position + size
        piece = self._content[self._position : stop]
        self._position += len(piece)
        return piece


@dataclass(frozen=True)
class Blob:
    """Content and what refers to it."""

    content: bytes
    descriptor: Descriptor

    @classmethod
    def of(cls, content: bytes, algorithm: str = "sha256", media_type: str = LAYER) -> Blob:
        """Describe ``content``."""
        digest = Digest.from_bytes(content, algorithm)
        return cls(content, Descriptor(media_type, digest, len(content)))

    @classmethod
    def random(cls, size: int, seed: int = 1, algorithm: str = "sha256") -> Blob:
        """Make content of ``size`` bytes."""
        return cls.of(make_blob(seed, size), algorithm)


def write(store: Destination, content: bytes, digest: Digest) -> None:
    """Write a blob the way the store wants it; whatever happens, leave nothing open."""
    writer = store.begin_blob(len(content), digest)
    try:
        if isinstance(writer, PartialFile):
            while taken := writer.reserve_range(BLOCK):
                writer.write_at(taken[0], memoryview(content)[slice(*taken)])
            writer.commit()
        else:
            while writer.offset < len(content):
                stop = writer.offset + writer.chunk_size
                writer.append(Window(content[writer.offset : stop]))
            writer.commit(digest)
    except BaseException:
        writer.abort()
        raise
    writer.close()


def read(store: Source, blob: Descriptor, start: int = 0, stop: int | None = None) -> bytes:
    """Return the bytes asked for, also from a store that begins earlier."""
    reader = store.open_blob(blob, start, stop)
    content, buffer = bytearray(), memoryview(bytearray(BLOCK))
    try:
        begin = reader.start
        while count := reader.readinto(buffer):
            content += buffer[:count]
    finally:
        reader.close()
    return bytes(content[start - begin :][: None if stop is None else stop - start])


def put_image(store: Destination, seed: int, reference: str) -> Manifest:
    """Write an image with a config and a layer; "@" puts it by digest."""
    # A config of its own: distribution 2.8 refuses a manifest while another client writes one
    # of its blobs. The engine tries such a manifest again; a store does not.
    text = f'{{"architecture":"amd64","os":"linux","seed":{seed}}}'
    config = Blob.of(text.encode(), media_type=OCI_CONFIG)
    layer = Blob.random(2000, seed)
    for blob in (config, layer):
        write(store, blob.content, blob.descriptor.digest)
    return _put(store, manifest_of(config, layer).body, reference)


def manifest_of(config: Blob, layer: Blob) -> Manifest:
    """Return the manifest of an image."""
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": config.descriptor.to_json(),
        "layers": [layer.descriptor.to_json()],
    }
    # Odd white space: bytes must come back as they went.
    return Manifest.parse(json.dumps(document, indent=3).encode() + b"\n")


def put_referrer(store: Destination, subject: Manifest, seed: int, reference: str) -> Manifest:
    """Write an artifact that refers to a manifest; "@" puts it by digest."""
    empty = Blob.of(b"{}", media_type="application/vnd.oci.empty.v1+json")
    write(store, empty.content, empty.descriptor.digest)
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": f"application/x-{seed}",
        "config": empty.descriptor.to_json(),
        "layers": [empty.descriptor.to_json()],
        "subject": subject.descriptor.to_json(),
        "annotations": {"seed": str(seed)},
    }
    return _put(store, json.dumps(document).encode(), reference)


def put_index(store: Destination, children: list[Manifest], reference: str) -> Manifest:
    """Write an index of manifests that are there."""
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [child.descriptor.to_json() for child in children],
    }
    return _put(store, json.dumps(document, indent=1).encode(), reference)


def _put(store: Destination, body: bytes, reference: str) -> Manifest:
    manifest = Manifest.parse(body)
    store.put_manifest(manifest, str(manifest.digest) if reference == "@" else reference)
    return manifest
