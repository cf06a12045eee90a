"""Images in memory, and what copies and mirrors of them need."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

from concil.config import TransferConfig
from concil.oci.manifest import Digest, Manifest
from concil.oci.media_types import OCI_INDEX
from concil.oci.platform import Platform
from concil.store.protocols import Destination, Source
from concil.transfer.image.copier import ImageCopier, ImageJob
from concil.transfer.mirror.mirror import Mirror
from concil.transfer.mirror.report import MirrorItem
from concil.transfer.worker_pool import WorkerPool
from tests.support.images import Image, make_image, make_index
from tests.support.memory_store import MemoryHost, MemoryStore
from tests.transfer.transfer_setup import CONFIG, Sink, WatchedStore, create_pool

CHUNK = 1_000  # bytes


class OrderedStore(MemoryStore):
    """A repository that remembers in which order manifests came."""

    def __init__(self, host: MemoryHost, name: str) -> None:
        super().__init__(host, name)
        self.put: list[str] = []

    def put_manifest(self, manifest: Manifest, reference: str) -> None:
        """Keep the reference, too."""
        super().put_manifest(manifest, reference)
        self.put.append(reference)


def load(store: MemoryStore, image: Image, tag: str = "") -> Digest:
    """Put an image into a store without a request; return its digest."""
    for name, blob in image.all_blobs().items():
        store.blobs[Digest.parse(name)] = blob
    for each in image.walk():
        store.manifests[Digest.parse(each.digest)] = Manifest.parse(each.manifest)
    digest = Digest.parse(image.digest)
    if tag:
        store.names[tag] = digest
    return digest


def platforms_of(*names: str, seed: int = 1) -> Image:
    """Return an index of images for some platforms."""
    return make_index(
        [make_image(seed + n, (3_000, 500), platform=name) for n, name in enumerate(names)]
    )


def put_document(store: MemoryStore, document: Mapping[str, object], tag: str) -> Manifest:
    """Put a manifest of any content into a store without a request."""
    manifest = Manifest.parse(json.dumps(document).encode())
    store.manifests[manifest.digest] = manifest
    store.names[tag] = manifest.digest
    return manifest


def index_document(entries: Sequence[Mapping[str, object]]) -> dict[str, object]:
    """Return an index with these entries."""
    return {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": list(entries)}


def assert_same(store: MemoryStore, tag: str, image: Image) -> None:
    """Compare all that a store holds below a tag with the image, byte for byte."""
    assert str(store.names[tag]) == image.digest
    for each in image.walk():
        assert store.manifests[Digest.parse(each.digest)].body == each.manifest
    for digest, blob in image.all_blobs().items():
        assert store.blobs[Digest.parse(digest)] == blob


class TransferHarness:
    """Two hosts in memory, and a pool between them."""

    def __init__(self, pool: WorkerPool) -> None:
        self.pool = pool
        self.origin = MemoryHost("origin")
        self.host = MemoryHost("target", chunk_size=CHUNK)
        self.sink = Sink()
        self.copier = ImageCopier(pool, self.sink)

    def source(self, name: str = "app") -> WatchedStore:
        """Return a repository of the host that is copied from."""
        store = self.origin.repositories.get(name) or WatchedStore(self.origin, name)
        assert isinstance(store, WatchedStore)
        return store

    def destination(self, name: str = "app") -> MemoryStore:
        """Return a repository of the host that is copied to."""
        return self.host.repository(name)

    def job(
        self,
        source: Source,
        target: Destination,
        reference: str = "v1",
        *platforms: str,
        referrers: bool = False,
    ) -> ImageJob:
        """Return the job to copy an image under the same reference."""
        wanted = tuple(Platform.parse(text) for text in platforms)
        return ImageJob(source, reference, target, reference, wanted, referrers)

    def prepare(self, item: MirrorItem) -> ImageJob:
        """Open what an item names: ``repository:tag`` on either host."""
        source, target = item.source.split(":"), item.destination.split(":")
        wanted = tuple(Platform.parse(text) for text in item.platforms)
        stores = (self.source(source[0]), source[1], self.destination(target[0]), target[1])
        return ImageJob(*stores, wanted, item.referrers)

    def mirror(self) -> Mirror:
        """Return a mirror of this lab."""
        return Mirror(self.copier, self.prepare, self.pool.cancel)

    def forget_requests(self) -> None:
        """Count from 0."""
        for host in (self.origin, self.host):
            host.requests.clear()
            host.received = host.served = 0

    @property
    def left_open(self) -> int:
        """How many readers nobody closed."""
        return sum(
            store.left_open
            for store in self.origin.repositories.values()
            if isinstance(store, WatchedStore)
        )


@contextmanager
def create_harness(workers: int, config: TransferConfig = CONFIG) -> Iterator[TransferHarness]:
    """Run a lab; its readers are closed in the end."""
    with create_pool(workers, replace(config, workers=workers)) as pool:
        lab = TransferHarness(pool)
        yield lab
    assert lab.left_open == 0
