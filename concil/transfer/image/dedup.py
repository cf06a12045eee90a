"""Transfers each blob of a run once, for all images."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import field
from functools import partial

from concil.errors import ConcilError
from concil.oci.descriptor import Descriptor
from concil.oci.manifest import Digest
from concil.progress.events import Event, Meter, ProgressSink, State, emit
from concil.runtime.dataclass import dataclass
from concil.store.protocols import Destination
from concil.transfer.blob.transfer import BlobLookup, BlobResult, BlobStarter, BlobTransfer
from concil.transfer.image.foreign_layers import source_for
from concil.transfer.image.history import History
from concil.transfer.image.job import ImageJob
from concil.transfer.shared_single_flight import SharedSingleFlight
from concil.transfer.single_flight import SingleFlight
from concil.transfer.worker_pool import WorkerPool, wait_for


@dataclass(frozen=True, slots=True)
class _OwnedBlob:
    """A blob that this caller has to transfer."""

    job: ImageJob
    blob: Descriptor
    key: tuple[str, str, str]  # of the single flight
    future: Future[BlobResult]  # that other images wait for
    # Recorded by earlier runs; filled when the blob is mounted.
    recorded_repositories: list[str] = field(default_factory=list)


class BlobDeduplicator:
    """Transfers blobs of images. Any thread except the pool's workers: it waits for jobs."""

    def __init__(self, pool: WorkerPool, progress: ProgressSink | None, history: History) -> None:
        """Share ``pool``, and the known locations of blobs, among all images of a run."""
        self._pool = pool
        self._progress = progress
        self._history = history
        parent = pool.context.parent
        self._single_flight: SingleFlight[BlobResult] = (
            SingleFlight() if parent is None else SharedSingleFlight(parent)
        )
        self._lock = threading.Lock()  # guards the field below
        # Lost responses per mount scope at the last check.
        self._lost_responses: dict[str, int] = {}
        # Starts the transfer of a blob that no other image is transferring.
        self.starter: BlobStarter = BlobTransfer.start

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
        blobs = sorted(blobs, key=lambda blob: -blob.size)
        keys = [self._flight_key(job, blob) for blob in blobs]
        claims = self._single_flight.claim_all(keys)
        for blob, key, (is_owner, future) in zip(blobs, keys, claims, strict=True):
            if is_owner:
                flight = _OwnedBlob(job, blob, key, future)
                transfer = self._create_transfer(flight, self._choose_lookup(job, blob, lookups))
                started = self.starter(transfer, self._find_mount_sources(flight))
                started.add_done_callback(partial(self._complete, flight))
            (owned if is_owner else others).append((blob, future))
        size = sum(blob.size for blob, _ in owned + others)
        names = job.source_name, job.destination_name
        emit(self._progress, Event("image", *names, State.MOVING, 0, size))
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
                if destination.repository:
                    self._history.forget(
                        destination.mount_scope, destination.repository, blob.digest
                    )
        return present.count(False)

    def _choose_lookup(
        self, job: ImageJob, blob: Descriptor, lookups: Mapping[Digest, BlobLookup]
    ) -> BlobLookup:
        """Choose when to check for a blob; NEVER only if the registry probably lacks it."""
        destination, lookup = job.destination, lookups.get(blob.digest, BlobLookup.AFTER_MOUNT)
        if not destination.repository:
            return BlobLookup.AFTER_MOUNT if lookup is BlobLookup.NEVER else lookup
        recorded = self._history.find_repository(destination.mount_scope, blob.digest)
        if recorded == destination.repository and destination.looks_up_by_mount:
            return BlobLookup.BEFORE_MOUNT  # a HEAD, because a mount rewrites the blob's link
        if destination.was_empty and recorded != destination.repository:
            return BlobLookup.NEVER
        if lookup is BlobLookup.NEVER and (recorded or job.source.host == destination.host):
            return BlobLookup.AFTER_MOUNT
        return lookup

    def _forget_after_lost_response(self, destination: Destination) -> None:
        """Forget results of this run after a response was lost."""
        mount_scope, lost_responses = destination.mount_scope, destination.lost_response_count
        with self._lock:
            has_new_loss = self._lost_responses.get(mount_scope, 0) != lost_responses
            self._lost_responses[mount_scope] = lost_responses
        if has_new_loss:
            self._single_flight.forget_scope(mount_scope)

    def _flight_key(
        self, job: ImageJob, blob: Descriptor, *, in_repository: bool = False
    ) -> tuple[str, str, str]:
        """Return the single-flight key of a blob, in its mount scope or in its repository."""
        mount_scope, name = job.destination.mount_scope, job.destination.name
        return mount_scope, name if in_repository else "", str(blob.digest)

    def _complete(self, flight: _OwnedBlob, done: Future[BlobResult]) -> None:
        """Complete the future that other images wait for."""
        error = done.exception()
        if error is None:
            self._record_result(flight, done.result())
            self._single_flight.complete(flight.key, flight.future, done.result())
        else:
            self._single_flight.release(flight.key, flight.future)
            flight.future.set_exception(error)

    def _wait_or_mount(
        self, job: ImageJob, blob: Descriptor, future: Future[BlobResult], lookup: BlobLookup
    ) -> Future[BlobResult]:
        """Wait for another image's transfer of a blob, then mount the blob or transfer it."""
        sibling: str | None = None  # repository of the image that has transferred it
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
            sibling = result.repository
            key = self._flight_key(job, blob, in_repository=True)
        is_owner, new_future = self._single_flight.claim(key)
        if not is_owner:
            return self._wait_or_mount(job, blob, new_future, lookup)
        flight = _OwnedBlob(job, blob, key, new_future)
        if sibling is None:
            mount_sources: Iterable[str] = self._find_mount_sources(flight)
        else:
            mount_sources = [sibling] if sibling else []
        started = self.starter(self._create_transfer(flight, lookup), mount_sources)
        started.add_done_callback(partial(self._complete, flight))
        return new_future

    def _create_transfer(self, flight: _OwnedBlob, lookup: BlobLookup) -> BlobTransfer:
        job, blob = flight.job, flight.blob
        meter = Meter(
            self._progress,
            kind="blob",
            subject=str(blob.digest),
            target=job.destination.name,
            total=blob.size,
            image=job.source_name,
        )
        return BlobTransfer(
            source_for(job, blob),
            job.destination,
            blob,
            pool=self._pool,
            meter=meter,
            lookup=lookup,
        )

    def _find_mount_sources(self, flight: _OwnedBlob) -> Iterator[str]:
        """Yield repositories that had the blob before this run, to mount it from.

        Evaluated when the job runs: by then the mounts of other blobs have shown whether the
        recorded repositories are of any use.
        """
        job, blob = flight.job, flight.blob
        source, destination = job.source, job.destination
        if not destination.repository:
            return
        yield from job.mount_candidates(blob)
        if source.host == destination.host and source.repository:
            yield source.repository  # a copy within one registry needs no bytes
            return
        flight.recorded_repositories.extend(
            self._history.mount_sources(
                destination.mount_scope, blob.digest, destination.repository
            )
        )
        yield from flight.recorded_repositories

    def _record_result(self, flight: _OwnedBlob, result: BlobResult) -> None:
        """Record where a blob is, and whether mounting it by the history has worked."""
        if result.repository:
            mount_scope = flight.job.destination.mount_scope
            if flight.recorded_repositories:
                self._history.record_mount(mount_scope, mounted=result.state is State.MOUNTED)
            self._history.record_blob(mount_scope, result.repository, result.blob.digest)
