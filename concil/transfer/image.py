"""One image in graph order: its blobs, largest first, then its manifests, the tag last."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

from concil.content import Descriptor, Digest, Manifest
from concil.errors import ConcilError, NotFound, StatusError
from concil.progress import Event, Meter, ProgressSink, State, emit
from concil.retry import backoff, sleep
from concil.store.protocol import Mounter
from concil.transfer.blob import BlobMove, Landed
from concil.transfer.foreign import source_of
from concil.transfer.graph import GraphReader, attests, check_listed, chosen
from concil.transfer.job import ForeignLayers, ImageJob, Load, Root, counted, joined
from concil.transfer.pool import Claims, Rank, WorkerPool, wait
from concil.transfer.putting import put
from concil.transfer.referrers import Gatherer, Hands, ListOfReferrers, is_list

__all__ = ["Copier", "ForeignLayers", "ImageJob", "ImageResult", "joined"]

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
_ROUNDS = 3  # times that the blobs of an image are looked for


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
    notes: tuple[str, ...] = field(default=())  # what is not as it was at the source
    referrers: int = 0  # signatures and the like that came along
    foreign: int = 0  # foreign layers that were left out

    @property
    def sent(self) -> int:
        """Bytes of blobs that were moved for this image."""
        return sum(landed.sent for landed in self.blobs)


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
            ListOfReferrers: it is none, and referrers were to go along.
            ConcilError: it could not be copied; its tag was not written.
        """
        began = time.monotonic()
        try:
            result = self._copy(job, began)
        except ListOfReferrers:
            raise  # in a mirror it is no failure
        except ConcilError as error:
            self._tell(job, State.FAILED, 0, str(error))
            raise
        self._tell(job, result.state, result.sent, "")
        return result

    def _copy(self, job: ImageJob, began: float) -> ImageResult:
        source = job.source.find_manifest(job.source_reference)
        if source is None:
            # Reading it says why: a layout lists its names, a registry its own message.
            source = job.source.get_manifest(job.source_reference).descriptor
        if job.referrers and is_list(job.source_reference, source.digest):
            raise ListOfReferrers(source.digest, job.subject)
        there = job.destination.find_manifest(job.destination_reference)
        same = there is not None and there.digest == source.digest and not job.platforms
        if not same:
            self._tell(job, State.STARTED, 0, "")
        root = Root(source) if same else self._root(job, source)
        load = Load(None, (), root.notes)
        if root.manifest is not None and (there is None or there.digest != root.entry.digest):
            fetch = partial(self._fetch_level, job, may_be_there=there is not None)
            node = GraphReader(fetch, job.subject).read(root.manifest, root.entry.digest)
            load = replace(load, node=node)
        load = self._with_referrers(job, load, root)
        if same and load.attached:
            self._tell(job, State.STARTED, 0, "")
        return self._written(job, load, root.entry.digest, began)

    def _written(self, job: ImageJob, load: Load, digest: Digest, began: float) -> ImageResult:
        """Write what there is to write."""
        is_there = load.node is None and not load.attached
        landed = [] if is_there else self._write(job, load)
        skipped = load.foreign if job.foreign is ForeignLayers.SKIP else 0
        notes = (f"{counted(skipped, 'foreign layer')} left out",) if skipped else ()
        return ImageResult(
            job.subject,
            job.target,
            State.PRESENT if is_there else State.DONE,
            digest,
            tuple(landed),
            manifests=sum(1 for _ in load.nodes()),
            seconds=0.0 if is_there else time.monotonic() - began,
            notes=load.notes + notes,
            referrers=len(load.attached),
            foreign=skipped,
        )

    def _with_referrers(self, job: ImageJob, load: Load, root: Root) -> Load:
        """Add what refers to the image, and has come to it since it was copied."""
        if not job.referrers:
            return load
        fetch = partial(self._fetch_level, job, may_be_there=True)
        gatherer = Gatherer(job, Hands(partial(self._at_once, job), fetch))
        known = {each.digest: each.manifest for each in load.nodes()}
        members = gatherer.members([root.entry], known)
        if root.whole is not None:
            gatherer.left_behind(root.whole)
            members.remove(root.entry.digest)
        attached = gatherer.gather(members)
        return replace(load, attached=attached, notes=(*load.notes, *gatherer.notes))

    def _at_once(self, job: ImageJob, calls: Sequence[Callable[[], Result]]) -> list[Result]:
        hosts = (job.source.host, job.destination.host)
        futures = [self._pool.submit(call, rank=Rank.SMALL, hosts=hosts) for call in calls]
        return [wait(future, self._pool.cancel) for future in futures]

    def _root(self, job: ImageJob, found: Descriptor) -> Root:
        """What to copy: all that was asked for, or for some platforms a part of an index."""
        root = job.source.get_manifest(job.source_reference)
        pick = chosen(root, job.platforms, job.subject)
        if isinstance(pick, Descriptor):
            child = job.source.get_manifest(str(pick.digest))
            check_listed(pick, child, job.subject)
            count = sum(1 for each in root.children() if attests(each) == str(pick.digest))
            notes = (f"{counted(count, 'attestation')} left behind in the index",) if count else ()
            return Root(pick, child, notes=notes)
        if pick is root:
            same = found.digest.algorithm != "sha256"
            return Root(
                replace(root.descriptor, digest=found.digest) if same else root.descriptor, root
            )
        wanted = ", ".join(map(str, job.platforms))
        note = f"the index is rewritten for {wanted}: {pick.digest} instead of {root.digest}"
        return Root(pick.descriptor, pick, root.digest, (note,))

    def _fetch_level(
        self, job: ImageJob, level: Sequence[Descriptor], *, may_be_there: bool
    ) -> list[Manifest | None]:
        """Get the manifests of one level, all at once; None for what the destination has."""

        def read(child: Descriptor) -> Manifest | None:
            digest = str(child.digest)
            if may_be_there and job.destination.find_manifest(digest) is not None:
                return None
            try:
                return job.source.get_manifest(digest)
            except NotFound as error:
                of = f" for {child.platform}" if child.platform is not None else ""
                raise NotFound(
                    f"{job.subject}: an index lists {digest}{of}, which the source has not",
                    remedy="the source has only some platforms; choose those with --platform",
                ) from error

        return self._at_once(job, [partial(read, child) for child in level])

    def _move_blobs(self, job: ImageJob, load: Load) -> list[Landed]:
        """Move every blob of the graph; submit all that is ours before waiting for others'."""
        owned: list[tuple[Descriptor, Future[Landed]]] = []
        others: list[tuple[Descriptor, Future[Landed]]] = []
        blobs = sorted(load.blobs(job.foreign).values(), key=lambda blob: -blob.size)
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
        outcome = self._move(
            job, blob, self._source_repository(job) if siblings is None else siblings
        )

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
        source = source_of(job, blob)
        move = BlobMove(source, job.destination, blob, pool=self._pool, meter=meter)
        return move.start(siblings)

    def _source_repository(self, job: ImageJob) -> list[str]:
        """A copy within one registry needs no bytes: mount from where it is copied."""
        source, destination = job.source, job.destination
        if not source.host or source.host != destination.host:
            return []
        return [source.repository] if isinstance(source, Mounter) else []

    def _write(self, job: ImageJob, load: Load) -> list[Landed]:
        """Move the blobs and put the manifests, once more if blobs are gone that were there.

        A registry may see them late: distribution 2.8 does, while another client writes
        the same ones. Or it has lost them since this run brought them.
        """
        landed: list[Landed] = []
        for attempt in range(1, _ROUNDS + 1):
            landed += [one for one in self._move_blobs(job, load) if attempt == 1 or one.sent]
            try:
                put(job, load)
                break
            except StatusError as error:
                if "BLOB_UNKNOWN" not in str(error) or attempt == _ROUNDS:
                    raise
                logger.warning("%s: %s; looking at its blobs again", job.subject, error)
                sleep(backoff(self._pool.run.config.retry, attempt), self._pool.cancel)
                self._forget_missing(job, load)
        return landed

    def _forget_missing(self, job: ImageJob, load: Load) -> None:
        """Let the blobs be moved again that the destination has not.

        Those it has stay: a mount would write their links once more, and another client's
        manifest would miss them then.
        """
        blobs = list(load.blobs(job.foreign).values())
        there = self._at_once(job, [partial(job.destination.has_blob, blob) for blob in blobs])
        for blob, is_there in zip(blobs, there, strict=True):
            if not is_there:
                for here in (False, True):
                    self._claims.forget(self._key(job, blob, here=here))

    def _tell(self, job: ImageJob, state: State, sent: int, detail: str) -> None:
        emit(self._progress, Event("image", job.subject, job.target, state, sent, None, detail))
