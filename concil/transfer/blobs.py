"""The blobs of all images of a run: each has one owner, and everybody else waits or mounts."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial

from concil.content import Descriptor, Digest
from concil.errors import ConcilError
from concil.progress import Meter, ProgressSink, State
from concil.store.protocol import Destination, Mounter
from concil.transfer.blob import Begin, BlobMove, Landed
from concil.transfer.foreign import source_of
from concil.transfer.job import ImageJob, Lookup
from concil.transfer.past import CountsLosses, Past
from concil.transfer.pool import Claims, WorkerPool, wait


@dataclass(frozen=True, slots=True)
class _Claim:
    """A blob that is ours to move."""

    key: tuple[str, str, str]
    future: Future[Landed]


class Blobs:
    """Moves blobs for coordinators, never for a worker of the pool: it waits. Any thread."""

    def __init__(self, pool: WorkerPool, progress: ProgressSink | None, past: Past) -> None:
        """Share ``pool`` and what is learned about blobs among all images of a run."""
        self._pool = pool
        self._progress = progress
        self._past = past
        self._claims: Claims[Landed] = Claims()
        self._lock = threading.Lock()  # guards the field below
        self._losses: dict[str, int] = {}  # lost answers of each realm when it was last looked at
        self.begin: Begin = BlobMove.start  # when a blob that nobody here moves is begun

    def move(
        self,
        job: ImageJob,
        blobs: Iterable[Descriptor],
        lookups: Mapping[Digest, Lookup] | None = None,
    ) -> list[Landed]:
        """Move every blob; submit all that is ours before waiting for others'.

        Args:
            lookups: when the destination is asked for those that are in it.
        """
        self._doubt(job.destination)
        lookups = lookups or {}
        owned: list[tuple[Descriptor, Future[Landed]]] = []
        others: list[tuple[Descriptor, Future[Landed]]] = []
        for blob in sorted(blobs, key=lambda blob: -blob.size):
            key = self._key(job, blob)
            mine, future = self._claims.take(key)
            if mine:
                self._own(job, blob, _Claim(key, future), lookup=self._lookup(job, blob, lookups))
            (owned if mine else others).append((blob, future))
        landed = [wait(future, self._pool.cancel) for _, future in owned]
        follow = []
        for blob, future in others:
            likely = lookups.get(blob.digest) is Lookup.BEFORE_MOUNT
            lookup = Lookup.BEFORE_MOUNT if likely else Lookup.AFTER_MOUNT
            follow.append(self._follow(job, blob, future, lookup))
        return landed + [wait(future, self._pool.cancel) for future in follow]

    def forget_missing(self, job: ImageJob, blobs: Iterable[Descriptor]) -> int:
        """Let the blobs be moved again that the destination has not; return how many.

        Those it has stay: a mount would write their links once more, and another client's
        manifest would miss them then.
        """
        blobs = list(blobs)
        questions = [partial(job.destination.has_blob, blob) for blob in blobs]
        there = self._pool.at_once(questions, (job.destination.host,))
        destination = job.destination
        for blob, is_there in zip(blobs, there, strict=True):
            if not is_there:
                for here in (False, True):
                    self._claims.forget(self._key(job, blob, here=here))
                if isinstance(destination, Mounter):
                    self._past.forget(destination.realm, destination.repository, blob.digest)
        return there.count(False)

    def _lookup(self, job: ImageJob, blob: Descriptor, lookups: Mapping[Digest, Lookup]) -> Lookup:
        """When the destination is asked for a blob; one that it may have is never just sent."""
        destination, found = job.destination, lookups.get(blob.digest, Lookup.AFTER_MOUNT)
        if found is not Lookup.NEVER:
            return found
        is_new = (
            isinstance(destination, Mounter)
            and job.source.host != destination.host
            and self._past.repository_of(destination.realm, blob.digest) is None
        )
        return Lookup.NEVER if is_new else Lookup.AFTER_MOUNT

    def _doubt(self, destination: Destination) -> None:
        """After an answer was lost, ask again for what this run has brought: see `CountsLosses`."""
        if not isinstance(destination, CountsLosses):
            return
        realm, losses = destination.realm, destination.losses
        with self._lock:
            is_old = self._losses.get(realm, 0) != losses
            self._losses[realm] = losses
        if is_old:
            self._claims.forget_settled(lambda key: isinstance(key, tuple) and key[0] == realm)

    def _key(self, job: ImageJob, blob: Descriptor, *, here: bool = False) -> tuple[str, str, str]:
        """The claim on a blob: the first in its realm, and then the first in its repository."""
        realm, name = job.destination.realm, job.destination.name
        return realm, name if here else "", str(blob.digest)

    def _own(
        self,
        job: ImageJob,
        blob: Descriptor,
        claim: _Claim,
        *,
        siblings: Sequence[str] | None = None,
        lookup: Lookup = Lookup.AFTER_MOUNT,
    ) -> None:
        """Move the blob, and complete the claim for everybody who waits for it."""
        tried: list[str] = []
        outcome = self._move(
            job, blob, self._siblings(job, blob, tried) if siblings is None else siblings, lookup
        )

        def complete(done: Future[Landed]) -> None:
            error = done.exception()
            if error is None:
                self._learn(job, done.result(), tried)
                self._claims.complete(claim.key, claim.future, done.result())
            else:
                self._claims.release(claim.key, claim.future)
                claim.future.set_exception(error)

        outcome.add_done_callback(complete)

    def _follow(
        self, job: ImageJob, blob: Descriptor, claim: Future[Landed], lookup: Lookup
    ) -> Future[Landed]:
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
            return self._follow(job, blob, again, lookup)
        self._own(job, blob, _Claim(key, again), siblings=siblings, lookup=lookup)
        return again

    def _move(
        self, job: ImageJob, blob: Descriptor, siblings: Iterable[str], lookup: Lookup
    ) -> Future[Landed]:
        meter = Meter(
            self._progress,
            kind="blob",
            subject=str(blob.digest),
            target=job.destination.name,
            total=blob.size,
        )
        source = source_of(job, blob)
        move = BlobMove(source, job.destination, blob, pool=self._pool, meter=meter)
        return self.begin(move.look_up(lookup), siblings)

    def _siblings(self, job: ImageJob, blob: Descriptor, tried: list[str]) -> Iterator[str]:
        """Where a blob may be mounted from that this run has not brought.

        It is looked for when the blob's turn comes: others have shown by then whether it is
        of any use.

        Args:
            tried: gets what comes from an earlier run.
        """
        source, destination = job.source, job.destination
        if not isinstance(destination, Mounter):
            return
        yield from job.carried(blob)
        if source.host == destination.host and isinstance(source, Mounter):
            yield source.repository  # a copy within one registry needs no bytes
            return
        tried += self._past.siblings(destination.realm, blob.digest, destination.repository)
        yield from tried

    def _learn(self, job: ImageJob, landed: Landed, tried: Sequence[str]) -> None:
        """Remember where a blob is, and whether what was remembered of it was of any use."""
        if landed.repository:
            realm = job.destination.realm
            if tried:
                self._past.tried(realm, mounted=landed.state is State.MOUNTED)
            self._past.landed(realm, landed.repository, landed.blob.digest)
