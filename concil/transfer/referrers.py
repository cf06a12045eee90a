"""What goes along with an image: what refers to its manifests, and to that again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from concil.content import INDEX_TYPES, Descriptor, Digest, Manifest
from concil.digest_tags import digest_tag, digest_tag_parts, sibling
from concil.errors import InvalidManifest, NotFound, UsageError
from concil.store.protocol import Referring
from concil.transfer.graph import DEEPEST, MOST, Fetcher, GraphReader, check_listed
from concil.transfer.job import Attached, ImageJob, counted


class ListOfReferrers(UsageError):
    """A tag that was to be copied as an image and is a list of referrers of another one."""

    def __init__(self, digest: Digest, subject: str) -> None:
        """Keep its digest; ``subject`` is what people call it."""
        super().__init__(
            f"{subject} is a list of referrers, which go along with their image",
            remedy="copy the image that they refer to, or this without referrers=True",
        )
        self.digest = digest


def is_list(reference: str, digest: Digest) -> bool:
    """Whether a tag is one that lists referrers: named by the digest of another manifest.

    Copied as it is, it would throw out what the destination lists beside it.
    """
    stem, suffix = digest_tag_parts(reference.rpartition(":")[2]) or ("", "")
    return bool(stem) and not suffix and stem != digest_tag(digest)


@dataclass(frozen=True, slots=True)
class _Subject:
    """A manifest that something may refer to."""

    digest: Digest
    chain: tuple[Digest, ...]  # from the image's manifest to itself


@dataclass(frozen=True, slots=True)
class _Referrer:
    """A manifest that refers to another, by its subject or by its tag."""

    digest: Digest
    reference: str  # at the destination
    chain: tuple[Digest, ...]  # of its subject
    manifest: Manifest | None  # None: it is there, and nobody looks below it
    is_there: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """What one job has found out about a subject."""

    referrers: list[_Referrer]
    left: list[str] = field(default_factory=list)  # why something does not go along


@dataclass(frozen=True, slots=True)
class Hands:
    """What a gatherer lets others do."""

    at_once: Callable[[Sequence[Callable[[], Found]]], list[Found]]  # runs jobs, waits for all
    fetch: Fetcher  # manifests that an index lists, as for an image
    present: Callable[[Digest], Manifest | None]  # reads one from the destination


class Gatherer:
    """Finds what goes along with one image and is not there yet. One thread at a time.

    It asks the source about every manifest of the image, and the destination only about
    those to which something refers: where nothing has changed that is one request for a
    manifest at the source, and one at the destination for each that is signed.
    """

    def __init__(self, job: ImageJob, hands: Hands) -> None:
        """Look between the stores of a job."""
        self._job = job
        self._hands = hands
        self._seen: set[Digest] = set()
        self._count = 0  # manifests that go along
        self.notes: list[str] = []  # what does not go along, and why

    def members(
        self, roots: Iterable[Descriptor], known: Mapping[Digest, Manifest]
    ) -> list[Digest]:
        """Every manifest of an image, down to what the destination has already.

        Args:
            known: manifests that were read.
        Raises:
            InvalidManifest: they are more than any image has.
        """
        todo = list(roots)
        found: dict[Digest, None] = {}
        while todo:
            entry = todo.pop(0)
            if entry.digest in found or not entry.is_manifest:
                continue
            found[entry.digest] = None
            if len(found) > MOST:
                raise InvalidManifest(f"{self._job.subject}: more than {MOST} manifests")
            if entry.media_type in INDEX_TYPES:
                index = known.get(entry.digest) or self._index(str(entry.digest))
                todo += index.children()
        return list(found)

    def gather(self, subjects: Iterable[Digest]) -> tuple[Attached, ...]:
        """Fetch what refers to these manifests, level by level; each manifest once.

        Raises:
            InvalidManifest: they refer to one another in a circle, without end, or to
                something else than they are listed for.
        """
        job = self._job
        if not isinstance(job.source, Referring) or not isinstance(job.destination, Referring):
            there = job.destination if isinstance(job.source, Referring) else job.source
            self.notes.append(f"no referrers go along: {there.name} cannot hold any")
            return ()
        level = [_Subject(digest, (digest,)) for digest in subjects]
        self._seen = {subject.digest for subject in level}
        attached: list[Attached] = []
        while level:
            jobs = [partial(self._about, job.source, job.destination, one) for one in level]
            level = []
            for found in self._hands.at_once(jobs):
                self.notes += found.left
                for referrer in found.referrers:
                    level += self._take(referrer, attached)
        return tuple(attached)

    def _index(self, digest: str) -> Manifest:
        """Read an index from the destination, which costs none of the source's quota."""
        if isinstance(self._job.destination, Referring):
            try:
                return self._job.destination.get_manifest(digest)
            except NotFound:
                pass
        return self._job.source.get_manifest(digest)

    def _take(self, found: _Referrer, attached: list[Attached]) -> list[_Subject]:
        """Let a referrer go along; return it as a subject if it was not one before."""
        if found.digest in found.chain:
            raise InvalidManifest(
                f"{self._job.subject}: {found.digest} refers to itself, by its tag"
                f" {found.reference}",
                remedy="remove that tag, or copy without referrers",
            )
        if len(found.chain) > DEEPEST:
            raise InvalidManifest(
                f"{self._job.subject}: what refers to {found.chain[0]} is referred to again,"
                f" more than {DEEPEST} times, down to {found.digest}",
                remedy="no signature is made like that; copy without referrers",
            )
        if found.manifest is not None:
            reader = GraphReader(self._hands.fetch, self._job.subject)
            node = reader.read(found.manifest, found.digest, is_there=found.is_there)
            attached.append(Attached(node, found.reference, len(found.chain)))
            self._count += sum(1 for _ in node.walk())
        if found.digest in self._seen:
            return []
        self._seen.add(found.digest)
        if max(self._count, len(self._seen)) > MOST:
            raise InvalidManifest(
                f"{self._job.subject}: more than {MOST} manifests refer to it",
                remedy="no image is signed like that; copy without referrers",
            )
        return [_Subject(found.digest, (*found.chain, found.digest))]

    def left_behind(self, whole: Digest) -> None:
        """Note it if something refers to an index that does not go along as it is."""
        source, reference = self._job.source, self._job.source_reference
        if isinstance(source, Referring):
            tags = source.digest_tags(whole, reference)
            count = len(source.referrers(whole, reference))
            count += sum(1 for tag in tags if source.find_manifest(tag) is not None)
            if count:
                self.notes.append(f"{counted(count, 'referrer')} left behind with {whole}")

    # In a worker from here on ------------------------------------------------------

    def _about(self, source: Referring, destination: Referring, subject: _Subject) -> Found:
        """Find what refers to one manifest, and fetch what of it is not there."""
        job, found = self._job, Found([])
        beside = (job.source_reference, job.destination_reference)
        listed = source.referrers(subject.digest, beside[0])
        there: set[Digest] = set()
        if listed:
            there = {entry.digest for entry in destination.referrers(subject.digest, beside[1])}
        for entry in {each.digest: each for each in listed}.values():
            manifest, has = None, entry.digest in there
            if has and job.recheck:
                # A list may name what a registry has lost since.
                manifest = self._hands.present(entry.digest)
                has = manifest is not None
            if not has:
                manifest = self._referrer(entry, subject.digest, found)
                if manifest is None:
                    continue
            found.referrers.append(
                _Referrer(entry.digest, str(entry.digest), subject.chain, manifest, has)
            )
        for name in source.digest_tags(subject.digest, beside[0]):
            by_tag = self._by_tag(name, subject)
            if by_tag is not None:
                found.referrers.append(by_tag)
        return found

    def _referrer(self, entry: Descriptor, subject: Digest, found: Found) -> Manifest | None:
        """Fetch a referrer; None if it does not go along, and why not is noted."""
        if not entry.is_manifest:
            found.left.append(f"{entry.digest} is left out, a referrer of type {entry.media_type}")
            return None
        try:
            manifest = self._job.source.get_manifest(str(entry.digest))
        except NotFound:
            found.left.append(f"{entry.digest} is listed as a referrer and gone")
            return None
        check_listed(entry, manifest, self._job.subject)
        about = manifest.subject
        if about is None or about.digest != subject:
            # The list is the word of others: what counts is what the manifest says.
            found.left.append(f"{entry.digest} is listed as a referrer and is none")
            return None
        return manifest

    def _by_tag(self, name: str, subject: _Subject) -> _Referrer | None:
        """What a tag has that is named by a digest; None if there is no such tag."""
        job = self._job
        here = job.source.find_manifest(name)
        if here is None:
            return None
        reference = sibling(job.destination_reference, name.rpartition(":")[2])
        there = job.destination.find_manifest(reference)
        if there is not None and there.digest == here.digest:
            present = self._hands.present(here.digest) if job.recheck else None
            if present is not None or not job.recheck:
                return _Referrer(here.digest, reference, subject.chain, present, is_there=True)
        manifest = job.source.get_manifest(name)
        return _Referrer(manifest.digest, reference, subject.chain, manifest)
