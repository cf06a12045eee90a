"""Deletes destination tags whose source no longer exists."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import field
from functools import partial
from typing import Protocol, TypeVar

from concil.errors import ConcilError, NotFound, StatusError
from concil.oci.descriptor import Descriptor
from concil.oci.manifest import Digest, Manifest
from concil.oci.media_types import INDEX_TYPES
from concil.runtime.dataclass import dataclass
from concil.transfer.worker_pool import WorkerPool

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
# Maps a destination tag to the source images that justify it: it is deleted if all of these are
# missing. Empty: the tag stays. None: the tag was not made by the mirror.
SourceFinder = Callable[[str], Sequence[str] | None]
MIN_PRUNE_LIMIT = 5  # tags that may always be deleted from a repository
PRUNE_LIMIT_DIVISOR = 4  # beyond that at most one tag in four
# Referrers by tag schema and cosign's signatures, which belong to images that may be present.
_REFERRER_TAG = re.compile(r"sha\d+-[0-9a-f]{32,128}(\..*)?")
_DELETE_DISABLED_STATUS = frozenset({400, 405, 501})


class SupportsPrune(Protocol):
    """A repository or layout that can be pruned."""

    @property
    def name(self) -> str:
        """Name in messages."""
        ...

    @property
    def host(self) -> str:
        """Host of the registry; "" for a layout, which deletes each name separately."""
        ...

    def tags(self) -> Iterator[str]:
        """Yield the tags."""
        ...

    def find_manifest(self, reference: str) -> Descriptor | None:
        """See `store.protocols.Source`."""
        ...

    def get_manifest(self, reference: str) -> Manifest:
        """See `store.protocols.Source`."""
        ...

    def delete_manifest(self, reference: str) -> None:
        """Delete a manifest by digest, and with it every tag that names it."""
        ...

    def delete_tag(self, tag: str) -> None:
        """Delete a tag alone, if the store supports that."""
        ...


@dataclass(frozen=True, slots=True)
class Removal:
    """One tag that no longer exists at the source."""

    tag: str
    digest: Digest
    kept_reason: str = ""  # why it was not deleted


@dataclass(slots=True)
class PruneResult:
    """The result of pruning one repository."""

    name: str
    removals: list[Removal] = field(default_factory=list)
    error: ConcilError | None = None  # not everything was pruned

    @property
    def removed(self) -> list[Removal]:
        """Tags that were deleted, or would be in a dry run."""
        return [removal for removal in self.removals if not removal.kept_reason]


@dataclass(frozen=True, slots=True)
class PruneOptions:
    """Options for pruning a repository."""

    find_sources: SourceFinder
    pinned_digests: Sequence[str] = ()  # digests to keep even without a tag
    without_limit: bool = False  # delete any number of tags
    dry_run: bool = False


class Pruner:
    """Deletes tags, but no manifest that another tag needs. Not to be called by workers.

    A registry deletes a manifest with all its tags. So a manifest is not deleted by digest if
    another tag of the repository names it or lists it in an index. A listing alone is never
    trusted: each tag is confirmed missing at the source by name before deletion.
    """

    def __init__(self, pool: WorkerPool, find_source: Callable[[str], Descriptor | None]) -> None:
        """Check with the threads of ``pool``; delete sequentially.

        Args:
            find_source: finds an image at its source, by its address.
        """
        self._pool = pool
        self._find_source = find_source
        self._error_by_host: dict[str, ConcilError] = {}  # hosts that refuse all deletions

    def prune(self, store: SupportsPrune, options: PruneOptions) -> PruneResult:
        """Prune one repository; an error stops the pruning and is in the result."""
        result = PruneResult(store.name)
        try:
            self._prune(store, options, result)
        except ConcilError as error:
            if self._pool.cancel.is_set():
                raise
            result.error = error
        return result

    def _prune(self, store: SupportsPrune, options: PruneOptions, result: PruneResult) -> None:
        missing_tags, other_tags = self._split_tags(store, options)
        if not missing_tags:
            return
        if store.host in self._error_by_host:
            raise self._error_by_host[store.host]
        present = [
            (tag, descriptor.digest)
            for tag, descriptor in zip(
                missing_tags,
                self._call_for_each(store, store.find_manifest, missing_tags),
                strict=True,
            )
            if descriptor is not None
        ]
        if options.dry_run:
            result.removals += [Removal(tag, digest) for tag, digest in present]
            return
        needed_by_digest = (
            self._find_needed(store, [*other_tags, *options.pinned_digests]) if store.host else {}
        )
        for tag, digest in present:
            kept_reason = self._delete(store, (tag, digest), needed_by_digest, result)
            result.removals.append(Removal(tag, digest, kept_reason))

    def _split_tags(
        self, store: SupportsPrune, options: PruneOptions
    ) -> tuple[list[str], list[str]]:
        """Return the tags that are missing at the source, and all other tags.

        Raises:
            ConcilError: so many are missing that it may be a mistake.
        """
        missing: dict[str, Sequence[str]] = {}
        other_tags, kept_count = [], 0
        try:
            for tag in store.tags():
                sources = None if _REFERRER_TAG.fullmatch(tag) else options.find_sources(tag)
                if sources:
                    missing[tag] = sources
                else:
                    other_tags.append(tag)
                    kept_count += sources is not None
        except NotFound:
            return [], []  # the repository does not exist
        total = len(missing) + kept_count
        if (
            len(missing) > max(MIN_PRUNE_LIMIT, total // PRUNE_LIMIT_DIVISOR)
            and not options.without_limit
        ):
            raise ConcilError(
                f"{store.name}: {len(missing)} of {total} tags no longer exist at the source, "
                "which may be a mistake; nothing was pruned",
                remedy="if it is correct, use without_limit=True; dry_run=True lists them",
            )
        present_tags = self._find_present(missing)
        return [tag for tag in missing if tag not in present_tags], [
            *other_tags,
            *present_tags,
        ]

    def _find_present(self, sources_by_tag: Mapping[str, Sequence[str]]) -> set[str]:
        """Return the tags that the source does have, although its listing lacks them."""
        pairs = [(tag, source) for tag, sources in sources_by_tag.items() for source in sources]
        descriptors = self._run_all(partial(self._find_source, source) for _, source in pairs)
        return {
            tag
            for (tag, _), descriptor in zip(pairs, descriptors, strict=True)
            if descriptor is not None
        }

    def _find_needed(self, store: SupportsPrune, tags: Sequence[str]) -> dict[Digest, str]:
        """Return the manifests to keep, with a tag that names or lists each of them."""
        needed: dict[Digest, str] = {}
        indexes: dict[Digest, str] = {}
        for tag, descriptor in zip(
            tags, self._call_for_each(store, store.find_manifest, tags), strict=True
        ):
            if descriptor is not None:
                needed.setdefault(descriptor.digest, tag)
                if descriptor.media_type in INDEX_TYPES:
                    indexes.setdefault(descriptor.digest, tag)
        while indexes:
            manifests = self._call_for_each(
                store, store.get_manifest, [str(digest) for digest in indexes]
            )
            child_indexes: dict[Digest, str] = {}
            for tag, index in zip(indexes.values(), manifests, strict=True):
                for child in index.children():
                    if child.digest not in needed and child.is_manifest:
                        needed[child.digest] = tag
                        if child.media_type in INDEX_TYPES:
                            child_indexes[child.digest] = tag
            indexes = child_indexes
        return needed

    def _delete(
        self,
        store: SupportsPrune,
        tag_and_digest: tuple[str, Digest],
        needed: Mapping[Digest, str],
        result: PruneResult,
    ) -> str:
        """Delete a tag; return why it was kept, "" if it was deleted.

        Raises:
            ConcilError: the host refuses deletions, or deleted more than it should have.
        """
        tag, digest = tag_and_digest
        if store.host and any(
            removal.digest == digest and not removal.kept_reason for removal in result.removals
        ):
            return ""  # it was deleted with another tag
        other_tag = needed.get(digest)
        try:
            if other_tag is None and store.host:
                store.delete_manifest(str(digest))
            else:
                store.delete_tag(tag)
        except NotFound:
            return ""  # another client has deleted it
        except StatusError as error:
            if error.status not in _DELETE_DISABLED_STATUS:
                raise
            if other_tag is not None:
                return (
                    f"{other_tag} needs the same manifest, and the registry cannot delete a single "
                    "tag"
                )
            self._error_by_host[store.host] = host_error = ConcilError(
                f"{store.host} does not support deletion: {error}",
                remedy="enable it in the registry's configuration (storage.delete.enabled of "
                "docker-registry), or mirror without prune",
            )
            raise host_error from error
        if other_tag is not None and store.host and store.find_manifest(str(digest)) is None:
            raise ConcilError(
                f"{store.name}: with the tag {tag} the registry has deleted {digest}, which "
                f"{other_tag} needs",
                remedy="mirror again to restore it, and do not prune that repository",
            )
        return ""

    def _call_for_each(
        self, store: SupportsPrune, call: Callable[[str], Result], references: Sequence[str]
    ) -> list[Result]:
        return self._run_all((partial(call, reference) for reference in references), store.host)

    def _run_all(self, calls: Iterator[Callable[[], Result]], host: str = "") -> list[Result]:
        """Run short requests concurrently and return their results."""
        return self._pool.run_all(calls, (host,) if host else ())
