"""What a mirror would do to one image: nothing is written, not even to the journal."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import partial

from concil.content import Descriptor, Digest, Manifest
from concil.errors import UsageError
from concil.progress import State
from concil.store.protocol import BlobWriter, Destination, Guarded, WriterState
from concil.transfer.blob import Landed
from concil.transfer.graph import GraphReader, Node, check_listed
from concil.transfer.image import ImageResult, compare
from concil.transfer.job import ImageJob, Load
from concil.transfer.manifests import Manifests
from concil.transfer.past import Past
from concil.transfer.pool import Rank, WorkerPool, wait


class Surveyor:
    """Looks at images as deeply as a copy would, with GET and HEAD only. Any thread.

    A blob that the destination's repository lacks counts once for all images of a registry: a
    copy sends it once. It may count although the registry has it elsewhere and mounts it: the
    sizes are what is sent at most.
    """

    def __init__(self, pool: WorkerPool) -> None:
        """Ask by the threads of ``pool``."""
        self._pool = pool
        self._past = Past(pool.run.journal)
        self._manifests = Manifests()
        self._lock = threading.Lock()  # guards the field below
        self._counted: set[tuple[str, Digest]] = set()  # blobs that are to be sent, by realm

    def copy(self, job: ImageJob) -> ImageResult:
        """Say what a copy would do: PRESENT, or WAITING with the blobs that are not there.

        Raises:
            NotFound: the source has no such image or platform.
            ConcilError: it could not be looked at.
        """
        source, there, digest = compare(job, self._past)
        if source is not None and digest is None:
            root = self._manifests.root(job, source)
            digest = root.entry.digest
            if root.manifest is not None and (there is None or there.digest != digest):
                return self._missing(job, root.manifest, digest)
        assert digest is not None  # noqa: S101 - for the type checker
        return ImageResult(job.subject, job.target, State.PRESENT, digest)

    def _missing(self, job: ImageJob, root: Manifest, digest: Digest) -> ImageResult:
        node = GraphReader(partial(self._level, job), job.subject).read(root, digest)
        blobs = tuple(self._missing_blobs(job, node))
        manifests = sum(1 for _ in node.walk())
        return ImageResult(
            job.subject, job.target, State.WAITING, digest, blobs, manifests=manifests
        )

    def _level(self, job: ImageJob, level: Sequence[Descriptor]) -> list[Manifest | None]:
        """The manifests of one level; None for what the destination has."""

        def read(child: Descriptor) -> Manifest | None:
            if job.destination.find_manifest(str(child.digest)) is not None:
                return None
            get = partial(job.source.get_manifest, str(child.digest))
            manifest = self._manifests.get(job.source.host, child.digest, get)
            check_listed(child, manifest, job.subject)
            return manifest

        hosts = (job.source.host, job.destination.host)
        futures = [
            self._pool.submit(partial(read, child), rank=Rank.SMALL, hosts=hosts) for child in level
        ]
        return [wait(future, self._pool.cancel) for future in futures]

    def _missing_blobs(self, job: ImageJob, node: Node) -> list[Landed]:
        """The blobs that would have to be brought, and that no image before it brings."""
        destination = job.destination
        listed = Load(node).blobs(job.foreign).values()
        blobs = [blob for blob in listed if not self._is_counted(destination, blob)]
        futures = [
            self._pool.submit(
                partial(destination.has_blob, blob), rank=Rank.SMALL, hosts=(destination.host,)
            )
            for blob in blobs
        ]
        there = [wait(future, self._pool.cancel) for future in futures]
        missing = []
        for blob, has in zip(blobs, there, strict=True):
            with self._lock:
                key = destination.realm, blob.digest
                if has or key in self._counted:
                    continue
                self._counted.add(key)
            missing.append(Landed(blob, destination.name, "", State.WAITING))
        return missing

    def _is_counted(self, destination: Destination, blob: Descriptor) -> bool:
        with self._lock:
            return (destination.realm, blob.digest) in self._counted


class Untouched:
    """A destination that is only asked; one that is not there yet has nothing. Any thread."""

    def __init__(self, place: Destination | None, name: str) -> None:
        """Ask ``place``; None: nothing is at ``name``."""
        self._place = place
        self.name = name
        self.host = place.host if place is not None else ""
        self.realm = place.realm if place is not None else name

    def find_manifest(self, reference: str) -> Descriptor | None:
        """Ask what is there. See `store.protocol.Destination`."""
        return self._place.find_manifest(reference) if self._place is not None else None

    def has_blob(self, blob: Descriptor) -> bool:
        """Whether the blob is there."""
        return self._place is not None and self._place.has_blob(blob)

    def is_shut(self) -> bool:
        """See `store.protocol.Guarded`."""
        place: object = self._place
        return isinstance(place, Guarded) and place.is_shut()

    def begin_blob(
        self,
        size: int,  # noqa: ARG002 - of the protocol, as the others
        digest: Digest | None = None,  # noqa: ARG002
        resume: WriterState | None = None,  # noqa: ARG002
    ) -> BlobWriter:
        """Refuse."""
        raise self._refusal()

    def put_manifest(self, manifest: Manifest, reference: str) -> None:  # noqa: ARG002
        """Refuse."""
        raise self._refusal()

    def _refusal(self) -> UsageError:
        return UsageError(f"{self.name}: a dry run writes nothing")
