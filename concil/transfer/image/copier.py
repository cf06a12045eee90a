"""Copies one image: blobs, then manifests, the tag last."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator

from concil.errors import ConcilError, StatusError
from concil.oci.manifest import Digest
from concil.progress.events import Event, ProgressSink, State, emit, failure_state
from concil.retry import backoff_delay, sleep_or_raise
from concil.transfer.blob.transfer import BlobResult
from concil.transfer.image.compare import ComparedImage, PresentImage
from concil.transfer.image.dedup import BlobDeduplicator
from concil.transfer.image.history import CopiedImage, History
from concil.transfer.image.job import (
    ForeignLayers,
    ImageJob,
    ImagePlan,
    RootManifest,
    image_name,
)
from concil.transfer.image.level_reader import LevelReader
from concil.transfer.image.manifest_cache import ManifestCache
from concil.transfer.image.planner import ImagePlanner
from concil.transfer.image.publish import publish
from concil.transfer.image.referrers import ReferrersTagError
from concil.transfer.image.result import ImageResult, build_result
from concil.transfer.signatures.verified_images import VerifiedImages
from concil.transfer.single_flight import SingleFlight, exclusive
from concil.transfer.worker_pool import WorkerPool

__all__ = ["ForeignLayers", "ImageCopier", "ImageJob", "image_name"]

logger = logging.getLogger(__name__)

_MAX_ATTEMPTS = 3  # including the first
# Refusals of a manifest that refers to missing content; some registries use their own codes.
_MISSING_CONTENT_STATUS = frozenset({400, 404, 409, 412, 422})
_MISSING_CONTENT_CODES = ("BLOB_UNKNOWN", "MANIFEST_UNKNOWN")


class ImageCopier:
    """Copies images on one pool, transferring each shared blob once. Any thread."""

    def __init__(self, pool: WorkerPool, progress: ProgressSink | None) -> None:
        """Share ``pool``, and the known locations of blobs, among all copies of a run."""
        self._pool = pool
        self._progress = progress
        self._single_flight: SingleFlight[None] = SingleFlight()
        self._history = History(pool.context.journal)
        self._level_reader = LevelReader(pool, ManifestCache(), self._history)
        verified = VerifiedImages(pool.context.journal)
        self._planner = ImagePlanner(pool, self._history, self._level_reader, verified)
        self.deduplicator = BlobDeduplicator(pool, progress, self._history)

    @property
    def history(self) -> History:
        """What earlier runs have recorded."""
        return self._history

    @property
    def manifest_cache(self) -> ManifestCache:
        """Manifests that were read lately."""
        return self._level_reader.manifest_cache

    def copy(self, job: ImageJob) -> ImageResult:
        """Copy one image; nothing is transferred if both sides have the same digest already.

        It waits for jobs of the pool, so a worker of the pool must not call it.

        Raises:
            NotFound: the source has no such image or platform.
            UntrustedImage: it has no signature that is accepted; nothing was written.
            ReferrersTagError: it is a list of referrers, and referrers are copied.
            ConcilError: it could not be copied; its tag was not written.
        """
        start_time = time.monotonic()
        with self._report_failure(job):
            compared = self._planner.compare(job)
            if isinstance(compared, PresentImage):
                self._planner.verify_present(job, compared)
                result = self._accept_present(job, compared)
            else:
                if compared.present_digest is None:
                    self._emit_state(job, State.STARTED, 0, "")
                with exclusive(self._single_flight, _flight_key(job, compared), self._pool.cancel):
                    root = self._planner.read_root(job, compared)
                    self._planner.verify(job, compared, root)
                    lost_responses = job.destination.lost_response_count
                    tagged = self._put_tag_only(job, compared, root, start_time)
                    if tagged is not None:
                        result = tagged
                    else:
                        plan = self._planner.plan(job, compared, root)
                        if plan.missing_manifests and compared.is_tagged(root.descriptor.digest):
                            self._emit_state(job, State.STARTED, 0, "")
                        results = self._execute(job, plan)
                        self._record_manifests(job, plan, lost_responses)
                        digest = root.descriptor.digest
                        result = build_result(job, plan, digest, results, start_time)
                self._record_image(job, compared, root)
        names = job.source_name, job.destination_name
        event = Event("image", *names, result.state, result.bytes_sent, None, "")
        emit(job.final_event_sink or self._progress, event)
        return result

    def verify(self, job: ImageJob) -> None:
        """Verify an image without copying it.

        Raises:
            UntrustedImage: it has no signature that is accepted.
            ConcilError: its manifest or signatures could not be read.
        """
        compared = self._planner.compare(job)
        if isinstance(compared, PresentImage):
            self._planner.verify_present(job, compared)
        else:
            self._planner.verify(job, compared, self._planner.read_root(job, compared))

    def _accept_present(self, job: ImageJob, present: PresentImage) -> ImageResult:
        """Return the result for an image that is up to date."""
        if job.immutable and present.source_digest is not None:
            copied = CopiedImage(present.source_digest, present.digest)
            self._history.record_image(job.key, copied)
        return ImageResult(job.source_name, job.destination_name, State.PRESENT, present.digest)

    def _put_tag_only(
        self, job: ImageJob, compared: ComparedImage, root: RootManifest, start_time: float
    ) -> ImageResult | None:
        """Write only the tag if this run has put the image already; None: it did not."""
        destination, digest = job.destination, root.descriptor.digest
        if root.manifest is None or compared.is_tagged(digest) or job.referrers or job.recheck:
            return None  # referrers must be in place before the tag makes the image visible
        if not destination.repository or ":" in job.destination_reference:
            return None
        if not self._level_reader.is_confirmed(destination, digest):
            return None
        try:
            destination.put_manifest(root.manifest, job.destination_reference)
        except StatusError as error:
            logger.info("%s: %s; checking all of it", job.destination_name, error)
            return None
        seconds = time.monotonic() - start_time
        names = job.source_name, job.destination_name
        return ImageResult(*names, State.DONE, digest, (), 1, seconds, root.notes)

    def _record_image(self, job: ImageJob, compared: ComparedImage, root: RootManifest) -> None:
        """Record the digests of a copied image, unless its tag has moved meanwhile."""
        if root.source_digest == compared.source.digest:
            copied = CopiedImage(compared.source.digest, root.descriptor.digest)
            self._history.record_image(job.key, copied)

    def _record_manifests(self, job: ImageJob, plan: ImagePlan, lost_responses: int) -> None:
        """Record the manifests of an image that were put, or found complete.

        Args:
            lost_responses: responses that were lost before the image was checked.
        """
        destination = job.destination
        if destination.repository:
            for node in plan.nodes():
                self._history.record_manifest(
                    destination.mount_scope, destination.repository, node.digest, lost_responses
                )

    def _execute(self, job: ImageJob, plan: ImagePlan) -> list[BlobResult]:
        """Transfer the blobs and put the manifests; retry if content has gone missing.

        Distribution 2.8 may report blobs as missing for a while after another client wrote the
        same ones. Or the registry has lost blobs or children of an index that were copied.
        """
        results: list[BlobResult] = []
        lookups = plan.blob_lookups()
        for attempt in range(1, _MAX_ATTEMPTS + 1):
            blobs = plan.blobs(job.foreign_layers).values()
            attempt_results = self.deduplicator.transfer(job, blobs, lookups)
            results += [result for result in attempt_results if attempt == 1 or result.bytes_sent]
            try:
                publish(job, plan)
                break
            except StatusError as error:
                may_be_missing = error.status in _MISSING_CONTENT_STATUS or _is_missing_content(
                    error
                )
                if attempt == _MAX_ATTEMPTS or not may_be_missing:
                    raise
                logger.warning("%s: %s; checking all of it again", job.source_name, error)
                sleep_or_raise(
                    backoff_delay(self._pool.context.config.retry, attempt), self._pool.cancel
                )
                checked_plan = self._planner.check_again(job, plan)
                missing_count = self.deduplicator.forget_missing(
                    job, checked_plan.blobs(job.foreign_layers).values()
                )
                is_more_missing = _missing_digests(checked_plan) - _missing_digests(plan)
                if not missing_count and not is_more_missing and not _is_missing_content(error):
                    raise
                plan, lookups = checked_plan, {}
        return results

    @contextlib.contextmanager
    def _report_failure(self, job: ImageJob) -> Iterator[None]:
        """Emit an event if the block fails."""
        try:
            yield
        except ReferrersTagError:
            raise  # a mirror does not count it as a failure
        except ConcilError as error:
            self._emit_state(job, failure_state(error), 0, error.summary)
            raise

    def _emit_state(self, job: ImageJob, state: State, bytes_sent: int, detail: str) -> None:
        emit(
            self._progress,
            Event("image", job.source_name, job.destination_name, state, bytes_sent, None, detail),
        )


def _flight_key(job: ImageJob, compared: ComparedImage) -> tuple[object, ...]:
    """Return the key under which only one coordinator at a time copies an image."""
    destination = job.destination
    return destination.mount_scope, destination.name, compared.source.digest, job.platforms


def _missing_digests(plan: ImagePlan) -> set[Digest]:
    """Return the digests of the manifests that have to be put."""
    return {node.digest for node in plan.nodes() if not node.is_present}


def _is_missing_content(error: StatusError) -> bool:
    """Whether the error code of a refused manifest says that its content is missing."""
    return any(code in str(error) for code in _MISSING_CONTENT_CODES)
