"""Finds out whether a store has blobs, by requests or by reading every byte."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future
from functools import partial
from typing import TypeAlias

import requests

from concil.errors import (
    Cancelled,
    ConcilError,
    ContentError,
    DigestMismatch,
    LimitReached,
    NotFound,
    SizeMismatch,
    StatusError,
    StoreError,
)
from concil.oci.descriptor import Descriptor
from concil.oci.digest import Digest, Verifier
from concil.progress.events import Meter, ProgressSink, State
from concil.store.protocols import Destination, Store
from concil.transfer.blob.resuming_reader import EarlyEnd, ResumingReader
from concil.transfer.blob.source import BlobSource
from concil.transfer.check.hash_progress import SAVE_INTERVAL, HashProgress
from concil.transfer.check.verified_blobs import VerifiedBlobs
from concil.transfer.findings import Condition, Finding
from concil.transfer.single_flight import SingleFlight
from concil.transfer.worker_pool import Priority, WorkerPool, wait_for

_Key: TypeAlias = tuple[str, Digest, int]


class BlobInspector:
    """Inspects each blob of a repository or layout once for all images of a check.

    Any thread may call any method, except `inspect`, which waits for workers.
    """

    def __init__(
        self, pool: WorkerPool, progress: ProgressSink | None, verified: VerifiedBlobs | None
    ) -> None:
        """Inspect with the threads of ``pool``.

        Args:
            verified: records the blobs that were read; None: look blobs up and read none.
        """
        self._pool = pool
        self._progress = progress
        self._verified = verified
        self._single_flight: SingleFlight[Finding | None] = SingleFlight()

    def inspect(self, store: Destination, blobs: Iterable[Descriptor]) -> list[Finding]:
        """Return a finding for each blob that is missing or damaged.

        Raises:
            ConcilError: a blob could neither be read nor found missing.
        """
        futures = []
        for blob in sorted(blobs, key=lambda blob: -blob.size):
            key = _key(store, blob)
            is_owner, future = self._single_flight.claim(key)
            if is_owner:
                self._submit(store, blob, key, future)
            futures.append(future)
        findings = [wait_for(future, self._pool.cancel) for future in futures]
        return [finding for finding in findings if finding is not None]

    def forget(self, store: Destination, blob: Descriptor) -> None:
        """Inspect a blob again when it is next asked for."""
        self._single_flight.forget(_key(store, blob))

    def read(
        self, store: Store, blob: Descriptor, progress: HashProgress | None = None
    ) -> Finding | None:
        """Read every byte of a blob; None: the bytes are right. The job of a worker.

        Wrong bytes are read once more: the connection may have changed them.

        Args:
            progress: continues a read that was interrupted; None: start at byte 0.
        """
        meter = self._meter(store, blob)
        meter.set_state(State.STARTED, position=0)
        finding: Finding | None = None
        try:
            self._hash_twice(store, blob, meter, progress)
        except DigestMismatch as error:
            detail = f"its bytes hash to {error.actual_digest}"
            finding = Finding(Condition.DAMAGED, "blob", blob.digest, blob.size, detail)
        except ConcilError as error:
            finding = _finding_of_error(blob, error)
            if finding is None:
                meter.report_failure(error)
                raise
        if finding is None:
            meter.set_state(State.DONE, position=blob.size)
        else:
            meter.set_state(State.FAILED, detail=f"{finding.condition}: {finding.detail}")
        return finding

    def _hash_twice(
        self, store: Store, blob: Descriptor, meter: Meter, progress: HashProgress | None
    ) -> None:
        """Read and verify a blob; after wrong bytes from a registry read it once more."""
        try:
            self._hash(store, blob, meter, progress)
        except DigestMismatch:
            if not store.host and (progress is None or not progress.start):
                raise
            if progress is not None:
                progress.start = 0
            detail = "the content did not match its digest"
            meter.set_state(State.RETRYING, position=0, detail=detail)
            self._hash(store, blob, meter)

    def _submit(
        self, store: Destination, blob: Descriptor, key: _Key, future: Future[Finding | None]
    ) -> None:
        hosts = (store.host,)
        if self._verified is None:
            look_up = partial(_look_up, store, blob)
            job = self._pool.submit(look_up, priority=Priority.REQUEST, hosts=hosts)
        elif self._verified.claim(key[0], blob.digest, blob.size):
            # It may have been lost since, which costs a request to find out, and no byte.
            look_up = partial(_look_up, store, blob)
            job = self._pool.submit(look_up, priority=Priority.REQUEST, hosts=hosts)
        else:
            self._meter(store, blob).set_state(State.WAITING, position=0)
            read = partial(self._read_and_record, store, blob, self._verified)
            job = self._pool.submit(read, priority=Priority.BLOB, size=blob.size, hosts=hosts)
        job.add_done_callback(partial(self._complete, key, future))

    def _read_and_record(
        self, store: Destination, blob: Descriptor, verified: VerifiedBlobs
    ) -> Finding | None:
        key = content_key(store), blob.digest
        progress = None
        if blob.size > SAVE_INTERVAL and blob.digest.algorithm == "sha256":
            hash_state = verified.find_hash_state(*key)
            progress = HashProgress(hash_state, partial(verified.save_hash_state, *key))
        finding = self.read(store, blob, progress)
        if finding is None:
            start = progress.start if progress is not None else 0
            verified.record(*key, blob.size, start=start)
        else:
            verified.forget(*key)
        return finding

    def _complete(
        self, key: _Key, future: Future[Finding | None], job: Future[Finding | None]
    ) -> None:
        """Complete the future that the images wait for."""
        cancelled = Cancelled("cancelled before it started") if job.cancelled() else None
        error = cancelled or job.exception()
        if error is None:
            self._single_flight.complete(key, future, job.result())
        else:
            self._single_flight.release(key, future)
            future.set_exception(error)

    def _hash(
        self,
        store: Store,
        blob: Descriptor,
        meter: Meter,
        progress: HashProgress | None = None,
    ) -> None:
        """Read a blob from its first byte to its last, keeping nothing, and verify it."""
        context = self._pool.context
        source = BlobSource.in_store(store, blob)
        throttled = source.throttled(context.bandwidth, "", context.cancel)
        verifier = Verifier(blob.digest.algorithm)
        if progress is not None:
            verifier = progress.begin(blob.size)
            meter.report_resume(verifier.position)

        def report_loss(error: ConcilError) -> None:
            meter.set_state(State.RETRYING, detail=str(error))

        reader = ResumingReader(throttled.open, blob.size, context, source.name, report_loss)
        if not blob.size:  # nothing would be opened
            store.open_blob(blob).close()
        reader.seek(verifier.position)
        try:
            with context.buffer_pool.borrow() as buffer:
                while (count := reader.readinto(buffer)) > 0:
                    verifier.update(buffer[:count])
                    meter.advance(count)
                    if progress is not None:
                        progress.update(verifier)
                    if context.cancel.is_set():
                        raise Cancelled(f"{source.name}: cancelled")
        except EarlyEnd as error:
            # A registry that caches sizes announces the bytes of a file that is gone or shorter.
            raise SizeMismatch(f"it ends at byte {verifier.position} of {blob.size}") from error
        finally:
            reader.close()
            if progress is not None and verifier.position < blob.size:
                progress.save(verifier)
        verifier.verify(blob.digest, blob.size, source.name)

    def _meter(self, store: Store, blob: Descriptor) -> Meter:
        return Meter(
            self._progress,
            kind="blob",
            subject=str(blob.digest),
            target=store.name,
            total=blob.size,
        )


def content_key(store: Destination) -> str:
    """Return a name of the place where a store keeps its blobs, the same in each process."""
    return store.name if store.host else store.mount_scope


def _key(store: Destination, blob: Descriptor) -> _Key:
    return content_key(store), blob.digest, blob.size


def _look_up(store: Destination, blob: Descriptor) -> Finding | None:
    """Find out without reading a blob whether a store has it: a HEAD, at a registry."""
    try:
        if store.has_blob(blob):
            return None
        # The reason why it is not there as it should be.
        store.open_blob(blob).close()
    except ConcilError as error:
        finding = _finding_of_error(blob, error)
        if finding is None:
            raise
        return finding
    return None


def _finding_of_error(blob: Descriptor, error: ConcilError) -> Finding | None:
    """Return what an error says of a blob; None: it says nothing."""
    condition = condition_of_error(error)
    if condition is None:
        return None
    detail = "it does not exist" if condition is Condition.MISSING else str(error)
    return Finding(condition, "blob", blob.digest, blob.size, detail)


def condition_of_error(error: ConcilError) -> Condition | None:
    """Return what an error on reading content says of that content; None: it says nothing."""
    if isinstance(error, NotFound):
        return Condition.MISSING
    is_file_error = isinstance(error, StoreError) and not isinstance(error, LimitReached)
    # Distribution's response for a file or link that it cannot read.
    is_server_error = isinstance(error, StatusError) and error.status == requests.codes.server_error
    if is_file_error or is_server_error or isinstance(error, ContentError):
        return Condition.DAMAGED
    return None
