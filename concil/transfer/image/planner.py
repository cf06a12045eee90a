"""Plans the copy of one image for a dry run."""

from __future__ import annotations

import threading
from collections.abc import Callable, Container, Mapping, Sequence
from functools import partial
from typing import Protocol, TypeVar

from concil.errors import NotFound, UsageError
from concil.fs.resume_state import WriterState
from concil.oci.descriptor import Descriptor
from concil.oci.manifest import Digest, Manifest
from concil.progress.events import State
from concil.store.protocols import BaseStore, BlobWriter, Destination
from concil.transfer.blob.transfer import BlobResult
from concil.transfer.image.compare import compare_image
from concil.transfer.image.graph import GraphReader, Node
from concil.transfer.image.history import History
from concil.transfer.image.job import ImageJob, ImagePlan, ReferrerNode, RootManifest
from concil.transfer.image.level_reader import LevelReader, RootReader
from concil.transfer.image.manifest_cache import ManifestCache
from concil.transfer.image.referrers import (
    ReferrerCollector,
    ReferrerContext,
    ReferrersTagError,
    is_referrers_tag,
)
from concil.transfer.image.result import ImageResult
from concil.transfer.journal import Journal
from concil.transfer.worker_pool import WorkerPool

Result = TypeVar("Result")


class ImagePlanner:
    """Plans copies of images, using GET and HEAD requests only. Any thread.

    A blob that the destination lacks is counted once for all images of a registry, because a
    copy sends it once. The sizes are upper bounds: a copy may mount a blob instead.
    """

    def __init__(self, pool: WorkerPool) -> None:
        """Send requests from the threads of ``pool``."""
        self._pool = pool
        self._history = History(pool.context.journal)
        # Without a journal, so that a dry run does not delete entries of missing content.
        self._level_reader = LevelReader(pool, ManifestCache(), History(Journal(None)))
        self._root_reader = RootReader(self._level_reader)
        self._lock = threading.Lock()  # guards the field below
        self._counted_blobs: set[tuple[str, Digest]] = set()  # blobs to send, by mount scope

    def copy(self, job: ImageJob) -> ImageResult:
        """Return what a copy would do: PRESENT, or WAITING with the missing blobs.

        Raises:
            NotFound: the source has no such image or platform.
            ConcilError: it could not be checked.
        """
        source, existing, digest = compare_image(job, self._history)
        if source is None or (digest is not None and not job.referrers and not job.recheck):
            assert digest is not None  # noqa: S101 - for the type checker
            return ImageResult(job.source_name, job.destination_name, State.PRESENT, digest)
        if job.referrers and is_referrers_tag(job.source_reference, source.digest):
            raise ReferrersTagError(source.digest, job.source_name)
        root = self._root_reader.read_root(job, source, digest)
        if root.manifest is not None:
            job.destination.check(root.manifest)  # a copy checks it first, too
        node = None
        is_same = existing is not None and existing.digest == root.descriptor.digest
        if root.manifest is not None and (job.recheck or not is_same):
            # Its content may be present although its tag is missing, so it is always checked.
            fetch = partial(self._level_reader.read_level, job, may_be_present=True)
            is_present = root.is_present or (
                is_same and self._level_reader.get_present(job, root.descriptor.digest) is not None
            )
            reader = GraphReader(fetch, job.source_name)
            node = reader.read(root.manifest, root.descriptor.digest, is_present=is_present)
        plan = ImagePlan(node, self._collect_referrers(job, node, root) if job.referrers else ())
        return self._build_result(job, plan, root.descriptor.digest)

    def _build_result(self, job: ImageJob, plan: ImagePlan, digest: Digest) -> ImageResult:
        blobs = tuple(self._find_missing_blobs(job, plan))
        return ImageResult(
            job.source_name,
            job.destination_name,
            State.WAITING if plan.missing_manifests or blobs else State.PRESENT,
            digest,
            blobs,
            manifests=plan.missing_manifests,
            referrers=plan.new_referrers,
        )

    def _collect_referrers(
        self, job: ImageJob, node: Node | None, root: RootManifest
    ) -> tuple[ReferrerNode, ...]:
        """Return the referrers of the image that the destination lacks."""
        fetch = partial(self._level_reader.read_level, job, may_be_present=True)
        context = ReferrerContext(
            partial(self._run_all, job), fetch, partial(self._level_reader.get_present, job)
        )
        collector = ReferrerCollector(job, context)
        manifests = (
            {child.digest: child.manifest for child in node.walk()} if node is not None else {}
        )
        digests = collector.list_manifests([root.descriptor], manifests)
        if root.full_index_digest is not None:
            digests.remove(root.descriptor.digest)
        return collector.collect(digests)

    def _run_all(self, job: ImageJob, calls: Sequence[Callable[[], Result]]) -> list[Result]:
        return self._pool.run_all(calls, (job.source.host, job.destination.host))

    def _find_missing_blobs(self, job: ImageJob, plan: ImagePlan) -> list[BlobResult]:
        """Return the missing blobs that no earlier image of the dry run has counted."""
        destination = job.destination
        listed = plan.blobs(job.foreign_layers).values()
        blobs = [blob for blob in listed if not self._is_counted(destination, blob)]
        checks = [partial(destination.has_blob, blob) for blob in blobs]
        present = self._pool.run_all(checks, (destination.host,))
        missing = []
        for blob, is_present in zip(blobs, present, strict=True):
            with self._lock:
                key = destination.mount_scope, blob.digest
                if is_present or key in self._counted_blobs:
                    continue
                self._counted_blobs.add(key)
            missing.append(BlobResult(blob, destination.name, "", State.WAITING))
        return missing

    def _is_counted(self, destination: Destination, blob: Descriptor) -> bool:
        with self._lock:
            return (destination.mount_scope, blob.digest) in self._counted_blobs


class DryRunBaseline(Protocol):
    """Content that counts as present because an earlier export contained it."""

    @property
    def blobs(self) -> Container[Digest]:
        """Digests of the blobs."""
        ...

    @property
    def referrers(self) -> Mapping[Digest, Sequence[Descriptor]]:
        """Referrers, by the digest of their subject."""
        ...

    def find_image(self, name: str) -> Descriptor | None:
        """Return an image by its name in a layout; None: not in the baseline."""
        ...


class ReadOnlyDestination(BaseStore):
    """A destination for dry runs, which may not exist yet. Any thread may call any method."""

    lists_referrers = True

    def __init__(
        self, destination: Destination | None, name: str, baseline: DryRunBaseline | None = None
    ) -> None:
        """Read from ``destination``; None: nothing exists at ``name``."""
        self._destination = destination
        self._baseline = baseline
        self.name = name
        self.host = destination.host if destination is not None else ""
        self.mount_scope = destination.mount_scope if destination is not None else name

    def find_manifest(self, reference: str) -> Descriptor | None:
        """Find a manifest. See `store.protocols.Destination`."""
        descriptor = (
            self._destination.find_manifest(reference) if self._destination is not None else None
        )
        if descriptor is None and self._baseline is not None:
            descriptor = self._baseline.find_image(reference)
        return descriptor

    def has_blob(self, blob: Descriptor) -> bool:
        """Whether the destination has the blob."""
        if self._baseline is not None and blob.digest in self._baseline.blobs:
            return True
        return self._destination is not None and self._destination.has_blob(blob)

    def get_manifest(self, reference: str) -> Manifest:
        """Read a manifest. See `store.protocols.Store`, also for the next two."""
        if self._destination is not None:
            return self._destination.get_manifest(reference)
        raise NotFound(f"{self.name} has no {reference}")

    def referrers(self, subject: Digest, image_reference: str = "", /) -> Sequence[Descriptor]:
        """Return the referrers of a manifest."""
        destination, baseline = self._destination, self._baseline
        at_destination = (
            destination.referrers(subject, image_reference) if destination is not None else ()
        )
        return (
            *at_destination,
            *(baseline.referrers.get(subject, ()) if baseline is not None else ()),
        )

    def digest_tags(self, subject: Digest, image_reference: str = "", /) -> Sequence[str]:
        """Return the tags that are named after a digest."""
        destination = self._destination
        return destination.digest_tags(subject, image_reference) if destination is not None else ()

    def check(self, manifest: Manifest) -> None:
        """See `store.protocols.Destination`."""
        if self._destination is not None:
            self._destination.check(manifest)

    def is_access_denied(self) -> bool:
        """See `store.protocols.Store`."""
        return self._destination is not None and self._destination.is_access_denied()

    def begin_blob(
        self,
        size: int,  # noqa: ARG002 - part of the protocol, as the others
        digest: Digest | None = None,  # noqa: ARG002
        resume: WriterState | None = None,  # noqa: ARG002
    ) -> BlobWriter:
        """Raise UsageError."""
        raise self._read_only_error()

    def put_manifest(self, manifest: Manifest, reference: str) -> None:  # noqa: ARG002
        """Raise UsageError."""
        raise self._read_only_error()

    def _read_only_error(self) -> UsageError:
        return UsageError(f"{self.name}: a dry run writes nothing")
