"""Transfers each blob of a run once, for all images."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial

from concil.errors import ConcilError
from concil.oci.descriptor import Descriptor
from concil.oci.manifest import Digest
from concil.progress.events import Meter, ProgressSink, State
from concil.store.protocols import Destination, SupportsMount
from concil.transfer.blob.transfer import BlobLookup, BlobResult, BlobStarter, BlobTransfer
from concil.transfer.image.foreign_layers import source_for
from concil.transfer.image.history import History, SupportsLostResponseCount
from concil.transfer.image.job import ImageJob
from concil.transfer.single_flight import SingleFlight
from concil.transfer.worker_pool import WorkerPool, wait_for


@dataclass(frozen=True, slots=True)
class _OwnedBlob:
    """A blob that this caller has to transfer."""

    key: tuple[str, str, str]
    future: Future[BlobResult]


class BlobDeduplicator:
    """Transfers blobs of images. Any thread except the pool's workers: it waits for jobs."""

    def __init__(self, pool: WorkerPool, progress: ProgressSink | None, history: History) -> None:
        """Share ``pool``, and the known locations of blobs, among all images of a run."""
        self._pool = pool
        self._progress = progress
        self._history = history
        self._single_flight: SingleFlight[BlobResult] = SingleFlight()
        self._lock = threading.Lock()  # guards the field below
        self._lost_responses: dict[
            str, int
        ] = {}  # lost responses per mount scope at the last check
        self.starter: BlobStarter = (
            BlobTransfer.start
        )  # starts the transfer of a blob that no other image is transferring

    def transfer(
        self,
        job: ImageJob,
        blobs: Iterable[Descriptor],
        lookups: Mapping[Digest, BlobLookup] | None = None,
    ) -> list[BlobResult]:
        """Transfer every blob; submit the owned ones before waiting for other images'.

        Args:
            lookups: when to check the destination, by digest; default: after mounting.
        """
        self._forget_after_lost_response(job.destination)
        lookups = lookups or {}
        owned: list[tuple[Descriptor, Future[BlobResult]]] = []
        others: list[tuple[Descriptor, Future[BlobResult]]] = []
        for blob in sorted(blobs, key=lambda blob: -blob.size):
            key = self._flight_key(job, blob)
            is_owner, future = self._single_flight.claim(key)
            if is_owner:
                self._transfer_owned(
                    job,
                    blob,
                    _OwnedBlob(key, future),
                    lookup=self._choose_lookup(job, blob, lookups),
                )
            (owned if is_owner else others).append((blob, future))
        results = [wait_for(future, self._pool.cancel) for _, future in owned]
        follow_ups = []
        for blob, future in others:
            is_likely_present = lookups.get(blob.digest) is BlobLookup.BEFORE_MOUNT
            lookup = BlobLookup.BEFORE_MOUNT if is_likely_present else BlobLookup.AFTER_MOUNT
            follow_ups.append(self._wait_or_mount(job, blob, future, lookup))
        return results + [wait_for(future, self._pool.cancel) for future in follow_ups]

    def forget_missing(self, job: ImageJob, blobs: Iterable[Descriptor]) -> int:
        """Forget the results of blobs that the destination lacks; return how many.

        Present blobs are not mounted again: rewriting their links could make another
        client's manifest fail.
        """
        blobs = list(blobs)
        checks = [partial(job.destination.has_blob, blob) for blob in blobs]
        present = self._pool.run_all(checks, (job.destination.host,))
        destination = job.destination
        for blob, is_present in zip(blobs, present, strict=True):
            if not is_present:
                for in_repository in (False, True):
                    self._single_flight.forget(
                        self._flight_key(job, blob, in_repository=in_repository)
                    )
                if isinstance(destination, SupportsMount):
                    self._history.forget(
                        destination.mount_scope, destination.repository, blob.digest
                    )
        return present.count(False)

    def _choose_lookup(
        self, job: ImageJob, blob: Descriptor, lookups: Mapping[Digest, BlobLookup]
    ) -> BlobLookup:
        """Choose when to check for a blob; NEVER only if the registry probably lacks it."""
        destination, lookup = job.destination, lookups.get(blob.digest, BlobLookup.AFTER_MOUNT)
        if lookup is not BlobLookup.NEVER:
            return lookup
        is_new = (
            isinstance(destination, SupportsMount)
            and job.source.host != destination.host
            and self._history.find_repository(destination.mount_scope, blob.digest) is None
        )
        return BlobLookup.NEVER if is_new else BlobLookup.AFTER_MOUNT

    def _forget_after_lost_response(self, destination: Destination) -> None:
        """Forget results of this run after a response was lost."""
        if not isinstance(destination, SupportsLostResponseCount):
            return
        mount_scope, lost_responses = destination.mount_scope, destination.lost_response_count
        with self._lock:
            has_new_loss = self._lost_responses.get(mount_scope, 0) != lost_responses
            self._lost_responses[mount_scope] = lost_responses
        if has_new_loss:
            self._single_flight.forget_results(
                lambda key: isinstance(key, tuple) and key[0] == mount_scope
            )

    def _flight_key(
        self, job: ImageJob, blob: Descriptor, *, in_repository: bool = False
    ) -> tuple[str, str, str]:
        """Return the single-flight key of a blob, in its mount scope or in its repository."""
        mount_scope, name = job.destination.mount_scope, job.destination.name
        return mount_scope, name if in_repository else "", str(blob.digest)

    def _transfer_owned(
        self,
        job: ImageJob,
        blob: Descriptor,
        owned: _OwnedBlob,
        *,
        mount_sources: Sequence[str] | None = None,
        lookup: BlobLookup = BlobLookup.AFTER_MOUNT,
    ) -> None:
        """Transfer the blob, then complete the future that other images wait for."""
        from_history: list[str] = []
        transfer_future = self._start_transfer(
            job,
            blob,
            self._find_mount_sources(job, blob, from_history)
            if mount_sources is None
            else mount_sources,
            lookup,
        )

        def complete(done: Future[BlobResult]) -> None:
            error = done.exception()
            if error is None:
                self._record_result(job, done.result(), from_history)
                self._single_flight.complete(owned.key, owned.future, done.result())
            else:
                self._single_flight.release(owned.key, owned.future)
                owned.future.set_exception(error)

        transfer_future.add_done_callback(complete)

    def _wait_or_mount(
        self, job: ImageJob, blob: Descriptor, future: Future[BlobResult], lookup: BlobLookup
    ) -> Future[BlobResult]:
        """Wait for another image's transfer of a blob, then mount the blob or transfer it."""
        siblings: Sequence[str] | None = None
        key = self._flight_key(job, blob)
        try:
            result = wait_for(future, self._pool.cancel)
        except ConcilError:
            if self._pool.cancel.is_set():
                raise
        else:
            if result.destination == job.destination.name:
                present_future: Future[BlobResult] = Future()
                present_future.set_result(
                    BlobResult(blob, result.destination, result.repository, State.PRESENT)
                )
                return present_future
            # Only one image mounts it into this repository, or sends it again.
            siblings = [result.repository] if result.repository else []
            key = self._flight_key(job, blob, in_repository=True)
        is_owner, new_future = self._single_flight.claim(key)
        if not is_owner:
            return self._wait_or_mount(job, blob, new_future, lookup)
        self._transfer_owned(
            job, blob, _OwnedBlob(key, new_future), mount_sources=siblings, lookup=lookup
        )
        return new_future

    def _start_transfer(
        self, job: ImageJob, blob: Descriptor, mount_sources: Iterable[str], lookup: BlobLookup
    ) -> Future[BlobResult]:
        meter = Meter(
            self._progress,
            kind="blob",
            subject=str(blob.digest),
            target=job.destination.name,
            total=blob.size,
        )
        source = source_for(job, blob)
        transfer = BlobTransfer(source, job.destination, blob, pool=self._pool, meter=meter)
        return self.starter(transfer.with_lookup(lookup), mount_sources)

    def _find_mount_sources(
        self, job: ImageJob, blob: Descriptor, from_history: list[str]
    ) -> Iterator[str]:
        """Yield repositories that had the blob before this run, to mount it from.

        Evaluated when the job runs: by then the mounts of other blobs have shown whether the
        recorded repositories are of any use.

        Args:
            from_history: receives the repositories that earlier runs recorded.
        """
        source, destination = job.source, job.destination
        if not isinstance(destination, SupportsMount):
            return
        yield from job.mount_candidates(blob)
        if source.host == destination.host and isinstance(source, SupportsMount):
            yield source.repository  # a copy within one registry needs no bytes
            return
        from_history += self._history.mount_sources(
            destination.mount_scope, blob.digest, destination.repository
        )
        yield from from_history

    def _record_result(
        self, job: ImageJob, result: BlobResult, from_history: Sequence[str]
    ) -> None:
        """Record where a blob is, and whether mounting it by the history has worked."""
        if result.repository:
            mount_scope = job.destination.mount_scope
            if from_history:
                self._history.record_mount(mount_scope, mounted=result.state is State.MOUNTED)
            self._history.record_blob(mount_scope, result.repository, result.blob.digest)
