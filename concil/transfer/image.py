"""One image in graph order: its blobs, largest first, then its manifests, the tag last."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

import requests

from concil.content import Descriptor, Digest, Manifest
from concil.errors import ConcilError, StatusError
from concil.progress import Event, ProgressSink, State, emit
from concil.retry import backoff, sleep
from concil.store.protocol import Choosy, Mounter, Promising
from concil.transfer.blob import Landed
from concil.transfer.blobs import Blobs
from concil.transfer.graph import GraphReader, Node
from concil.transfer.job import ForeignLayers, ImageJob, Load, Root, counted, joined
from concil.transfer.levels import LevelReader, Roots
from concil.transfer.manifests import Manifests
from concil.transfer.past import Brought, Past, losses_of
from concil.transfer.pool import Claims, WorkerPool, turn
from concil.transfer.putting import put
from concil.transfer.referrers import Gatherer, Hands, ListOfReferrers, is_list

__all__ = ["Copier", "ForeignLayers", "ImageJob", "ImageResult", "joined"]

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
_ROUNDS = 3  # times that the blobs of an image are looked for
# How registries refuse a manifest whose parts they have not; some have words of their own.
_REFUSALS = frozenset({400, 404, 409, 412, 422})
_MISSING = ("BLOB_UNKNOWN", "MANIFEST_UNKNOWN")


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
        self._past = Past(pool.run.journal)
        self._levels = LevelReader(pool, Manifests(), self._past)
        self.roots = Roots(self._levels)
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
        event = Event("image", job.subject, job.target, result.state, result.sent, None, "")
        emit(job.tell or self._progress, event)
        return result

    def _copy(self, job: ImageJob, began: float) -> ImageResult:
        source, there, digest = compare(job, self._past)
        if source is None or (digest is not None and not job.referrers and not job.recheck):
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
            root = self.roots.root(job, source, digest)
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
        losses = losses_of(job.destination)
        load = Load(None, (), root.notes, is_new=there is None)
        digest = root.entry.digest
        is_same = there is not None and there.digest == digest
        if root.manifest is not None and (job.recheck or not is_same):
            # With referrers these come first: nobody may see the image by its tag without them.
            if not (job.referrers or job.recheck) and self._tag(job, root.manifest, digest):
                seconds = time.monotonic() - began
                return ImageResult(
                    job.subject, job.target, State.DONE, digest, (), 1, seconds, root.notes
                )
            likely = job.recheck or there is not None
            likely = likely or self._levels.is_known(job.destination, digest)
            fetch = partial(self._levels.read, job, likely=likely)
            has = root.is_there or (is_same and self._levels.present(job, digest) is not None)
            node = GraphReader(fetch, job.subject).read(root.manifest, digest, is_there=has)
            load = replace(load, node=node)
        load = self._with_referrers(job, load, root)
        if is_same and load.missing:
            self._tell(job, State.STARTED, 0, "")
        if load.node is None and load.attached:
            load = self._with_promised(job, load, root)
        landed = self._write(job, load)
        self._note(job, load, losses)
        return _result(job, load, digest, landed, began)

    def _with_referrers(self, job: ImageJob, load: Load, root: Root) -> Load:
        """Add what refers to the image, and has come to it since it was copied."""
        if not job.referrers:
            return load
        fetch = partial(self._levels.read, job, likely=True)
        hands = Hands(partial(self._at_once, job), fetch, partial(self._levels.present, job))
        gatherer = Gatherer(job, hands)
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
        manifest = root.manifest or self.roots.root(job, root.entry).manifest
        assert manifest is not None  # noqa: S101 - for the type checker
        node = GraphReader(partial(self._levels.read, job), job.subject).read(
            manifest, root.entry.digest
        )
        blobs = (blob.digest for each in node.walk() for blob in each.listed_blobs())
        destination.promise(reference, blobs)
        return replace(load, node=node)

    def _tag(self, job: ImageJob, root: Manifest, digest: Digest) -> bool:
        """Only write the tag, if this run has brought the image itself; return whether it has."""
        destination = job.destination
        if not isinstance(destination, Mounter) or ":" in job.destination_reference:
            return False
        if not self._levels.was_put(destination, digest):
            return False
        try:
            destination.put_manifest(root, job.destination_reference)
        except StatusError as error:
            logger.info("%s: %s; looking at all of it", job.target, error)
            return False
        return True

    def _note(self, job: ImageJob, load: Load, losses: int) -> None:
        """Remember where the manifests of an image have been put, or seen with all below them.

        Args:
            losses: answers that were lost before it was looked at.
        """
        destination = job.destination
        if isinstance(destination, Mounter):
            for each in load.nodes():
                self._past.put(destination.realm, destination.repository, each.digest, losses)

    def _at_once(self, job: ImageJob, calls: Sequence[Callable[[], Result]]) -> list[Result]:
        return self._pool.at_once(calls, (job.source.host, job.destination.host))

    def _write(self, job: ImageJob, load: Load) -> list[Landed]:
        """Move the blobs and put the manifests, again if something is gone that was there.

        A registry may see blobs late: distribution 2.8 does, while another client writes
        the same ones. Or it has lost them, or children of an index, since this run or an
        earlier one brought them.
        """
        landed: list[Landed] = []
        lookups = load.lookups()
        for attempt in range(1, _ROUNDS + 1):
            blobs = load.blobs(job.foreign).values()
            found = self.blobs.move(job, blobs, lookups)
            landed += [one for one in found if attempt == 1 or one.sent]
            try:
                put(job, load)
                break
            except StatusError as error:
                may_be_missing = error.status in _REFUSALS or _names_missing(error)
                if attempt == _ROUNDS or not may_be_missing:
                    raise
                logger.warning("%s: %s; looking at all of it again", job.subject, error)
                sleep(backoff(self._pool.run.config.retry, attempt), self._pool.cancel)
                again = self._looked_at(job, load)
                gone = self.blobs.forget_missing(job, again.blobs(job.foreign).values())
                is_more = _digests(again) - _digests(load)
                if not gone and not is_more and not _names_missing(error):
                    raise
                load, lookups = again, {}
        return landed

    def _looked_at(self, job: ImageJob, load: Load) -> Load:
        """Ask the destination for every manifest of a load, whatever is remembered of it."""
        fetch = partial(self._levels.read, job, likely=True, trusting=False)

        def look(node: Node) -> Node:
            reader = GraphReader(fetch, job.subject)
            return reader.read(node.manifest, node.digest, is_there=node.is_there)

        attached = tuple(replace(one, node=look(one.node)) for one in load.attached)
        node = look(load.node) if load.node is not None else None
        return replace(load, node=node, attached=attached)

    def _tell(self, job: ImageJob, state: State, sent: int, detail: str) -> None:
        emit(self._progress, Event("image", job.subject, job.target, state, sent, None, detail))


def _result(
    job: ImageJob, load: Load, digest: Digest, landed: Sequence[Landed], began: float
) -> ImageResult:
    """What has become of an image."""
    is_there = not load.missing and all(one.state is State.PRESENT for one in landed)
    skipped = load.foreign if job.foreign is ForeignLayers.SKIP else 0
    notes = (f"{counted(skipped, 'foreign layer')} left out",) if skipped else ()
    return ImageResult(
        job.subject,
        job.target,
        State.PRESENT if is_there else State.DONE,
        digest,
        () if is_there else tuple(landed),
        manifests=load.missing,
        seconds=0.0 if is_there else time.monotonic() - began,
        notes=load.notes + notes,
        referrers=load.coming,
        foreign=skipped,
    )


def _digests(load: Load) -> set[Digest]:
    """The manifests of a load that are to be put."""
    return {node.digest for node in load.nodes() if not node.is_there}


def _names_missing(error: StatusError) -> bool:
    """Whether a refusal of a manifest says itself that something below it is missing."""
    return any(code in str(error) for code in _MISSING)


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
    is_done = job.immutable and not job.recheck
    if is_done and before is not None and _still_there(job, before):
        return None, None, before.target
    source = job.source.find_manifest(job.source_reference)
    if source is None:
        # Reading it says why: a layout lists its names, a registry its own message.
        source = job.source.get_manifest(job.source_reference).descriptor
    there = _at_destination(job)
    if there is None:
        return source, None, None
    same = there.digest == source.digest and not job.platforms
    if same or before == Brought(source.digest, there.digest):
        return source, there, there.digest
    return source, there, None


def _at_destination(job: ImageJob) -> Descriptor | None:
    """Ask what the image's reference is at the destination; None: nothing that can be read."""
    try:
        return job.destination.find_manifest(job.destination_reference)
    except StatusError as error:
        # Distribution's answer about a damaged file or link: it may be written again.
        if error.status != requests.codes.server_error:
            raise
        logger.warning("%s: %s; copying the image again", job.target, error)
        return None


def _still_there(job: ImageJob, before: Brought) -> bool:
    """Whether an immutable image need not be looked at; a look at a local place costs nothing."""
    if job.destination.host:
        return True
    found = job.destination.find_manifest(job.destination_reference)
    return found is not None and found.digest == before.target
