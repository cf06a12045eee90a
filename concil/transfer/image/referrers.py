"""Collects the referrers of an image, recursively."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import field
from functools import partial

from concil.errors import InvalidManifest, NotFound, UsageError
from concil.oci.descriptor import Descriptor
from concil.oci.manifest import Digest, Manifest
from concil.oci.media_types import INDEX_TYPES
from concil.oci.referrers_tag import referrers_tag, split_digest_tag, tag_beside_image
from concil.runtime.dataclass import dataclass
from concil.transfer.image.graph import (
    MAX_DEPTH,
    MAX_MANIFESTS,
    GraphReader,
    ManifestFetcher,
    check_descriptor,
)
from concil.transfer.image.job import ImageJob, ReferrerNode, format_count


class ReferrersTagError(UsageError):
    """The tag to copy is not an image but a list of referrers of another image."""

    def __init__(self, digest: Digest, subject: str) -> None:
        """Keep its digest; ``subject`` is its name in the message."""
        super().__init__(
            f"{subject} is a list of referrers, which are copied with their image",
            remedy="copy the image that they refer to, or copy this without referrers=True and "
            "without verification",
        )
        self.digest = digest


def is_referrers_tag(reference: str, digest: Digest) -> bool:
    """Whether a tag lists referrers: it is named after the digest of another manifest.

    Copying it unchanged would drop the referrers that only the destination lists.
    """
    stem, suffix = split_digest_tag(reference.rpartition(":")[2]) or ("", "")
    return bool(stem) and not suffix and stem != referrers_tag(digest)


@dataclass(frozen=True, slots=True)
class _Subject:
    """A manifest whose referrers are collected."""

    digest: Digest
    ancestors: tuple[Digest, ...]  # from the image's manifest to itself


@dataclass(frozen=True, slots=True)
class _Referrer:
    """A manifest that refers to another, by its subject or by its tag."""

    digest: Digest
    reference: str  # at the destination
    ancestors: tuple[Digest, ...]  # of its subject
    manifest: Manifest | None  # None: it is present and not checked further
    is_present: bool = False


@dataclass(frozen=True, slots=True)
class DiscoveredReferrers:
    """The referrers that one job has found for a subject."""

    referrers: list[_Referrer]
    skipped: list[str] = field(default_factory=list)  # why some are not copied


@dataclass(frozen=True, slots=True)
class ReferrerContext:
    """The functions by which a ReferrerCollector sends its requests."""

    run_all: Callable[
        [Sequence[Callable[[], DiscoveredReferrers]]], list[DiscoveredReferrers]
    ]  # runs jobs, waits for all
    fetch_manifests: ManifestFetcher  # reads manifests that an index lists
    get_present: Callable[[Digest], Manifest | None]  # reads from the destination


class ReferrerCollector:
    """Finds the referrers of one image that the destination lacks. One thread at a time.

    Every manifest of the image is looked up at the source, and only those with referrers at
    the destination. If nothing has changed, this takes one request per manifest at the
    source, and one per signed manifest at the destination.
    """

    def __init__(self, job: ImageJob, context: ReferrerContext) -> None:
        """Compare the stores of ``job``."""
        self._job = job
        self._context = context
        self._seen_digests: set[Digest] = set()
        self._manifest_count = 0  # of the referrers
        self.notes: list[str] = []  # what is not copied, and why

    def list_manifests(
        self, roots: Iterable[Descriptor], manifests: Mapping[Digest, Manifest]
    ) -> list[Digest]:
        """Return the digests of every manifest of an image, including present ones.

        Args:
            manifests: manifests that were read already.
        Raises:
            InvalidManifest: there are more than MAX_MANIFESTS.
        """
        queue = list(roots)
        digests: dict[Digest, None] = {}
        while queue:
            entry = queue.pop(0)
            if entry.digest in digests or not entry.is_manifest:
                continue
            digests[entry.digest] = None
            if len(digests) > MAX_MANIFESTS:
                raise InvalidManifest(
                    f"{self._job.source_name}: more than {MAX_MANIFESTS} manifests"
                )
            if entry.media_type in INDEX_TYPES:
                index = manifests.get(entry.digest) or self._get_index(str(entry.digest))
                queue += index.children()
        return list(digests)

    def collect(self, subjects: Iterable[Digest]) -> tuple[ReferrerNode, ...]:
        """Fetch the referrers of these manifests, level by level; each manifest once.

        Raises:
            InvalidManifest: they refer to each other in a circle, are nested too deeply or
                too many, or do not match their descriptors.
        """
        job = self._job
        if not job.source.lists_referrers or not job.destination.lists_referrers:
            unsupported = job.destination if job.source.lists_referrers else job.source
            self.notes.append(f"referrers are skipped: {unsupported.name} does not support them")
            return ()
        level = [_Subject(digest, (digest,)) for digest in subjects]
        self._seen_digests = {subject.digest for subject in level}
        nodes: list[ReferrerNode] = []
        while level:
            jobs = [partial(self._discover, subject) for subject in level]
            level = []
            for discovered in self._context.run_all(jobs):
                self.notes += discovered.skipped
                for referrer in discovered.referrers:
                    level += self._add_referrer(referrer, nodes)
        return tuple(nodes)

    def _get_index(self, digest: str) -> Manifest:
        """Read an index, if possible from the destination, to save the source's quota."""
        try:
            return self._job.destination.get_manifest(digest)
        except NotFound:
            return self._job.source.get_manifest(digest)

    def _add_referrer(self, referrer: _Referrer, nodes: list[ReferrerNode]) -> list[_Subject]:
        """Add a referrer to ``nodes``; return it as a subject unless it was one before."""
        if referrer.digest in referrer.ancestors:
            raise InvalidManifest(
                f"{self._job.source_name}: {referrer.digest} refers to itself, by its tag"
                f" {referrer.reference}",
                remedy="remove that tag, or copy without referrers",
            )
        if len(referrer.ancestors) > MAX_DEPTH:
            raise InvalidManifest(
                f"{self._job.source_name}: what refers to {referrer.ancestors[0]} is referred "
                f"to again,"
                f" more than {MAX_DEPTH} times, down to {referrer.digest}",
                remedy="signatures are not nested like this; copy without referrers",
            )
        if referrer.manifest is not None:
            reader = GraphReader(self._context.fetch_manifests, self._job.source_name)
            node = reader.read(referrer.manifest, referrer.digest, is_present=referrer.is_present)
            nodes.append(ReferrerNode(node, referrer.reference, len(referrer.ancestors)))
            self._manifest_count += sum(1 for _ in node.walk())
        if referrer.digest in self._seen_digests:
            return []
        self._seen_digests.add(referrer.digest)
        if max(self._manifest_count, len(self._seen_digests)) > MAX_MANIFESTS:
            raise InvalidManifest(
                f"{self._job.source_name}: more than {MAX_MANIFESTS} manifests refer to it",
                remedy="regular images have fewer referrers; copy without referrers",
            )
        return [_Subject(referrer.digest, (*referrer.ancestors, referrer.digest))]

    def warn_skipped(self, index_digest: Digest) -> None:
        """Add a note if the source's index, which is not copied as it is, has referrers."""
        source, reference = self._job.source, self._job.source_reference
        tags = source.digest_tags(index_digest, reference)
        count = len(source.referrers(index_digest, reference))
        count += sum(1 for tag in tags if source.find_manifest(tag) is not None)
        if count:
            self.notes.append(
                f"{format_count(count, 'referrer')} skipped, because the index {index_digest} is "
                "not copied"
            )

    # Called by workers -------------------------------------------------------------

    def _discover(self, subject: _Subject) -> DiscoveredReferrers:
        """Find the referrers of one manifest, and fetch those that the destination lacks."""
        job, discovered = self._job, DiscoveredReferrers([])
        references = (job.source_reference, job.destination_reference)
        listed = job.source.referrers(subject.digest, references[0])
        present: set[Digest] = set()
        if listed:
            present = {
                entry.digest for entry in job.destination.referrers(subject.digest, references[1])
            }
        for entry in {descriptor.digest: descriptor for descriptor in listed}.values():
            manifest, is_present = None, entry.digest in present
            if is_present and job.recheck:
                # The list may name manifests that the registry has lost since.
                manifest = self._context.get_present(entry.digest)
                is_present = manifest is not None
            if not is_present:
                manifest = self._fetch_referrer(entry, subject.digest, discovered)
                if manifest is None:
                    continue
            discovered.referrers.append(
                _Referrer(entry.digest, str(entry.digest), subject.ancestors, manifest, is_present)
            )
        for name in job.source.digest_tags(subject.digest, references[0]):
            by_tag = self._find_by_tag(name, subject)
            if by_tag is not None:
                discovered.referrers.append(by_tag)
        return discovered

    def _fetch_referrer(
        self, entry: Descriptor, subject: Digest, found: DiscoveredReferrers
    ) -> Manifest | None:
        """Fetch a referrer; None if it is skipped, with the reason in ``found.skipped``."""
        if not entry.is_manifest:
            found.skipped.append(
                f"{entry.digest} is skipped, a referrer of type {entry.media_type}"
            )
            return None
        try:
            manifest = self._job.source.get_manifest(str(entry.digest))
        except NotFound:
            found.skipped.append(f"{entry.digest} is listed as a referrer, but does not exist")
            return None
        check_descriptor(entry, manifest, self._job.source_name)
        actual_subject = manifest.subject
        if actual_subject is None or actual_subject.digest != subject:
            # The list is not trusted: the subject in the manifest decides.
            found.skipped.append(f"{entry.digest} is listed as a referrer, but is not one")
            return None
        return manifest

    def _find_by_tag(self, name: str, subject: _Subject) -> _Referrer | None:
        """Return the referrer under a tag named after a digest; None if the tag is missing."""
        job = self._job
        source_descriptor = job.source.find_manifest(name)
        if source_descriptor is None:
            return None
        reference = tag_beside_image(job.destination_reference, name.rpartition(":")[2])
        existing = job.destination.find_manifest(reference)
        if existing is not None and existing.digest == source_descriptor.digest:
            present_manifest = (
                self._context.get_present(source_descriptor.digest) if job.recheck else None
            )
            if present_manifest is not None or not job.recheck:
                return _Referrer(
                    source_descriptor.digest,
                    reference,
                    subject.ancestors,
                    present_manifest,
                    is_present=True,
                )
        manifest = job.source.get_manifest(name)
        return _Referrer(manifest.digest, reference, subject.ancestors, manifest)
