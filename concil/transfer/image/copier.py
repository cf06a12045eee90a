"""Copies one image: blobs, then manifests, the tag last."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

from concil.errors import ConcilError, StatusError
from concil.oci.descriptor import Descriptor
from concil.oci.manifest import Digest, Manifest
from concil.progress.events import Event, ProgressSink, State, emit
from concil.retry import backoff_delay, sleep_or_raise
from concil.transfer.blob.transfer import BlobResult
from concil.transfer.image.compare import compare_image
from concil.transfer.image.dedup import BlobDeduplicator
from concil.transfer.image.graph import GraphReader, Node
from concil.transfer.image.history import CopiedImage, History
from concil.transfer.image.job import (
    ForeignLayers,
    ImageJob,
    ImagePlan,
    RootManifest,
    image_name,
)
from concil.transfer.image.level_reader import LevelReader, RootReader
from concil.transfer.image.manifest_cache import ManifestCache
from concil.transfer.image.publish import publish
from concil.transfer.image.referrers import (
    ReferrerCollector,
    ReferrerContext,
    ReferrersTagError,
    is_referrers_tag,
)
from concil.transfer.image.result import ImageResult, build_result
from concil.transfer.single_flight import SingleFlight, exclusive
from concil.transfer.worker_pool import WorkerPool

__all__ = ["ForeignLayers", "ImageCopier", "ImageJob", "image_name"]

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
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
        self.root_reader = RootReader(self._level_reader)
        self.deduplicator = BlobDeduplicator(pool, progress, self._history)

    def copy(self, job: ImageJob) -> ImageResult:
        """Copy one image; nothing is transferred if both sides have the same digest already.

        It waits for jobs of the pool, so a worker of the pool must not call it.

        Raises:
            NotFound: the source has no such image or platform.
            ReferrersTagError: it is a list of referrers, and referrers are copied.
            ConcilError: it could not be copied; its tag was not written.
        """
        start_time = time.monotonic()
        try:
            result = self._copy_image(job, start_time)
        except ReferrersTagError:
            raise  # a mirror does not count it as a failure
        except ConcilError as error:
            self._emit_state(job, State.FAILED, 0, str(error))
            raise
        names = job.source_name, job.destination_name
        event = Event("image", *names, result.state, result.bytes_sent, None, "")
        emit(job.final_event_sink or self._progress, event)
        return result

    def _copy_image(self, job: ImageJob, start_time: float) -> ImageResult:
        source, existing, digest = compare_image(job, self._history)
        if source is None or (digest is not None and not job.referrers and not job.recheck):
            assert digest is not None  # noqa: S101 - for the type checker
            if job.immutable and source is not None:
                self._history.record_image(job.key, CopiedImage(source.digest, digest))
            return ImageResult(job.source_name, job.destination_name, State.PRESENT, digest)
        if job.referrers and is_referrers_tag(job.source_reference, source.digest):
            raise ReferrersTagError(source.digest, job.source_name)
        if digest is None:
            self._emit_state(job, State.STARTED, 0, "")
        image = (job.destination.mount_scope, job.destination.name, source.digest, job.platforms)
        with exclusive(self._single_flight, image, self._pool.cancel):
            root = self.root_reader.read_root(job, source, digest)
            if root.manifest is not None:
                job.destination.check(root.manifest)
            result = self._copy_changed(job, root, existing, start_time)
        if root.source_digest == source.digest:  # else the tag has moved meanwhile
            self._history.record_image(job.key, CopiedImage(source.digest, root.descriptor.digest))
        return result

    def _copy_changed(
        self, job: ImageJob, root: RootManifest, existing: Descriptor | None, start_time: float
    ) -> ImageResult:
        """Copy an image whose tag is missing or out of date, and its referrers."""
        lost_responses = job.destination.lost_response_count
        plan = ImagePlan(None, (), root.notes, is_new=existing is None)
        digest = root.descriptor.digest
        is_same = existing is not None and existing.digest == digest
        if root.manifest is not None and (job.recheck or not is_same):
            # Referrers must be in place before the tag makes the image visible.
            if not (job.referrers or job.recheck) and self._put_tag_only(
                job, root.manifest, digest
            ):
                seconds = time.monotonic() - start_time
                names = job.source_name, job.destination_name
                return ImageResult(*names, State.DONE, digest, (), 1, seconds, root.notes)
            may_be_present = job.recheck or existing is not None
            may_be_present = may_be_present or self._level_reader.is_known(job.destination, digest)
            fetch = partial(self._level_reader.read_level, job, may_be_present=may_be_present)
            is_present = root.is_present or (
                is_same and self._level_reader.get_present(job, digest) is not None
            )
            node = GraphReader(fetch, job.source_name).read(
                root.manifest, digest, is_present=is_present
            )
            plan = replace(plan, node=node)
        plan = self._add_referrers(job, plan, root)
        if is_same and plan.missing_manifests:
            self._emit_state(job, State.STARTED, 0, "")
        if plan.node is None and plan.referrers:
            plan = self._add_baseline_image(job, plan, root)
        results = self._execute(job, plan)
        self._record_manifests(job, plan, lost_responses)
        return build_result(job, plan, digest, results, start_time)

    def _add_referrers(self, job: ImageJob, plan: ImagePlan, root: RootManifest) -> ImagePlan:
        """Add the referrers of the image that the destination lacks."""
        if not job.referrers:
            return plan
        fetch = partial(self._level_reader.read_level, job, may_be_present=True)
        context = ReferrerContext(
            partial(self._run_all, job), fetch, partial(self._level_reader.get_present, job)
        )
        collector = ReferrerCollector(job, context)
        manifests = {node.digest: node.manifest for node in plan.nodes()}
        digests = collector.list_manifests([root.descriptor], manifests)
        if root.full_index_digest is not None:
            collector.warn_skipped(root.full_index_digest)
            digests.remove(root.descriptor.digest)
        referrers = collector.collect(digests)
        return replace(plan, referrers=referrers, notes=(*plan.notes, *collector.notes))

    def _add_baseline_image(self, job: ImageJob, plan: ImagePlan, root: RootManifest) -> ImagePlan:
        """Add an image that is in the baseline only: its new referrers need it as a subject."""
        destination, reference = job.destination, job.destination_reference
        if not destination.is_only_in_baseline(reference):
            return plan
        manifest = root.manifest or self.root_reader.read_root(job, root.descriptor).manifest
        assert manifest is not None  # noqa: S101 - for the type checker
        node = GraphReader(partial(self._level_reader.read_level, job), job.source_name).read(
            manifest, root.descriptor.digest
        )
        blobs = (blob.digest for descendant in node.walk() for blob in descendant.listed_blobs())
        destination.add_baseline_blobs(reference, blobs)
        return replace(plan, node=node)

    def _put_tag_only(self, job: ImageJob, root: Manifest, digest: Digest) -> bool:
        """Write only the tag if this run has put the image already; return whether it did."""
        destination = job.destination
        if not destination.repository or ":" in job.destination_reference:
            return False
        if not self._level_reader.is_confirmed(destination, digest):
            return False
        try:
            destination.put_manifest(root, job.destination_reference)
        except StatusError as error:
            logger.info("%s: %s; checking all of it", job.destination_name, error)
            return False
        return True

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

    def _run_all(self, job: ImageJob, calls: Sequence[Callable[[], Result]]) -> list[Result]:
        return self._pool.run_all(calls, (job.source.host, job.destination.host))

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
                checked_plan = self._check_again(job, plan)
                missing_count = self.deduplicator.forget_missing(
                    job, checked_plan.blobs(job.foreign_layers).values()
                )
                is_more_missing = _missing_digests(checked_plan) - _missing_digests(plan)
                if not missing_count and not is_more_missing and not _is_missing_content(error):
                    raise
                plan, lookups = checked_plan, {}
        return results

    def _check_again(self, job: ImageJob, plan: ImagePlan) -> ImagePlan:
        """Check every manifest of a plan at the destination, ignoring the history."""
        fetch = partial(
            self._level_reader.read_level, job, may_be_present=True, skip_confirmed=False
        )

        def check(node: Node) -> Node:
            reader = GraphReader(fetch, job.source_name)
            return reader.read(node.manifest, node.digest, is_present=node.is_present)

        referrers = tuple(
            replace(referrer, node=check(referrer.node)) for referrer in plan.referrers
        )
        node = check(plan.node) if plan.node is not None else None
        return replace(plan, node=node, referrers=referrers)

    def _emit_state(self, job: ImageJob, state: State, bytes_sent: int, detail: str) -> None:
        emit(
            self._progress,
            Event("image", job.source_name, job.destination_name, state, bytes_sent, None, detail),
        )


def _missing_digests(plan: ImagePlan) -> set[Digest]:
    """Return the digests of the manifests that have to be put."""
    return {node.digest for node in plan.nodes() if not node.is_present}


def _is_missing_content(error: StatusError) -> bool:
    """Whether the error code of a refused manifest says that its content is missing."""
    return any(code in str(error) for code in _MISSING_CONTENT_CODES)
