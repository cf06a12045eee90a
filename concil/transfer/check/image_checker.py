"""Checks one image at its destination: its tag, its manifests and their blobs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from concil.errors import ConcilError, ContentError, NotFound
from concil.oci.descriptor import Descriptor
from concil.oci.digest import Digest
from concil.oci.manifest import Manifest
from concil.progress.events import State
from concil.runtime.dataclass import dataclass
from concil.transfer.check.blob_inspector import BlobInspector, condition_of_error
from concil.transfer.findings import Condition, Finding, overall_condition
from concil.transfer.image.compare import ComparedImage, PresentImage
from concil.transfer.image.graph import FetchedManifest, GraphReader, Node, check_descriptor
from concil.transfer.image.history import History
from concil.transfer.image.job import ForeignLayers, ImageJob, RootManifest
from concil.transfer.image.level_reader import LevelReader
from concil.transfer.image.manifest_cache import ManifestCache
from concil.transfer.image.planner import ImagePlanner
from concil.transfer.image.referrers import ReferrersTagError
from concil.transfer.image.result import ImageResult
from concil.transfer.journal import Journal
from concil.transfer.signatures.verified_images import VerifiedImages
from concil.transfer.worker_pool import WorkerPool


@dataclass(frozen=True, slots=True)
class ImageChecker:
    """Checks images. Any thread but a worker: it waits for jobs.

    A tag is compared with its source as a mirror does it. Manifests are always read, which
    verifies them. Blobs are looked up or read, as the inspector does it. Nothing is written.
    """

    pool: WorkerPool
    planner: ImagePlanner
    inspector: BlobInspector

    @classmethod
    def create(cls, pool: WorkerPool, inspector: BlobInspector) -> ImageChecker:
        """Create a checker that relies on nothing that earlier runs have recorded."""
        level_reader = LevelReader(pool, ManifestCache(), History(Journal(None)))
        history = History(pool.context.journal)  # the digest of an image that has fewer platforms
        verified = VerifiedImages(Journal(None))  # a check compares, and verifies no signatures
        planner = ImagePlanner(pool, history, level_reader, verified, is_dry_run=True)
        return cls(pool, planner, inspector)

    def check(self, job: ImageJob) -> ImageResult:
        """Return the condition of an image, with all findings.

        Raises:
            NotFound: the source has no such image.
            ConcilError: it could not be checked.
        """
        start_time = time.monotonic()
        job = replace(job, recheck=True)
        try:
            compared = self.planner.compare(job)
        except ReferrersTagError as error:
            # A plan for all tags includes it: its referrers are checked with their image.
            return _build_result(job, error.digest, [], start_time)
        except (NotFound, ContentError) as error:
            finding = _unreadable_finding(job, error)
            if finding is None:
                raise
            return _build_result(job, finding.digest, [finding], start_time)
        assert not isinstance(compared, PresentImage)  # noqa: S101 - because of the recheck
        digest = self._expected_digest(job, compared)
        if digest is None:
            findings = [_tag_finding(compared)]
        else:
            findings = self._check_content(job, compared, digest)
        return _build_result(job, digest or compared.source.digest, findings, start_time)

    def _expected_digest(self, job: ImageJob, compared: ComparedImage) -> Digest | None:
        """Return the digest of an image that is up to date; None: it is missing or behind."""
        if compared.existing is None or compared.present_digest is not None:
            return compared.present_digest
        if not job.platforms:
            return None
        digest = self.planner.read_root(job, compared).descriptor.digest
        return digest if compared.is_tagged(digest) else None

    def _check_content(
        self, job: ImageJob, compared: ComparedImage, digest: Digest
    ) -> list[Finding]:
        """Check everything below an image that is up to date, and its referrers."""
        assert compared.existing is not None  # noqa: S101 - it is up to date
        descriptor = replace(compared.existing, digest=digest)
        root = self._read_manifest(job, descriptor, is_listed=False)
        if isinstance(root, Finding):
            return [root]
        findings: list[Finding] = []
        reader = GraphReader(partial(self._read_level, job, findings), job.destination_name)
        nodes = [reader.read(root, digest, is_present=True)]
        if job.referrers:
            nodes += self._find_referrers(job, compared, descriptor, findings)
        blobs: dict[Digest, Descriptor] = {}
        for node in (descendant for top in nodes for descendant in top.walk()):
            for blob in node.listed_blobs():
                if job.foreign_layers is not ForeignLayers.SKIP or not blob.is_foreign:
                    blobs.setdefault(blob.digest, blob)
        return findings + self.inspector.inspect(job.destination, blobs.values())

    def _read_level(
        self, job: ImageJob, findings: list[Finding], level: Sequence[Descriptor]
    ) -> list[FetchedManifest]:
        """Read the manifests of one level; None for each that is missing or damaged."""
        calls = [partial(self._read_manifest, job, child) for child in level]
        results = self.pool.run_all(calls, (job.destination.host,))
        findings += [result for result in results if isinstance(result, Finding)]
        return [None if isinstance(result, Finding) else result for result in results]

    def _read_manifest(
        self, job: ImageJob, entry: Descriptor, *, is_listed: bool = True
    ) -> Manifest | Finding:
        """Read a manifest from the destination; ``is_listed``: ``entry`` is that of an index."""
        try:
            manifest = job.destination.get_manifest(str(entry.digest))
            if is_listed:
                check_descriptor(entry, manifest, job.destination_name)
        except ConcilError as error:
            condition = condition_of_error(error)
            if condition is None:
                raise
            is_missing = condition is Condition.MISSING
            return _manifest_finding(
                entry, condition, "it does not exist" if is_missing else str(error)
            )
        return manifest

    def _find_referrers(
        self,
        job: ImageJob,
        compared: ComparedImage,
        descriptor: Descriptor,
        findings: list[Finding],
    ) -> list[Node]:
        """Return the referrers that are present; add a finding for each that is not."""
        plan = self.planner.plan(job, compared, RootManifest(descriptor))
        present_nodes = []
        for node in (node for referrer in plan.referrers for node in referrer.node.walk()):
            if node.is_present:
                present_nodes.append(replace(node, children=()))  # each is listed by itself
                continue
            entry = replace(node.manifest.descriptor, digest=node.digest)
            # The plan does not say why a referrer has to be written.
            result = self._read_manifest(job, entry)
            if isinstance(result, Finding):
                findings.append(replace(result, detail=f"a referrer: {result.detail}"))
            else:
                findings.append(_manifest_finding(entry, Condition.MISSING, "no tag names it"))
        return present_nodes


def _unreadable_finding(job: ImageJob, error: ConcilError) -> Finding | None:
    """Return the finding for a manifest that cannot be read where its digest is known.

    None: the error is that of the source, or there is no such name.
    """
    is_alone = job.source_name == job.destination_name
    condition = condition_of_error(error)
    if not is_alone or condition is None or ":" not in job.destination_reference:
        return None
    digest = Digest.parse(job.destination_reference)
    return Finding(condition, "image", digest, None, str(error))


def _tag_finding(compared: ComparedImage) -> Finding:
    source, existing = compared.source, compared.existing
    if existing is None:
        return Finding(Condition.MISSING, "image", source.digest, None, "it does not exist")
    detail = f"it is {existing.digest}, and {source.digest} at the source"
    return Finding(Condition.BEHIND, "image", source.digest, None, detail)


def _manifest_finding(entry: Descriptor, condition: Condition, detail: str) -> Finding:
    platform = str(entry.platform) if entry.platform is not None else ""
    return Finding(condition, "manifest", entry.digest, entry.size, detail, platform)


def _build_result(
    job: ImageJob, digest: Digest, findings: Sequence[Finding], start_time: float
) -> ImageResult:
    condition = overall_condition(findings)
    return ImageResult(
        job.source_name,
        job.destination_name,
        State.PRESENT if condition is Condition.OK else State.WAITING,
        digest,
        seconds=time.monotonic() - start_time,
        condition=condition,
        findings=tuple(findings),
    )
