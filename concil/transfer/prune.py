"""What is deleted at a destination because its source has it no longer."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, TypeVar

from concil.content import INDEX_TYPES, Descriptor, Digest, Manifest
from concil.errors import ConcilError, NotFound, StatusError
from concil.transfer.pool import WorkerPool

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
# For a tag of the destination: the images whose absence would make it superfluous; none: it
# is wanted; None: it is none of ours.
Judge = Callable[[str], Sequence[str] | None]
FEW = 5  # tags of a repository that may go, however few it has
SHARE = 4  # else one of so many
# Referrers by tag schema, cosign's signatures: of an image that may be there, whatever the
# source calls them.
_OF_AN_IMAGE = re.compile(r"sha\d+-[0-9a-f]{32,128}(\..*)?")
_SWITCHED_OFF = frozenset({400, 405, 501})


class Prunable(Protocol):
    """A repository or layout that can be pruned."""

    @property
    def name(self) -> str:
        """What people call it."""
        ...

    @property
    def host(self) -> str:
        """What its limits belong to; "" for a layout, whose names go alone."""
        ...

    def tags(self) -> Iterator[str]:
        """The tags."""
        ...

    def find_manifest(self, reference: str) -> Descriptor | None:
        """As in `store.protocol.Source`."""
        ...

    def get_manifest(self, reference: str) -> Manifest:
        """As in `store.protocol.Source`."""
        ...

    def delete_manifest(self, reference: str) -> None:
        """Remove a manifest by digest, and with it every tag that names it."""
        ...

    def delete_tag(self, tag: str) -> None:
        """Remove a tag alone, where the place can."""
        ...


@dataclass(frozen=True, slots=True)
class Removal:
    """One tag that is gone at the source."""

    tag: str
    digest: Digest
    kept: str = ""  # why it is still there


@dataclass(slots=True)
class Pruned:
    """What became of one repository."""

    name: str
    removals: list[Removal] = field(default_factory=list)
    error: ConcilError | None = None  # some of it, or all, is as it was

    @property
    def removed(self) -> list[Removal]:
        """Tags that are gone now, or would be."""
        return [one for one in self.removals if not one.kept]


@dataclass(frozen=True, slots=True)
class Pruning:
    """How a repository is pruned."""

    judge: Judge
    pinned: Sequence[str] = ()  # digests that are to stay without a tag
    without_limit: bool = False  # however many tags would go
    dry_run: bool = False


class Pruner:
    """Deletes tags, and never what another tag needs. A coordinator calls it: it waits.

    A registry deletes a manifest with all its tags, so nothing is deleted by its digest that
    another tag of the repository names, or lists in an index. Nothing is deleted on the word of
    a listing alone: the source is asked for each tag.
    """

    def __init__(self, pool: WorkerPool, find: Callable[[str], Descriptor | None]) -> None:
        """Ask by the threads of ``pool``; delete one after the other.

        Args:
            find: asks a source for an image, by its address.
        """
        self._pool = pool
        self._find = find
        self._closed: dict[str, ConcilError] = {}  # hosts that delete nothing

    def prune(self, store: Prunable, pruning: Pruning) -> Pruned:
        """Prune one repository; what goes wrong is in the result, and ends it."""
        done = Pruned(store.name)
        try:
            self._prune(store, pruning, done)
        except ConcilError as error:
            if self._pool.cancel.is_set():
                raise
            done.error = error
        return done

    def _prune(self, store: Prunable, pruning: Pruning, done: Pruned) -> None:
        gone, rest = self._sorted(store, pruning)
        if not gone:
            return
        if store.host in self._closed:
            raise self._closed[store.host]
        there = [
            (tag, found.digest)
            for tag, found in zip(gone, self._ask(store, store.find_manifest, gone), strict=True)
            if found is not None
        ]
        if pruning.dry_run:
            done.removals += [Removal(tag, digest) for tag, digest in there]
            return
        needed = self._needed(store, [*rest, *pruning.pinned]) if store.host else {}
        for tag, digest in there:
            kept = self._remove(store, (tag, digest), needed, done)
            done.removals.append(Removal(tag, digest, kept))

    def _sorted(self, store: Prunable, pruning: Pruning) -> tuple[list[str], list[str]]:
        """The tags that are gone at the source, and all others.

        Raises:
            ConcilError: so many are gone that it may be a mistake.
        """
        gone: dict[str, Sequence[str]] = {}
        rest, wanted = [], 0
        try:
            for tag in store.tags():
                sources = None if _OF_AN_IMAGE.fullmatch(tag) else pruning.judge(tag)
                if sources:
                    gone[tag] = sources
                else:
                    rest.append(tag)
                    wanted += sources is not None
        except NotFound:
            return [], []  # nothing was ever written there
        ours = len(gone) + wanted
        if len(gone) > max(FEW, ours // SHARE) and not pruning.without_limit:
            raise ConcilError(
                f"{store.name}: {len(gone)} of {ours} tags are gone at the source, which may be a "
                "mistake; nothing was pruned",
                remedy="if it is right, say without_limit=True; dry_run=True shows them",
            )
        back = self._still_there(gone)
        return [tag for tag in gone if tag not in back], [*rest, *back]

    def _still_there(self, gone: Mapping[str, Sequence[str]]) -> set[str]:
        """Tags whose source has them after all: no listing is trusted with a deletion."""
        asked = [(tag, source) for tag, sources in gone.items() for source in sources]
        found = self._all(partial(self._find, source) for _, source in asked)
        return {tag for (tag, _), one in zip(asked, found, strict=True) if one is not None}

    def _needed(self, store: Prunable, tags: Sequence[str]) -> dict[Digest, str]:
        """The manifests that stay, by the tag that names them or lists them in an index."""
        needed: dict[Digest, str] = {}
        indexes: dict[Digest, str] = {}
        for tag, found in zip(tags, self._ask(store, store.find_manifest, tags), strict=True):
            if found is not None:
                needed.setdefault(found.digest, tag)
                if found.media_type in INDEX_TYPES:
                    indexes.setdefault(found.digest, tag)
        while indexes:
            read = self._ask(store, store.get_manifest, [str(digest) for digest in indexes])
            below: dict[Digest, str] = {}
            for tag, index in zip(indexes.values(), read, strict=True):
                for child in index.children():
                    if child.digest not in needed and child.is_manifest:
                        needed[child.digest] = tag
                        if child.media_type in INDEX_TYPES:
                            below[child.digest] = tag
            indexes = below
        return needed

    def _remove(
        self,
        store: Prunable,
        named: tuple[str, Digest],
        needed: Mapping[Digest, str],
        done: Pruned,
    ) -> str:
        """Delete a tag; return why it stays, if it does.

        Raises:
            ConcilError: nothing can be deleted there, or more was than should have been.
        """
        tag, digest = named
        if store.host and any(one.digest == digest and not one.kept for one in done.removals):
            return ""  # it went with another tag
        other = needed.get(digest)
        try:
            if other is None and store.host:
                store.delete_manifest(str(digest))
            else:
                store.delete_tag(tag)
        except NotFound:
            return ""  # somebody else was quicker
        except StatusError as error:
            if error.status not in _SWITCHED_OFF:
                raise
            if other is not None:
                return f"{other} needs the same manifest, and the registry deletes no tag alone"
            self._closed[store.host] = closed = ConcilError(
                f"{store.host} deletes nothing: {error}",
                remedy="allow it in the registry's settings (storage.delete.enabled of "
                "docker-registry), or mirror without prune",
            )
            raise closed from error
        if other is not None and store.host and store.find_manifest(str(digest)) is None:
            raise ConcilError(
                f"{store.name}: with the tag {tag} the registry has deleted {digest}, which "
                f"{other} needs",
                remedy="mirror again to bring it back, and do not prune there",
            )
        return ""

    def _ask(
        self, store: Prunable, question: Callable[[str], Result], references: Sequence[str]
    ) -> list[Result]:
        return self._all((partial(question, one) for one in references), store.host)

    def _all(self, questions: Iterator[Callable[[], Result]], host: str = "") -> list[Result]:
        """The answers to small questions, many at a time."""
        return self._pool.at_once(questions, (host,) if host else ())
