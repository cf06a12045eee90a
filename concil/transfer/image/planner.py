"""Plans the copy of one image: what has to be written, found with GET and HEAD requests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

from concil.oci.manifest import Digest, Manifest
from concil.runtime.dataclass import dataclass
from concil.transfer.image.compare import ComparedImage, PresentImage, compare_image
from concil.transfer.image.graph import GraphReader, Node
from concil.transfer.image.history import History
from concil.transfer.image.job import ImageJob, ImagePlan, RootManifest
from concil.transfer.image.level_reader import LevelReader, RootReader
from concil.transfer.image.referrers import (
    ReferrerCollector,
    ReferrerContext,
    ReferrersTagError,
    is_referrers_tag,
)
from concil.transfer.signatures.verified_images import VerifiedImages
from concil.transfer.signatures.verifier import SignatureReader
from concil.transfer.worker_pool import WorkerPool

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class ImagePlanner:
    """Plans copies of images. Any thread but a worker: it waits for jobs."""

    pool: WorkerPool
    history: History  # of earlier copies of the images
    level_reader: LevelReader
    verified: VerifiedImages
    is_dry_run: bool = False  # check all content, and write no notes

    def compare(self, job: ImageJob) -> PresentImage | ComparedImage:
        """Compare the image at both sides.

        Raises:
            NotFound: the source has no such image.
            ReferrersTagError: it is a list of referrers, which is copied with its image, or has
                no signature of its own.
        """
        compared = compare_image(job, self.history, self.level_reader.manifest_cache)
        if isinstance(compared, ComparedImage) and (job.referrers or job.verifier is not None):
            digest = compared.source.digest
            if is_referrers_tag(job.source_reference, digest):
                raise ReferrersTagError(digest, job.source_name)
        return compared

    def read_root(self, job: ImageJob, compared: ComparedImage) -> RootManifest:
        """Read the top manifest of the image.

        Raises:
            NotFound: the source has no such platform.
            UsageError: the destination cannot store such an image.
        """
        reader = RootReader(self.level_reader)
        root = reader.read_root(job, compared.source, compared.present_digest)
        if root.manifest is not None:
            job.destination.check(root.manifest)
        return root

    def verify_present(self, job: ImageJob, present: PresentImage) -> None:
        """Verify an image that is up to date, unless an earlier run has done so.

        An image that is left as it is, whatever it is, is not verified.

        Raises:
            UntrustedImage: it has no signature that the job's verifier accepts.
        """
        source_digest = present.source_digest or present.recorded_source_digest
        if source_digest is not None:
            self._verify(job, source_digest, present.digest, is_present=True)

    def verify(self, job: ImageJob, compared: ComparedImage, root: RootManifest) -> None:
        """Verify the image that is about to be copied: the digests of what was read.

        The signature of an index is that of each manifest which it lists.

        Raises:
            UntrustedImage: it has no signature that the job's verifier accepts.
        """
        is_present = compared.present_digest is not None and not job.recheck
        self._verify(job, root.source_digest, root.descriptor.digest, is_present=is_present)

    def _verify(self, job: ImageJob, *digests: Digest | None, is_present: bool) -> None:
        if job.verifier is None:
            return
        reader = SignatureReader(
            job.source,
            job.source_reference,
            job.source_name,
            self.pool.context,
            job.source.may_read_unannounced(is_single=job.is_single),
        )
        self.verified.verify(job.verifier, reader, digests, is_present=is_present)

    def plan(self, job: ImageJob, compared: ComparedImage, root: RootManifest) -> ImagePlan:
        """Read the graph of the image and its referrers, as far as the destination lacks them."""
        plan = ImagePlan(None, (), root.notes, is_new=compared.existing is None)
        is_tagged = compared.is_tagged(root.descriptor.digest)
        if root.manifest is not None and (job.recheck or not is_tagged):
            plan = replace(plan, node=self._read_graph(job, compared, root.manifest, root))
        if job.referrers:
            plan = self._add_referrers(job, plan, root)
        if plan.node is None and plan.referrers:
            plan = self._add_baseline_image(job, plan, root)
        return plan

    def check_again(self, job: ImageJob, plan: ImagePlan) -> ImagePlan:
        """Check every manifest of a plan at the destination, ignoring the history."""
        fetch = partial(
            self.level_reader.read_level, job, may_be_present=True, skip_confirmed=False
        )

        def check(node: Node) -> Node:
            reader = GraphReader(fetch, job.source_name)
            return reader.read(node.manifest, node.digest, is_present=node.is_present)

        referrers = tuple(
            replace(referrer, node=check(referrer.node)) for referrer in plan.referrers
        )
        node = check(plan.node) if plan.node is not None else None
        return replace(plan, node=node, referrers=referrers)

    def _read_graph(
        self, job: ImageJob, compared: ComparedImage, manifest: Manifest, root: RootManifest
    ) -> Node:
        """Read the manifests below the top one, which is ``manifest``."""
        digest = root.descriptor.digest
        # Content may be present although its tag is missing: a copy relies on the journal.
        may_be_present = (
            self.is_dry_run
            or job.recheck
            or compared.existing is not None
            or self.level_reader.is_known(job.destination, digest)
        )
        fetch = partial(self.level_reader.read_level, job, may_be_present=may_be_present)
        is_present = root.is_present or (
            compared.is_tagged(digest) and self.level_reader.get_present(job, digest) is not None
        )
        reader = GraphReader(fetch, job.source_name)
        return reader.read(manifest, digest, is_present=is_present)

    def _add_referrers(self, job: ImageJob, plan: ImagePlan, root: RootManifest) -> ImagePlan:
        """Add the referrers of the image that the destination lacks."""
        fetch = partial(self.level_reader.read_level, job, may_be_present=True)
        context = ReferrerContext(
            partial(self._run_all, job), fetch, partial(self.level_reader.get_present, job)
        )
        collector = ReferrerCollector(job, context)
        manifests = {node.digest: node.manifest for node in plan.nodes()}
        digests = collector.list_manifests([root.descriptor], manifests)
        if root.full_index_digest is not None:
            if not self.is_dry_run:
                collector.warn_skipped(root.full_index_digest)
            digests.remove(root.descriptor.digest)
        referrers = collector.collect(digests)
        return replace(plan, referrers=referrers, notes=(*plan.notes, *collector.notes))

    def _add_baseline_image(self, job: ImageJob, plan: ImagePlan, root: RootManifest) -> ImagePlan:
        """Add an image that is in the baseline only: its new referrers need it as a subject."""
        destination, reference = job.destination, job.destination_reference
        if not destination.is_only_in_baseline(reference):
            return plan
        if root.manifest is None:
            root = RootReader(self.level_reader).read_root(job, root.descriptor)
            # The tag may have moved since the image was verified.
            self._verify(job, root.source_digest, root.descriptor.digest, is_present=False)
        manifest = root.manifest
        assert manifest is not None  # noqa: S101 - for the type checker
        node = GraphReader(partial(self.level_reader.read_level, job), job.source_name).read(
            manifest, root.descriptor.digest
        )
        blobs = (blob.digest for descendant in node.walk() for blob in descendant.listed_blobs())
        destination.add_baseline_blobs(reference, blobs)
        return replace(plan, node=node)

    def _run_all(self, job: ImageJob, calls: Sequence[Callable[[], Result]]) -> list[Result]:
        return self.pool.run_all(calls, (job.source.host, job.destination.host))
