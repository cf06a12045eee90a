"""One image in graph order: its blobs, largest first, then its manifests, the tag last."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

from concil.content import Descriptor, Digest, Manifest
from concil.errors import ConcilError, NotFound, StatusError
from concil.progress import Event, ProgressSink, State, emit
from concil.retry import backoff, sleep
from concil.store.protocol import Choosy, Destination, Mounter, Promising
from concil.transfer.blob import Landed
from concil.transfer.blobs import Blobs
from concil.transfer.graph import GraphReader, check_listed
from concil.transfer.job import ForeignLayers, ImageJob, Load, Root, counted, joined
from concil.transfer.manifests import Manifests
from concil.transfer.past import Brought, Past
from concil.transfer.pool import Claims, WorkerPool, turn
from concil.transfer.putting import put
from concil.transfer.referrers import Gatherer, Hands, ListOfReferrers, is_list

__all__ = ["Copier", "ForeignLayers", "ImageJob", "ImageResult", "joined"]

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
_ROUNDS = 3  # times that the blobs of an image are looked for


@dataclass(frozen=True, slots=True)
class ImageResult:
    """What became of one image."""

    subject: str
    target: str
    state: State  # DONE or PRESENT; WAITING: a dry run says that there is something to do
    digest: Digest  # of the manifest under the destination's reference
    blobs: tuple[Landed, ...] = ()
    manifests: int = 0  # that were put
    seconds: float = 0.0
    notes: tuple[str, ...] = field(default=())  # what is not as it was at the source
    referrers: int = 0  # signatures and the like that came along
    foreign: int = 0  # foreign layers that were left out

    @property
    def missing(self) -> int:
        """Bytes of blobs that a dry run did not find at the destination."""
        return sum(one.blob.size for one in self.blobs if one.state is State.WAITING)

    @property
    def sent(self) -> int:
        """Bytes of blobs that were moved for this image."""
        return sum(landed.sent for landed in self.blobs)


class Copier:
    """Copies images on one pool; blobs have one owner over all of them. Any thread."""

    def __init__(self, pool: WorkerPool, progress: ProgressSink | None) -> None:
        """Share ``pool`` and what is learned about blobs among all copies of a run."""
        self._pool = pool
        self._progress = progress
        self._images: Claims[None] = Claims()
        self._manifests = Manifests()
        self._past = Past(pool.run.journal)
        self.blobs = Blobs(pool, progress, self._past)

    def copy(self, job: ImageJob) -> ImageResult:
        """Copy one image; nothing is moved if both sides have the same digest already.

        Called by a coordinator, never by a worker of the pool: it waits.

        Raises:
            NotFound: the source has no such image or platform.
            ListOfReferrers: it is none, and referrers were to go along.
            ConcilError: it could not be copied; its tag was not written.
        """
        began = time.monotonic()
        try:
            result = self._copy(job, began)
        except ListOfReferrers:
            raise  # in a mirror it is no failure
        except ConcilError as error:
            self._tell(job, State.FAILED, 0, str(error))
            raise
        self._tell(job, result.state, result.sent, "")
        return result

    def _copy(self, job: ImageJob, began: float) -> ImageResult:
        source, there, digest = compare(job, self._past)
        if source is None or (digest is not None and not job.referrers):
            assert digest is not None  # noqa: S101 - for the type checker
            if job.immutable and source is not None:
                self._past.remember_image(job.key, Brought(source.digest, digest))
            return ImageResult(job.subject, job.target, State.PRESENT, digest)
        if job.referrers and is_list(job.source_reference, source.digest):
            raise ListOfReferrers(source.digest, job.subject)
        if digest is None:
            self._tell(job, State.STARTED, 0, "")
        image = (job.destination.realm, job.destination.name, source.digest, job.platforms)
        with turn(self._images, image, self._pool.cancel):
            same = digest is not None
            root = Root(source, read=source.digest) if same else self._manifests.root(job, source)
            if root.manifest is not None and isinstance(job.destination, Choosy):
                job.destination.check(root.manifest)
            result = self._bring(job, root, there, began)
        if root.read == source.digest:  # else the tag has moved since it was asked for
            self._past.remember_image(job.key, Brought(source.digest, root.entry.digest))
        return result

    def _bring(
        self, job: ImageJob, root: Root, there: Descriptor | None, began: float
    ) -> ImageResult:
        """Copy an image whose tag is not there, or another's, and what refers to it."""
        load = Load(None, (), root.notes)
        digest = root.entry.digest
        if root.manifest is not None and (there is None or there.digest != digest):
            # With referrers these come first: nobody may see the image by its tag without them.
            if not job.referrers and self._tag(job, root.manifest, digest):
                seconds = time.monotonic() - began
                return ImageResult(
                    job.subject, job.target, State.DONE, digest, (), 1, seconds, root.notes
                )
            fetch = partial(self._fetch_level, job, may_be_there=there is not None)
            node = GraphReader(fetch, job.subject).read(root.manifest, digest)
            load = replace(load, node=node)
        load = self._with_referrers(job, load, root)
        if root.manifest is None and load.attached:
            self._tell(job, State.STARTED, 0, "")
        if load.node is None and load.attached:
            load = self._with_promised(job, load, root)
        return self._written(job, load, digest, began)

    def _written(self, job: ImageJob, load: Load, digest: Digest, began: float) -> ImageResult:
        """Write what there is to write."""
        is_there = load.node is None and not load.attached
        landed = [] if is_there else self._write(job, load)
        self._note(job, load)
        skipped = load.foreign if job.foreign is ForeignLayers.SKIP else 0
        notes = (f"{counted(skipped, 'foreign layer')} left out",) if skipped else ()
        return ImageResult(
            job.subject,
            job.target,
            State.PRESENT if is_there else State.DONE,
            digest,
            tuple(landed),
            manifests=sum(1 for _ in load.nodes()),
            seconds=0.0 if is_there else time.monotonic() - began,
            notes=load.notes + notes,
            referrers=len(load.attached),
            foreign=skipped,
        )

    def _with_referrers(self, job: ImageJob, load: Load, root: Root) -> Load:
        """Add what refers to the image, and has come to it since it was copied."""
        if not job.referrers:
            return load
        fetch = partial(self._fetch_level, job, may_be_there=True)
        gatherer = Gatherer(job, Hands(partial(self._at_once, job), fetch))
        known = {each.digest: each.manifest for each in load.nodes()}
        members = gatherer.members([root.entry], known)
        if root.whole is not None:
            gatherer.left_behind(root.whole)
            members.remove(root.entry.digest)
        attached = gatherer.gather(members)
        return replace(load, attached=attached, notes=(*load.notes, *gatherer.notes))

    def _with_promised(self, job: ImageJob, load: Load, root: Root) -> Load:
        """Add the image itself where it only counts as there: it leads to what refers to it."""
        destination, reference = job.destination, job.destination_reference
        if not isinstance(destination, Promising) or not destination.is_promised(reference):
            return load
        manifest = root.manifest or self._manifests.root(job, root.entry).manifest
        assert manifest is not None  # noqa: S101 - for the type checker
        fetch = partial(self._fetch_level, job, may_be_there=False)
        node = GraphReader(fetch, job.subject).read(manifest, root.entry.digest)
        blobs = (blob.digest for each in node.walk() for blob in each.listed_blobs())
        destination.promise(reference, blobs)
        return replace(load, node=node)

    def _tag(self, job: ImageJob, root: Manifest, digest: Digest) -> bool:
        """Only write the tag, if the image itself is known to be there; return whether it is."""
        destination = job.destination
        if not isinstance(destination, Mounter) or ":" in job.destination_reference:
            return False
        place = destination.realm, destination.repository, digest
        if not self._past.was_put(*place):
            known = self._is_known(destination, digest)
            if not known or destination.find_manifest(str(digest)) is None:
                return False
        try:
            destination.put_manifest(root, job.destination_reference)
        except StatusError as error:
            logger.info("%s: %s; looking at all of it", job.target, error)
            return False
        return True

    def _note(self, job: ImageJob, load: Load) -> None:
        """Remember where the manifests of an image have been put."""
        destination = job.destination
        if isinstance(destination, Mounter):
            for each in load.nodes():
                self._past.put(destination.realm, destination.repository, each.digest)

    def _at_once(self, job: ImageJob, calls: Sequence[Callable[[], Result]]) -> list[Result]:
        return self._pool.at_once(calls, (job.source.host, job.destination.host))

    def _fetch_level(
        self, job: ImageJob, level: Sequence[Descriptor], *, may_be_there: bool
    ) -> list[Manifest | None]:
        """Get the manifests of one level, all at once; None for what the destination has."""

        def read(child: Descriptor) -> Manifest | None:
            likely = may_be_there or self._is_known(job.destination, child.digest)
            if likely and job.destination.find_manifest(str(child.digest)) is not None:
                return None
            get = partial(_listed, job, child)
            manifest = self._manifests.get(job.source.host, child.digest, get)
            # Here, not when all of the level are in memory.
            check_listed(child, manifest, job.subject)
            return manifest

        return self._at_once(job, [partial(read, child) for child in level])

    def _is_known(self, destination: Destination, digest: Digest) -> bool:
        """Whether some run has put a manifest there."""
        if not isinstance(destination, Mounter):
            return False
        return self._past.repository_of(destination.realm, digest) == destination.repository

    def _write(self, job: ImageJob, load: Load) -> list[Landed]:
        """Move the blobs and put the manifests, once more if blobs are gone that were there.

        A registry may see them late: distribution 2.8 does, while another client writes
        the same ones. Or it has lost them since this run brought them.
        """
        landed: list[Landed] = []
        blobs = load.blobs(job.foreign).values()
        for attempt in range(1, _ROUNDS + 1):
            landed += [one for one in self.blobs.move(job, blobs) if attempt == 1 or one.sent]
            try:
                put(job, load)
                break
            except StatusError as error:
                if "BLOB_UNKNOWN" not in str(error) or attempt == _ROUNDS:
                    raise
                logger.warning("%s: %s; looking at its blobs again", job.subject, error)
                sleep(backoff(self._pool.run.config.retry, attempt), self._pool.cancel)
                self.blobs.forget_missing(job, blobs)
        return landed

    def _tell(self, job: ImageJob, state: State, sent: int, detail: str) -> None:
        emit(self._progress, Event("image", job.subject, job.target, state, sent, None, detail))


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


def compare(
    job: ImageJob, past: Past
) -> tuple[Descriptor | None, Descriptor | None, Digest | None]:
    """Look what an image is on both sides.

    Returns:
        What it is at the source, None for an immutable one that is known to be done; what
        its reference is at the destination; and the digest if that is up to date.
    Raises:
        NotFound: the source has no such image.
    """
    # With referrers the image is looked at: it may have been signed since.
    is_asked = (job.immutable or bool(job.platforms)) and not job.referrers
    before = past.image(job.key) if is_asked else None
    if job.immutable and before is not None and _still_there(job, before):
        return None, None, before.target
    source = job.source.find_manifest(job.source_reference)
    if source is None:
        # Reading it says why: a layout lists its names, a registry its own message.
        source = job.source.get_manifest(job.source_reference).descriptor
    there = job.destination.find_manifest(job.destination_reference)
    if there is None:
        return source, None, None
    same = there.digest == source.digest and not job.platforms
    if same or before == Brought(source.digest, there.digest):
        return source, there, there.digest
    return source, there, None


def _still_there(job: ImageJob, before: Brought) -> bool:
    """Whether an immutable image need not be looked at; a look at a local place costs nothing."""
    if job.destination.host:
        return True
    found = job.destination.find_manifest(job.destination_reference)
    return found is not None and found.digest == before.target
