"""What a mirror would do to one image: nothing is written, not even to the journal."""

from __future__ import annotations

import threading
from collections.abc import Callable, Container, Mapping, Sequence
from functools import partial
from typing import Protocol, TypeVar

from concil.content import Descriptor, Digest, Manifest
from concil.errors import NotFound, UsageError
from concil.progress import State
from concil.store.protocol import BlobWriter, Choosy, Destination, Guarded, Referring, WriterState
from concil.transfer.blob import Landed
from concil.transfer.graph import GraphReader, Node
from concil.transfer.image import ImageResult, compare
from concil.transfer.job import Attached, ImageJob, Load, Root
from concil.transfer.journal import Journal
from concil.transfer.levels import LevelReader, Roots
from concil.transfer.manifests import Manifests
from concil.transfer.past import Past
from concil.transfer.pool import WorkerPool
from concil.transfer.referrers import Gatherer, Hands, ListOfReferrers, is_list

Result = TypeVar("Result")


class Surveyor:
    """Looks at images as deeply as a copy would, with GET and HEAD only. Any thread.

    A blob that the destination's repository lacks counts once for all images of a registry: a
    copy sends it once. It may count although the registry has it elsewhere and mounts it: the
    sizes are what is sent at most.
    """

    def __init__(self, pool: WorkerPool) -> None:
        """Ask by the threads of ``pool``."""
        self._pool = pool
        self._past = Past(pool.run.journal)
        # What turns out to be missing is not forgotten: the journal stays as it is.
        self._levels = LevelReader(pool, Manifests(), Past(Journal(None)))
        self._roots = Roots(self._levels)
        self._lock = threading.Lock()  # guards the field below
        self._counted: set[tuple[str, Digest]] = set()  # blobs that are to be sent, by realm

    def copy(self, job: ImageJob) -> ImageResult:
        """Say what a copy would do: PRESENT, or WAITING with the blobs that are not there.

        Raises:
            NotFound: the source has no such image or platform.
            ConcilError: it could not be looked at.
        """
        source, there, digest = compare(job, self._past)
        if source is None or (digest is not None and not job.referrers and not job.recheck):
            assert digest is not None  # noqa: S101 - for the type checker
            return ImageResult(job.subject, job.target, State.PRESENT, digest)
        if job.referrers and is_list(job.source_reference, source.digest):
            raise ListOfReferrers(source.digest, job.subject)
        root = self._roots.root(job, source, digest)
        if root.manifest is not None and isinstance(job.destination, Choosy):
            job.destination.check(root.manifest)  # as the copy would begin
        node = None
        is_same = there is not None and there.digest == root.entry.digest
        if root.manifest is not None and (job.recheck or not is_same):
            # What it lists may be there although its tag is not: it costs a request to see.
            fetch = partial(self._levels.read, job, likely=True)
            has = root.is_there or (
                is_same and self._levels.present(job, root.entry.digest) is not None
            )
            reader = GraphReader(fetch, job.subject)
            node = reader.read(root.manifest, root.entry.digest, is_there=has)
        load = Load(node, self._attached(job, node, root) if job.referrers else ())
        return self._result(job, load, root.entry.digest)

    def _result(self, job: ImageJob, load: Load, digest: Digest) -> ImageResult:
        blobs = tuple(self._missing_blobs(job, load))
        return ImageResult(
            job.subject,
            job.target,
            State.WAITING if load.missing or blobs else State.PRESENT,
            digest,
            blobs,
            manifests=load.missing,
            referrers=load.coming,
        )

    def _attached(self, job: ImageJob, node: Node | None, root: Root) -> tuple[Attached, ...]:
        """What refers to the image and is not there yet."""
        fetch = partial(self._levels.read, job, likely=True)
        hands = Hands(partial(self._at_once, job), fetch, partial(self._levels.present, job))
        gatherer = Gatherer(job, hands)
        known = {each.digest: each.manifest for each in node.walk()} if node is not None else {}
        members = gatherer.members([root.entry], known)
        if root.whole is not None:
            members.remove(root.entry.digest)
        return gatherer.gather(members)

    def _at_once(self, job: ImageJob, calls: Sequence[Callable[[], Result]]) -> list[Result]:
        return self._pool.at_once(calls, (job.source.host, job.destination.host))

    def _missing_blobs(self, job: ImageJob, load: Load) -> list[Landed]:
        """The blobs that would have to be brought, and that no image before it brings."""
        destination = job.destination
        listed = load.blobs(job.foreign).values()
        blobs = [blob for blob in listed if not self._is_counted(destination, blob)]
        questions = [partial(destination.has_blob, blob) for blob in blobs]
        there = self._pool.at_once(questions, (destination.host,))
        missing = []
        for blob, has in zip(blobs, there, strict=True):
            with self._lock:
                key = destination.realm, blob.digest
                if has or key in self._counted:
                    continue
                self._counted.add(key)
            missing.append(Landed(blob, destination.name, "", State.WAITING))
        return missing

    def _is_counted(self, destination: Destination, blob: Descriptor) -> bool:
        with self._lock:
            return (destination.realm, blob.digest) in self._counted


class Carried(Protocol):
    """What counts as there because an earlier run has taken it to the other side."""

    @property
    def blobs(self) -> Container[Digest]:
        """Blobs."""
        ...

    @property
    def referrers(self) -> Mapping[Digest, Sequence[Descriptor]]:
        """Manifests, by what they refer to."""
        ...

    def find(self, name: str) -> Descriptor | None:
        """An image, by its name in a layout."""
        ...


class Untouched:
    """A destination that is only asked; one that is not there yet has nothing. Any thread."""

    def __init__(
        self, place: Destination | None, name: str, carried: Carried | None = None
    ) -> None:
        """Ask ``place``; None: nothing is at ``name``."""
        self._place = place
        self._carried = carried
        self.name = name
        self.host = place.host if place is not None else ""
        self.realm = place.realm if place is not None else name

    def find_manifest(self, reference: str) -> Descriptor | None:
        """Ask what is there. See `store.protocol.Destination`."""
        found = self._place.find_manifest(reference) if self._place is not None else None
        if found is None and self._carried is not None:
            found = self._carried.find(reference)
        return found

    def has_blob(self, blob: Descriptor) -> bool:
        """Whether the blob is there."""
        if self._carried is not None and blob.digest in self._carried.blobs:
            return True
        return self._place is not None and self._place.has_blob(blob)

    def get_manifest(self, reference: str) -> Manifest:
        """Fetch what is there. See `store.protocol.Referring`, as the next two."""
        place: object = self._place
        if isinstance(place, Referring):
            return place.get_manifest(reference)
        raise NotFound(f"{self.name} has no {reference}")

    def referrers(self, subject: Digest, beside: str = "", /) -> Sequence[Descriptor]:
        """What refers to a manifest there."""
        place, carried = self._place, self._carried
        there = place.referrers(subject, beside) if isinstance(place, Referring) else ()
        return (*there, *(carried.referrers.get(subject, ()) if carried is not None else ()))

    def digest_tags(self, subject: Digest, beside: str = "", /) -> Sequence[str]:
        """Tags that are named by a digest."""
        place = self._place
        return place.digest_tags(subject, beside) if isinstance(place, Referring) else ()

    def check(self, manifest: Manifest) -> None:
        """See `store.protocol.Choosy`."""
        place: object = self._place
        if isinstance(place, Choosy):
            place.check(manifest)

    def is_shut(self) -> bool:
        """See `store.protocol.Guarded`."""
        place: object = self._place
        return isinstance(place, Guarded) and place.is_shut()

    def begin_blob(
        self,
        size: int,  # noqa: ARG002 - of the protocol, as the others
        digest: Digest | None = None,  # noqa: ARG002
        resume: WriterState | None = None,  # noqa: ARG002
    ) -> BlobWriter:
        """Refuse."""
        raise self._refusal()

    def put_manifest(self, manifest: Manifest, reference: str) -> None:  # noqa: ARG002
        """Refuse."""
        raise self._refusal()

    def _refusal(self) -> UsageError:
        return UsageError(f"{self.name}: a dry run writes nothing")
