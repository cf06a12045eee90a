"""Reads the manifests of one level of an image graph."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial

import requests

from concil.errors import ContentError, NotFound, StatusError
from concil.oci.descriptor import Descriptor
from concil.oci.manifest import Digest, Manifest
from concil.runtime.dataclass import dataclass
from concil.store.protocols import Destination
from concil.transfer.blob.image_config import is_other_platform, platform_of, read_config
from concil.transfer.image.graph import (
    FetchedManifest,
    PresentManifest,
    check_descriptor,
    missing_platform_error,
)
from concil.transfer.image.history import History
from concil.transfer.image.job import ImageJob, RootManifest
from concil.transfer.image.manifest_cache import ManifestCache
from concil.transfer.worker_pool import WorkerPool

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LevelReader:
    """Reads the manifests of images, level by level. Any thread may call any method.

    The journal's record of the destination is a hint where a check is worthwhile, never a
    proof. A manifest that is present is read, because its blobs may be missing. Only
    manifests that this run has put or seen are not checked.
    """

    pool: WorkerPool
    manifest_cache: ManifestCache
    history: History

    def read_level(
        self,
        job: ImageJob,
        level: Sequence[Descriptor],
        *,
        may_be_present: bool = False,
        skip_confirmed: bool = True,
    ) -> list[FetchedManifest]:
        """Read the manifests of one level concurrently.

        Args:
            may_be_present: check the destination even for manifests that are not recorded.
            skip_confirmed: skip manifests that this run has put, or found complete.
        """

        def fetch(child: Descriptor) -> FetchedManifest:
            if skip_confirmed and self.is_confirmed(job.destination, child.digest):
                return None
            if may_be_present or not skip_confirmed or self.is_known(job.destination, child.digest):
                present_manifest = self._read_from_destination(job, child)
                if present_manifest is not None:
                    return present_manifest
            get = partial(_get_listed_manifest, job, child)
            manifest = self.manifest_cache.get(job.source.host, child.digest, get)
            # Checked here, before the whole level is in memory.
            check_descriptor(child, manifest, job.source_name)
            return manifest

        hosts = job.source.host, job.destination.host
        return self.pool.run_all([partial(fetch, child) for child in level], hosts)

    def get_present(self, job: ImageJob, digest: Digest) -> Manifest | None:
        """Read a manifest from the destination; None: it is missing or damaged."""
        try:
            return job.destination.get_manifest(str(digest))
        except (NotFound, ContentError) as error:
            logger.debug("%s: %s", job.destination_name, error)
        except StatusError as error:
            # Distribution's response for a manifest whose file or link is damaged.
            if error.status != requests.codes.server_error:
                raise
            logger.warning("%s: %s; writing it again", job.destination_name, error)
        self._forget(job.destination, digest)
        return None

    def is_confirmed(self, destination: Destination, digest: Digest) -> bool:
        """Whether this run has put a manifest there, or found it complete."""
        if not destination.repository:
            return False
        location = destination.mount_scope, destination.repository
        return self.history.is_confirmed(*location, digest, destination.lost_response_count)

    def is_known(self, destination: Destination, digest: Digest) -> bool:
        """Whether some run has put a manifest there."""
        repository = destination.repository
        return bool(repository) and repository == self.history.find_repository(
            destination.mount_scope, digest
        )

    def _read_from_destination(self, job: ImageJob, child: Descriptor) -> PresentManifest | None:
        """Read a manifest from the destination; None: missing, or not as its index lists it."""
        manifest = self.get_present(job, child.digest)
        if manifest is None:
            return None
        try:
            check_descriptor(child, manifest, job.destination_name)
        except ContentError as error:
            logger.warning("%s; writing it again", error)
            return None
        return PresentManifest(manifest)

    def _forget(self, destination: Destination, digest: Digest) -> None:
        if self.is_known(destination, digest):
            self.history.forget(destination.mount_scope, destination.repository, digest)


@dataclass(frozen=True, slots=True)
class RootReader:
    """Reads the top manifests of images. Any thread may call any method."""

    level_reader: LevelReader

    def read_root(
        self, job: ImageJob, source: Descriptor, destination_digest: Digest | None = None
    ) -> RootManifest:
        """Read the top manifest to copy of an image.

        Args:
            source: descriptor at the source.
            destination_digest: digest at the destination if it is up to date; the manifest is
                then read from there, and only for a recheck.
        """
        if destination_digest is None:
            return self._read_from_source(job, source)
        if not job.recheck:
            return RootManifest(source, source_digest=source.digest)
        if job.verifier is not None and destination_digest != source.digest:
            # Only the journal says that it is a part of the image which is verified.
            return self._read_from_source(job, source)
        manifest = self.level_reader.get_present(job, destination_digest)
        if manifest is None:
            return self._read_from_source(job, source)
        entry = Descriptor(manifest.media_type, destination_digest, len(manifest.body))
        is_rewritten = (
            bool(job.platforms) and manifest.is_index and destination_digest != source.digest
        )
        full_index_digest = source.digest if is_rewritten else None
        return RootManifest(entry, manifest, source.digest, full_index_digest, is_present=True)

    def _read_from_source(self, job: ImageJob, source: Descriptor) -> RootManifest:
        """Read the top manifest at the source, and the config if the image has one platform.

        Raises:
            NotFound: the image has none of the requested platforms.
        """
        root = self.level_reader.manifest_cache.read_root(job, source)
        manifest = root.manifest
        is_selected = root.source_digest != root.descriptor.digest  # from an index
        if job.platforms and manifest is not None and not manifest.is_index and not is_selected:
            context = self.level_reader.pool.context
            config = read_config(job.source, manifest, context, job.source_name)
            platform = platform_of(config)
            if is_other_platform(platform, job.platforms):
                raise missing_platform_error(job.source_name, job.platforms, [str(platform)])
        return root


def _get_listed_manifest(job: ImageJob, child: Descriptor) -> Manifest:
    """Read a manifest that an index lists."""
    try:
        return job.source.get_manifest(str(child.digest))
    except NotFound as error:
        suffix = f" for {child.platform}" if child.platform is not None else ""
        raise NotFound(
            f"{job.source_name}: an index lists {child.digest}{suffix}, which the source does "
            "not have",
            remedy="the source has only some platforms; choose those with platforms=",
        ) from error
