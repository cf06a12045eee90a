"""One image in graph order: its blobs, largest first, then its manifests, the tag last."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from concil.content import Descriptor, Digest, Manifest, Platform
from concil.errors import ConcilError, StatusError
from concil.progress import Event, ProgressSink, State, emit
from concil.retry import backoff, sleep
from concil.store.protocol import Destination, Mounter, Source
from concil.transfer.blob import Landed
from concil.transfer.blobs import Blobs
from concil.transfer.graph import GraphReader, Node
from concil.transfer.manifests import Manifests
from concil.transfer.past import Brought, ImageKey, Past
from concil.transfer.pool import Claims, Rank, WorkerPool, turn, wait

logger = logging.getLogger(__name__)

_ROUNDS = 3  # times that the blobs of an image are looked for


@dataclass(frozen=True, slots=True)
class ImageJob:
    """One image to copy, its stores open."""

    source: Source
    source_reference: str  # tag or digest; "" for the only one of a layout
    destination: Destination
    destination_reference: str
    platforms: tuple[Platform, ...] = ()
    immutable: bool = False  # once it was brought nobody is asked about it again

    @property
    def subject(self) -> str:
        """The image as people write it."""
        return joined(self.source.name, self.source_reference)

    @property
    def target(self) -> str:
        """Where it goes, as people write it."""
        return joined(self.destination.name, self.destination_reference)

    @property
    def key(self) -> ImageKey:
        """What the journal knows it by."""
        platforms = ",".join(sorted(map(str, self.platforms)))
        return ImageKey(self.subject, self.target, platforms)


@dataclass(frozen=True, slots=True)
class ImageResult:
    """What became of one image."""

    subject: str
    target: str
    state: State  # DONE or PRESENT
    digest: Digest  # of the manifest under the destination's reference
    blobs: tuple[Landed, ...] = ()
    manifests: int = 0  # that were put
    seconds: float = 0.0
    notes: tuple[str, ...] = field(default=())

    @property
    def missing(self) -> int:
        """Bytes of blobs that a dry run did not find at the destination."""
        return sum(one.blob.size for one in self.blobs if one.state is State.WAITING)

    @property
    def sent(self) -> int:
        """Bytes of blobs that were moved for this image."""
        return sum(landed.sent for landed in self.blobs)


def joined(name: str, reference: str) -> str:
    """A store's name and a reference in it, as people write it."""
    if not reference:
        return name
    return (
        f"{name}@{reference}" if ":" in reference and "sha" in reference else f"{name}:{reference}"
    )


class Copier:
    """Copies images on one pool; blobs have one owner over all of them. Any thread."""

    def __init__(self, pool: WorkerPool, progress: ProgressSink | None) -> None:
        """Share ``pool`` and what is learned about blobs among all copies of a run."""
        self._pool = pool
        self._progress = progress
        self._images: Claims[None] = Claims()
        self._manifests = Manifests()
        self._past = Past(pool.run.journal)
        self._blobs = Blobs(pool, progress, self._past)

    def copy(self, job: ImageJob) -> ImageResult:
        """Copy one image; nothing is moved if both sides have the same digest already.

        Called by a coordinator, never by a worker of the pool: it waits.

        Raises:
            NotFound: the source has no such image or platform.
            ConcilError: it could not be copied; its tag was not written.
        """
        began = time.monotonic()
        try:
            result = self._copy(job, began)
        except ConcilError as error:
            self._tell(job, State.FAILED, 0, str(error))
            raise
        self._tell(job, result.state, result.sent, "")
        return result

    def _copy(self, job: ImageJob, began: float) -> ImageResult:
        source, there, digest = compare(job, self._past)
        if digest is not None:
            if job.immutable and source is not None:
                self._past.remember_image(job.key, Brought(source.digest, digest))
            return ImageResult(job.subject, job.target, State.PRESENT, digest)
        assert source is not None  # noqa: S101 - for the type checker
        self._tell(job, State.STARTED, 0, "")
        image = (job.destination.realm, job.destination.name, source.digest, job.platforms)
        with turn(self._images, image, self._pool.cancel):
            whole = self._manifests.whole(job, source)
            root, digest = self._manifests.part(job, whole, source)
            result = self._bring(job, Node(root, digest), there, began)
        if whole.digest == source.digest:  # else the tag has moved since it was asked for
            self._past.remember_image(job.key, Brought(source.digest, digest))
        return result

    def _bring(
        self, job: ImageJob, wanted: Node, there: Descriptor | None, began: float
    ) -> ImageResult:
        """Copy an image whose tag is not there, or another's."""
        root, digest = wanted.manifest, wanted.digest
        if there is not None and there.digest == digest:
            return ImageResult(job.subject, job.target, State.PRESENT, digest)
        landed: list[Landed] = []
        manifests = 1
        if not self._tag(job, root, digest):
            fetch = partial(self._fetch_level, job, may_be_there=there is not None)
            node = GraphReader(fetch, job.subject).read(root, digest)
            landed, manifests = self._write(job, node), sum(1 for _ in node.walk())
            self._note(job, node)
        seconds = time.monotonic() - began
        return ImageResult(
            job.subject, job.target, State.DONE, digest, tuple(landed), manifests, seconds
        )

    def _tag(self, job: ImageJob, root: Manifest, digest: Digest) -> bool:
        """Only write the tag, if the image itself is known to be there; return whether it is."""
        destination = job.destination
        if not isinstance(destination, Mounter) or ":" in job.destination_reference:
            return False
        place = destination.realm, destination.repository, digest
        if not self._past.was_put(*place):
            known = self._is_known(destination, digest)
            if not known or destination.find_manifest(str(digest)) is None:
                return False
        try:
            destination.put_manifest(root, job.destination_reference)
        except StatusError as error:
            logger.info("%s: %s; looking at all of it", job.target, error)
            return False
        return True

    def _note(self, job: ImageJob, node: Node) -> None:
        """Remember where the manifests of an image have been put."""
        destination = job.destination
        if isinstance(destination, Mounter):
            for each in node.walk():
                self._past.put(destination.realm, destination.repository, each.digest)

    def _fetch_level(
        self, job: ImageJob, level: Sequence[Descriptor], *, may_be_there: bool
    ) -> list[Manifest | None]:
        """Get the manifests of one level, all at once; None for what the destination has."""

        def read(child: Descriptor) -> Manifest | None:
            digest = str(child.digest)
            likely = may_be_there or self._is_known(job.destination, child.digest)
            if likely and job.destination.find_manifest(digest) is not None:
                return None
            get = partial(job.source.get_manifest, digest)
            return self._manifests.get(job.source.host, child.digest, get)

        hosts = (job.source.host, job.destination.host)
        futures = [
            self._pool.submit(partial(read, child), rank=Rank.SMALL, hosts=hosts) for child in level
        ]
        return [wait(future, self._pool.cancel) for future in futures]

    def _is_known(self, destination: Destination, digest: Digest) -> bool:
        """Whether some run has put a manifest there."""
        if not isinstance(destination, Mounter):
            return False
        return self._past.repository_of(destination.realm, digest) == destination.repository

    def _write(self, job: ImageJob, node: Node) -> list[Landed]:
        """Move the blobs and put the manifests, once more if blobs are gone that were there.

        A registry may see them late: distribution 2.8 does, while another client writes
        the same ones. Or it has lost them since this run brought them.
        """
        landed: list[Landed] = []
        for attempt in range(1, _ROUNDS + 1):
            landed += [
                one
                for one in self._blobs.move(job, node.blobs().values())
                if attempt == 1 or one.sent
            ]
            try:
                self._put(job, node)
                break
            except StatusError as error:
                if "BLOB_UNKNOWN" not in str(error) or attempt == _ROUNDS:
                    raise
                logger.warning("%s: %s; looking at its blobs again", job.subject, error)
                sleep(backoff(self._pool.run.config.retry, attempt), self._pool.cancel)
                self._blobs.forget_missing(job, node.blobs().values())
        return landed

    def _put(self, job: ImageJob, node: Node) -> None:
        """Put the manifests, children before parents, the tag last."""
        for child in node.children:
            for one in child.walk():
                job.destination.put_manifest(one.manifest, str(one.digest))
        job.destination.put_manifest(node.manifest, job.destination_reference or "")

    def _tell(self, job: ImageJob, state: State, sent: int, detail: str) -> None:
        emit(self._progress, Event("image", job.subject, job.target, state, sent, None, detail))


def compare(
    job: ImageJob, past: Past
) -> tuple[Descriptor | None, Descriptor | None, Digest | None]:
    """Look what an image is on both sides.

    Returns:
        What it is at the source, None for an immutable one that is known to be done; what
        its reference is at the destination; and the digest if that is up to date.
    Raises:
        NotFound: the source has no such image.
    """
    before = past.image(job.key) if job.immutable or job.platforms else None
    if job.immutable and before is not None and _still_there(job, before):
        return None, None, before.target
    source = job.source.find_manifest(job.source_reference)
    if source is None:
        # Reading it says why: a layout lists its names, a registry its own message.
        source = job.source.get_manifest(job.source_reference).descriptor
    there = job.destination.find_manifest(job.destination_reference)
    if there is None:
        return source, None, None
    same = there.digest == source.digest and not job.platforms
    if same or before == Brought(source.digest, there.digest):
        return source, there, there.digest
    return source, there, None


def _still_there(job: ImageJob, before: Brought) -> bool:
    """Whether an immutable image need not be looked at; a look at a local place costs nothing."""
    if job.destination.host:
        return True
    found = job.destination.find_manifest(job.destination_reference)
    return found is not None and found.digest == before.target
