"""Repairs one image at its destination: copies again what a check found missing or damaged."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from concil.errors import (
    Cancelled,
    ConcilError,
    NotFound,
    StatusError,
    UsageError,
)
from concil.oci.descriptor import Descriptor
from concil.oci.digest import Digest
from concil.progress.events import Event, Meter, ProgressSink, State
from concil.transfer.blob.transfer import BlobLookup, BlobResult, BlobTransfer
from concil.transfer.check.blob_inspector import BlobInspector, content_key
from concil.transfer.check.image_checker import ImageChecker
from concil.transfer.findings import Condition, Finding, overall_condition
from concil.transfer.image.copier import ImageCopier
from concil.transfer.image.foreign_layers import source_for
from concil.transfer.image.job import ImageJob
from concil.transfer.image.result import ImageResult
from concil.transfer.single_flight import SingleFlight
from concil.transfer.worker_pool import Priority, WorkerPool, wait_for

logger = logging.getLogger(__name__)

_MAX_ROUNDS = 2  # a copy may show, or mount, another blob that is damaged
_BLOB_TYPE = "application/octet-stream"  # a finding does not keep that of the manifest


class ImageRepairer:
    """Repairs images, and finds out by a further check what has become of them.

    Any thread but a worker: it waits for jobs.
    """

    def __init__(
        self,
        pool: WorkerPool,
        progress: ProgressSink | None,
        checker: ImageChecker,
        inspector: BlobInspector,
    ) -> None:
        """Check with ``checker``, and copy with the threads of ``pool``."""
        self._pool = pool
        self._progress = progress
        self._checker = checker
        self._inspector = inspector
        # Its own: an engine's copier relies on what it has put before the damage. The events of
        # images are those of the check.
        blob_sink = None if progress is None else partial(_emit_blobs_only, progress)
        self._copier = ImageCopier(pool, blob_sink)
        # Why a blob could not be replaced, "" if it was: each is tried once for all images.
        self._single_flight: SingleFlight[str] = SingleFlight()

    def repair(self, job: ImageJob, checked: ImageResult) -> ImageResult:
        """Repair an image, and check it again.

        Returns:
            The result of the check. Findings that are gone are marked as repaired, the others
            have a remedy.
        """
        start_time = time.monotonic()
        job = replace(job, recheck=True, final_event_sink=None)
        remaining, sent = checked.findings, list[BlobResult]()
        remedies: dict[Digest, str] = {}
        copied: ImageResult | None = None
        failure = self._find_refusal(job)  # before a blob is replaced
        for _ in range(0 if failure else _MAX_ROUNDS):
            new_findings = [f for f in _blob_findings(remaining) if f.digest not in remedies]
            remedies |= {f.digest: self._replace_blob(job, f, sent) for f in new_findings}
            copied, failure = self._copy(job)
            sent += copied.blobs if copied is not None else ()
            for finding in _blob_findings(remaining):
                self._inspector.forget(job.destination, _blob_of(finding))
            remaining = self._checker.check(job).findings
            if all(finding.digest in remedies for finding in _blob_findings(remaining)):
                break
        findings = _merge(checked.findings, remaining, remedies, failure)
        condition = overall_condition(findings)
        return replace(
            checked if copied is None else copied,
            state=State.DONE if condition is Condition.OK else State.WAITING,
            blobs=tuple(sent),
            seconds=checked.seconds + time.monotonic() - start_time,
            condition=condition,
            findings=findings,
        )

    def _find_refusal(self, job: ImageJob) -> str:
        """Return why the verifier of the job does not accept the image; "" if it does."""
        if job.verifier is None:
            return ""
        try:
            self._copier.verify(job)
        except Cancelled:
            raise
        except ConcilError as error:
            return _describe(error)
        return ""

    def _copy(self, job: ImageJob) -> tuple[ImageResult | None, str]:
        """Copy what lookups find missing; return the result, or None and the reason."""
        try:
            return self._copier.copy(job), ""
        except Cancelled:
            raise
        except ConcilError as error:
            logger.debug("%s: not repaired: %s", job.destination_name, error)
            return None, _describe(error)

    def _replace_blob(self, job: ImageJob, finding: Finding, sent: list[BlobResult]) -> str:
        """Replace a blob that the destination believes to have; return why that failed, or ""."""
        key = content_key(job.destination), finding.digest
        is_owner, future = self._single_flight.claim(key)
        if not is_owner:
            return wait_for(future, self._pool.cancel)
        try:
            reason = self._overwrite_if_stored(job, finding, sent)
        except BaseException as error:
            self._single_flight.release(key, future)
            future.set_exception(error)
            raise
        self._single_flight.complete(key, future, reason)
        return reason

    def _overwrite_if_stored(self, job: ImageJob, finding: Finding, sent: list[BlobResult]) -> str:
        blob = _blob_of(finding)
        try:
            if finding.condition is Condition.MISSING:
                # Another image may have repaired it meanwhile; else a HEAD was wrong.
                is_stored = job.destination.has_blob(blob)
                if not is_stored or not self._is_wrong(job, blob):
                    return ""  # the copy sends it, or mounts it
            return self._overwrite(job, blob, sent)
        except Cancelled:
            raise
        except ConcilError as error:
            return _describe(error)

    def _overwrite(self, job: ImageJob, blob: Descriptor, sent: list[BlobResult]) -> str:
        """Send a blob that the destination has; if it keeps its bytes, delete it and send again.

        It is deleted only after the source has shown that it can replace it.
        """
        error = self._send(job, blob, sent)
        if not self._is_wrong(job, blob):
            return ""
        if error is not None:
            at_source = self._read(job, blob, is_source=True)
            if at_source is not None:
                return f"the source cannot replace it: {at_source.detail}"
        return self._send_after_delete(job, blob, sent)

    def _send_after_delete(self, job: ImageJob, blob: Descriptor, sent: list[BlobResult]) -> str:
        try:
            job.destination.delete_blob(blob.digest)
        except NotFound:
            pass  # it can be sent
        except (UsageError, StatusError) as error:
            reason = f"the destination keeps the damaged blob, and cannot delete it ({error})"
            return f"{reason}: {remedy_of_storage(blob.digest)}"
        failure = self._send(job, blob, sent)
        if not self._is_wrong(job, blob):
            return ""
        if failure is not None:
            return _describe(failure)
        return (
            "the registry keeps the damaged file, even after a DELETE and a new upload: "
            f"{remedy_of_storage(blob.digest)}"
        )

    def _send(self, job: ImageJob, blob: Descriptor, sent: list[BlobResult]) -> ConcilError | None:
        """Send a blob in any case; return why that failed."""
        meter = Meter(
            self._progress,
            kind="blob",
            subject=str(blob.digest),
            target=job.destination.name,
            total=blob.size,
        )
        source, lookup = source_for(job, blob), BlobLookup.OVERWRITE
        transfer = BlobTransfer(
            source, job.destination, blob, pool=self._pool, meter=meter, lookup=lookup
        )
        try:
            sent.append(wait_for(transfer.start(), self._pool.cancel))
        except Cancelled:
            raise
        except ConcilError as error:
            logger.debug("%s: %s", job.destination_name, error)
            return error
        return None

    def _is_wrong(self, job: ImageJob, blob: Descriptor) -> bool:
        return self._read(job, blob) is not None

    def _read(self, job: ImageJob, blob: Descriptor, *, is_source: bool = False) -> Finding | None:
        store = job.source if is_source else job.destination
        read = partial(self._inspector.read, store, blob)
        hosts = (store.host,)
        queued = self._pool.submit(read, priority=Priority.BLOB, size=blob.size, hosts=hosts)
        return wait_for(queued, self._pool.cancel)


def remedy_of_storage(digest: Digest) -> str:
    """Return what helps where a registry neither replaces nor deletes damaged content."""
    return (
        f"remove blobs/{digest.algorithm}/{digest.hex[:2]}/{digest.hex} from the registry's "
        "storage (docker-registry keeps it below docker/registry/v2), then repair again"
    )


def _merge(
    before: Iterable[Finding],
    remaining: Sequence[Finding],
    remedies: Mapping[Digest, str],
    failure: str,
) -> tuple[Finding, ...]:
    """Return the findings before the repair that are gone, and those that remain."""
    keys = {(finding.kind, finding.digest) for finding in remaining}
    repaired = [
        replace(finding, is_repaired=True)
        for finding in before
        if (finding.kind, finding.digest) not in keys
    ]
    return *repaired, *(_with_remedy(finding, remedies, failure) for finding in remaining)


def _with_remedy(finding: Finding, remedies: Mapping[Digest, str], failure: str) -> Finding:
    remedy = remedies.get(finding.digest, "") or failure
    if finding.kind == "manifest" and finding.condition is Condition.DAMAGED:
        remedy = f"the registry keeps the damaged file: {remedy_of_storage(finding.digest)}"
    return replace(finding, remedy=remedy)


def _blob_findings(findings: Iterable[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.kind == "blob"]


def _blob_of(finding: Finding) -> Descriptor:
    return Descriptor(_BLOB_TYPE, finding.digest, finding.size or 0)


def _describe(error: ConcilError) -> str:
    return f"{error}; {error.remedy}" if error.remedy else str(error)


def _emit_blobs_only(sink: ProgressSink, event: Event) -> None:
    if event.kind != "image":
        sink(event)
