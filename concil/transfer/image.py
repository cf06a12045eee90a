"""One image in graph order: its blobs, largest first, then its manifests, the tag last."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial

from concil.content import Descriptor, Digest, Manifest, Platform
from concil.errors import ConcilError, StatusError
from concil.progress import Event, Meter, ProgressSink, State, emit
from concil.retry import backoff, sleep
from concil.store.protocol import Choosy, Destination, Mounter, Source
from concil.transfer.blob import BlobMove, Landed
from concil.transfer.graph import GraphReader, Node, check_listed, chosen
from concil.transfer.pool import Claims, Rank, WorkerPool, wait

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
    # Repositories at the destination that have a blob which the source lacks.
    elsewhere: Callable[[Descriptor], Sequence[str]] = lambda _blob: ()

    @property
    def subject(self) -> str:
        """The image as people write it."""
        return joined(self.source.name, self.source_reference)


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
        self._claims: Claims[Landed] = Claims()

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
        target = joined(job.destination.name, job.destination_reference)
        source = job.source.find_manifest(job.source_reference)
        if source is None:
            # Reading it says why: a layout lists its names, a registry its own message.
            source = job.source.get_manifest(job.source_reference).descriptor
        there = job.destination.find_manifest(job.destination_reference)
        if there is not None and there.digest == source.digest and not job.platforms:
            return ImageResult(job.subject, target, State.PRESENT, source.digest)
        self._tell(job, State.STARTED, 0, "")
        root, digest = self._root(job, source)
        if isinstance(job.destination, Choosy):
            job.destination.check(root)
        if there is not None and there.digest == digest:
            return ImageResult(job.subject, target, State.PRESENT, digest)
        fetch = partial(self._fetch_level, job, may_be_there=there is not None)
        node = GraphReader(fetch, job.subject).read(root, digest)
        landed = self._write(job, node)
        return ImageResult(
            job.subject,
            target,
            State.DONE,
            digest,
            tuple(landed),
            manifests=sum(1 for _ in node.walk()),
            seconds=time.monotonic() - began,
        )

    def _root(self, job: ImageJob, found: Descriptor) -> tuple[Manifest, Digest]:
        """The manifest to copy, and the digest it has; of an index for some platforms a part."""
        root = job.source.get_manifest(job.source_reference)
        pick = chosen(root, job.platforms, job.subject)
        if isinstance(pick, Descriptor):
            child = job.source.get_manifest(str(pick.digest))
            check_listed(pick, child, job.subject)
            return child, pick.digest
        same = pick is root and found.digest.algorithm != "sha256"
        return pick, found.digest if same else pick.digest

    def _fetch_level(
        self, job: ImageJob, level: Sequence[Descriptor], *, may_be_there: bool
    ) -> list[Manifest | None]:
        """Get the manifests of one level, all at once; None for what the destination has."""

        def read(child: Descriptor) -> Manifest | None:
            digest = str(child.digest)
            if may_be_there and job.destination.find_manifest(digest) is not None:
                return None
            return job.source.get_manifest(digest)

        hosts = (job.source.host, job.destination.host)
        futures = [
            self._pool.submit(partial(read, child), rank=Rank.SMALL, hosts=hosts) for child in level
        ]
        return [wait(future, self._pool.cancel) for future in futures]

    def _move_blobs(self, job: ImageJob, node: Node) -> list[Landed]:
        """Move every blob of the graph; submit all that is ours before waiting for others'."""
        owned: list[tuple[Descriptor, Future[Landed]]] = []
        others: list[tuple[Descriptor, Future[Landed]]] = []
        blobs = sorted(node.blobs().values(), key=lambda blob: -blob.size)
        for blob in blobs:
            key = self._key(job, blob)
            mine, future = self._claims.take(key)
            if mine:
                self._own(job, blob, key, future)
            (owned if mine else others).append((blob, future))
        landed = [wait(future, self._pool.cancel) for _, future in owned]
        follow = [self._follow(job, blob, future) for blob, future in others]
        return landed + [wait(future, self._pool.cancel) for future in follow]

    def _key(self, job: ImageJob, blob: Descriptor, *, here: bool = False) -> tuple[str, str, str]:
        """The claim on a blob: the first in its realm, and then the first in its repository."""
        realm, name = job.destination.realm, job.destination.name
        return realm, name if here else "", str(blob.digest)

    def _own(
        self,
        job: ImageJob,
        blob: Descriptor,
        key: tuple[str, str, str],
        claim: Future[Landed],
        siblings: Sequence[str] | None = None,
    ) -> None:
        """Move the blob, and complete the claim for everybody who waits for it."""
        if siblings is None:
            siblings = [*self._source_repository(job), *job.elsewhere(blob)]
        outcome = self._move(job, blob, siblings)

        def complete(done: Future[Landed]) -> None:
            error = done.exception()
            if error is None:
                claim.set_result(done.result())
            else:
                self._claims.release(key, claim)
                claim.set_exception(error)

        outcome.add_done_callback(complete)

    def _follow(self, job: ImageJob, blob: Descriptor, claim: Future[Landed]) -> Future[Landed]:
        """A blob that another image brought, or tried to: mount it, or bring it after all."""
        siblings: Sequence[str] | None = None
        key = self._key(job, blob)
        try:
            landed = wait(claim, self._pool.cancel)
        except ConcilError:
            if self._pool.cancel.is_set():
                raise
        else:
            if landed.place == job.destination.name:
                here: Future[Landed] = Future()
                here.set_result(Landed(blob, landed.place, landed.repository, State.PRESENT))
                return here
            # Of the images that follow into this repository one mounts it, or sends it again.
            siblings = [landed.repository] if landed.repository else []
            key = self._key(job, blob, here=True)
        mine, again = self._claims.take(key)
        if not mine:
            return self._follow(job, blob, again)
        self._own(job, blob, key, again, siblings)
        return again

    def _move(self, job: ImageJob, blob: Descriptor, siblings: Sequence[str]) -> Future[Landed]:
        meter = Meter(
            self._progress,
            kind="blob",
            subject=str(blob.digest),
            target=job.destination.name,
            total=blob.size,
        )
        move = BlobMove(job.source, job.destination, blob, pool=self._pool, meter=meter)
        return move.start(siblings)

    def _source_repository(self, job: ImageJob) -> list[str]:
        """A copy within one registry needs no bytes: mount from where it is copied."""
        source, destination = job.source, job.destination
        if not source.host or source.host != destination.host:
            return []
        return [source.repository] if isinstance(source, Mounter) else []

    def _write(self, job: ImageJob, node: Node) -> list[Landed]:
        """Move the blobs and put the manifests, once more if blobs are gone that were there.

        A registry may see them late: distribution 2.8 does, while another client writes
        the same ones. Or it has lost them since this run brought them.
        """
        landed: list[Landed] = []
        for attempt in range(1, _ROUNDS + 1):
            landed += [one for one in self._move_blobs(job, node) if attempt == 1 or one.sent]
            try:
                self._put(job, node)
                break
            except StatusError as error:
                if "BLOB_UNKNOWN" not in str(error) or attempt == _ROUNDS:
                    raise
                logger.warning("%s: %s; looking at its blobs again", job.subject, error)
                sleep(backoff(self._pool.run.config.retry, attempt), self._pool.cancel)
                self._forget_missing(job, node)
        return landed

    def _forget_missing(self, job: ImageJob, node: Node) -> None:
        """Let the blobs be moved again that the destination has not.

        Those it has stay: a mount would write their links once more, and another client's
        manifest would miss them then.
        """
        blobs = list(node.blobs().values())
        hosts = (job.destination.host,)
        there = [
            self._pool.submit(partial(job.destination.has_blob, blob), rank=Rank.SMALL, hosts=hosts)
            for blob in blobs
        ]
        for blob, future in zip(blobs, there, strict=True):
            if not wait(future, self._pool.cancel):
                for here in (False, True):
                    self._claims.forget(self._key(job, blob, here=here))

    def _put(self, job: ImageJob, node: Node) -> None:
        """Put the manifests, children before parents, the tag last."""
        for child in node.children:
            for one in child.walk():
                job.destination.put_manifest(one.manifest, str(one.digest))
        job.destination.put_manifest(node.manifest, job.destination_reference or "")

    def _tell(self, job: ImageJob, state: State, sent: int, detail: str) -> None:
        target = joined(job.destination.name, job.destination_reference)
        emit(self._progress, Event("image", job.subject, target, state, sent, None, detail))
