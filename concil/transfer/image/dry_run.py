"""Dry runs: plans of copies that are not executed, and the destinations that they read."""

from __future__ import annotations

import threading
from collections.abc import Container, Mapping, Sequence
from functools import partial
from typing import Protocol

from concil.errors import NotFound, UsageError
from concil.fs.resume_state import WriterState
from concil.oci.blob_reader import BlobReader
from concil.oci.descriptor import Descriptor
from concil.oci.manifest import Digest, Manifest
from concil.progress.events import State
from concil.store.base_store import BaseStore
from concil.store.protocols import BlobWriter, Destination
from concil.transfer.blob.transfer import BlobResult
from concil.transfer.image.compare import PresentImage
from concil.transfer.image.history import History
from concil.transfer.image.job import ImageJob, ImagePlan
from concil.transfer.image.level_reader import LevelReader
from concil.transfer.image.manifest_cache import ManifestCache
from concil.transfer.image.planner import ImagePlanner
from concil.transfer.image.result import ImageResult
from concil.transfer.journal import Journal
from concil.transfer.signatures.verified_images import VerifiedImages
from concil.transfer.worker_pool import WorkerPool


class DryRun:
    """Plans copies of images and counts what they would send. Any thread.

    A blob that the destination lacks is counted once for all images of a registry, because a
    copy sends it once. The sizes are upper bounds: a copy may mount a blob instead.
    """

    def __init__(self, pool: WorkerPool) -> None:
        """Send requests from the threads of ``pool``."""
        self._pool = pool
        # Without a journal, so that a dry run does not delete entries of missing content.
        level_reader = LevelReader(pool, ManifestCache(), History(Journal(None)))
        self._planner = ImagePlanner(
            pool,
            History(pool.context.journal),
            level_reader,
            VerifiedImages(pool.context.journal, is_dry_run=True),
            is_dry_run=True,
        )
        self._lock = threading.Lock()  # guards the field below
        self._counted_blobs: set[tuple[str, Digest]] = set()  # blobs to send, by mount scope

    def copy(self, job: ImageJob) -> ImageResult:
        """Return what a copy would do: PRESENT, or WAITING with the missing blobs.

        Raises:
            NotFound: the source has no such image or platform.
            ConcilError: it could not be checked.
        """
        compared = self._planner.compare(job)
        if isinstance(compared, PresentImage):
            self._planner.verify_present(job, compared)
            names = job.source_name, job.destination_name
            return ImageResult(*names, State.PRESENT, compared.digest)
        root = self._planner.read_root(job, compared)
        self._planner.verify(job, compared, root)
        plan = self._planner.plan(job, compared, root)
        blobs = tuple(self._find_missing_blobs(job, plan))
        return ImageResult(
            job.source_name,
            job.destination_name,
            State.WAITING if plan.missing_manifests or blobs else State.PRESENT,
            root.descriptor.digest,
            blobs,
            manifests=plan.missing_manifests,
            referrers=plan.new_referrers,
        )

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

    def open_blob(self, blob: Descriptor, start: int = 0, stop: int | None = None) -> BlobReader:
        """Open a blob. See `store.protocols.Store`."""
        if self._destination is None:
            raise NotFound(f"{self.name} has no {blob.digest}")
        return self._destination.open_blob(blob, start, stop)

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
