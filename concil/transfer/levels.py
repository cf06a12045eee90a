"""The manifests of one level of an image, from the destination if it has them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import requests

from concil.content import Descriptor, Digest, Manifest
from concil.errors import ContentError, NotFound, StatusError
from concil.store.protocol import Destination, Mounter, Referring
from concil.transfer.graph import Fetched, Present, check_listed
from concil.transfer.job import ImageJob, Root
from concil.transfer.manifests import Manifests
from concil.transfer.past import Past, losses_of
from concil.transfer.pool import WorkerPool

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LevelReader:
    """Reads the manifests of images, level by level. Any thread may call any method.

    What the journal says of the destination is a hint: it tells where it is worth asking,
    never that something is there. A manifest that is there is read, for its blobs may not
    be. Only what this run itself has put or seen needs no question.
    """

    pool: WorkerPool
    manifests: Manifests
    past: Past

    def read(
        self,
        job: ImageJob,
        level: Sequence[Descriptor],
        *,
        likely: bool = False,
        trusting: bool = True,
    ) -> list[Fetched]:
        """Read the manifests of one level, all at once.

        Args:
            likely: the destination may have them although nobody remembers that.
            trusting: leave out what this run has put or seen, with all below it.
        """

        def fetch(child: Descriptor) -> Fetched:
            if trusting and self.was_put(job.destination, child.digest):
                return None
            if likely or not trusting or self.is_known(job.destination, child.digest):
                there = self._at_destination(job, child)
                if there is not None:
                    return there
            get = partial(_listed, job, child)
            manifest = self.manifests.get(job.source.host, child.digest, get)
            # Here, not when all of the level are in memory.
            check_listed(child, manifest, job.subject)
            return manifest

        hosts = job.source.host, job.destination.host
        return self.pool.at_once([partial(fetch, child) for child in level], hosts)

    def present(self, job: ImageJob, digest: Digest) -> Manifest | None:
        """Read a manifest from the destination; None: it is not there, or damaged."""
        destination: object = job.destination
        if not isinstance(destination, Referring):
            return None
        try:
            return destination.get_manifest(str(digest))
        except (NotFound, ContentError) as error:
            logger.debug("%s: %s", job.target, error)
        except StatusError as error:
            # Distribution's answer about a manifest whose file or link is damaged.
            if error.status != requests.codes.server_error:
                raise
            logger.warning("%s: %s; putting it again", job.target, error)
        self._forget(job.destination, digest)
        return None

    def was_put(self, destination: Destination, digest: Digest) -> bool:
        """Whether this run has put or seen a manifest there, with all below it."""
        if not isinstance(destination, Mounter):
            return False
        place = destination.realm, destination.repository
        return self.past.was_put(*place, digest, losses_of(destination))

    def is_known(self, destination: Destination, digest: Digest) -> bool:
        """Whether some run has put a manifest there."""
        if not isinstance(destination, Mounter):
            return False
        return self.past.repository_of(destination.realm, digest) == destination.repository

    def _at_destination(self, job: ImageJob, child: Descriptor) -> Present | None:
        """Read a manifest from the destination; None: not there as its index lists it."""
        if not isinstance(job.destination, Referring):
            return None
        manifest = self.present(job, child.digest)
        if manifest is None:
            return None
        try:
            check_listed(child, manifest, job.target)
        except ContentError as error:
            logger.warning("%s; putting it again", error)
            return None
        return Present(manifest)

    def _forget(self, destination: Destination, digest: Digest) -> None:
        if isinstance(destination, Mounter) and self.is_known(destination, digest):
            self.past.forget(destination.realm, destination.repository, digest)


@dataclass(frozen=True, slots=True)
class Roots:
    """Reads the manifests that images begin with. Any thread."""

    levels: LevelReader

    def root(self, job: ImageJob, source: Descriptor, there: Digest | None = None) -> Root:
        """Read what to copy of an image.

        Args:
            source: what it is at the source.
            there: what its reference names at the destination, if that is up to date. It is
                read from there, and only if what is below it is asked for, too.
        """
        if there is None:
            return self.levels.manifests.root(job, source)
        if not job.recheck:
            return Root(source, read=source.digest)
        manifest = self.levels.present(job, there)
        if manifest is None:
            return self.levels.manifests.root(job, source)
        entry = Descriptor(manifest.media_type, there, len(manifest.body))
        is_part = bool(job.platforms) and manifest.is_index and there != source.digest
        whole = source.digest if is_part else None
        return Root(entry, manifest, source.digest, whole, is_there=True)


def _listed(job: ImageJob, child: Descriptor) -> Manifest:
    """Read a manifest that an index lists."""
    try:
        return job.source.get_manifest(str(child.digest))
    except NotFound as error:
        of = f" for {child.platform}" if child.platform is not None else ""
        raise NotFound(
            f"{job.subject}: an index lists {child.digest}{of}, which the source has not",
            remedy="the source has only some platforms; choose those with platforms=",
        ) from error
