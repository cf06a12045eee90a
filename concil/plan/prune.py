"""Which tags of a destination are a plan's, and which of these have no source any more."""

from __future__ import annotations

import logging
import re
import urllib.parse
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from concil.digest_tags import digest_tag_parts
from concil.errors import ConcilError, UsageError
from concil.plan.rules import Rule
from concil.plan.targets import key_of, short, where_of
from concil.reference import LAYOUT, Address, LayoutAddress, parse_address

logger = logging.getLogger(__name__)

_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_PROBE = "concil-probe.tag"  # a tag that stands for all of a repository


@dataclass(slots=True)
class _Entry:
    """One entry of a plan, as far as it has been expanded."""

    rule: Rule
    where: tuple[str, ...] | None  # the repository it writes to; None: that depends on the tag
    repository: Address
    prefix: str = ""  # around the source's tag, in the destination's
    suffix: str = ""
    tags: set[bytes] = field(default_factory=set)  # of the source
    is_complete: bool = False

    def source_tag(self, tag: str) -> str | None:
        """The tag of the source that one of the destination would come from."""
        inner = tag.removeprefix(self.prefix).removesuffix(self.suffix)
        # What else a layout has may be named in any way.
        fits = f"{self.prefix}{inner}{self.suffix}" == tag and _TAG.fullmatch(inner)
        return inner if fits else None

    @property
    def prunes(self) -> bool:
        """Whether there is anything that it could delete."""
        return self.rule.prune and self.rule.tags is not None and self.rule.tags.needs_listing


@dataclass(frozen=True, slots=True)
class Target:
    """A repository or layout of the destination that is to be pruned."""

    address: str
    judge: Callable[[str], Sequence[str] | None]
    pinned: tuple[str, ...]  # digests that entries write without a tag
    problem: ConcilError | None = None  # it must not be pruned


class Ledger:
    """Takes down, while a plan is expanded, what the sources have and what is written where.

    One thread at a time. Memory grows with the tags of entries that prune, by hashes.
    """

    def __init__(
        self, rules: Iterable[Rule], destination: Callable[[Rule, Address], str], *, empty: bool
    ) -> None:
        """Find out where each entry writes.

        Args:
            destination: where an image of an entry goes.
            empty: prune a repository even if its source lists no tags at all.
        Raises:
            UsageError: an entry that prunes has a target that cannot be told from others',
                or there is one for a whole registry.
        """
        self._empty = empty
        rules = tuple(rules)
        for rule in rules:
            if rule.repositories is not None:
                raise UsageError(
                    f"{rule.place}: a whole registry is not pruned",
                    remedy="name its repositories, or do not prune",
                )
        self._entries = {id(rule): _entry(rule, destination) for rule in rules}
        self._pruned = {e.where for e in self._entries.values() if e.prunes}
        if not self._pruned:
            logger.warning("nothing is pruned: no entry of the plan asks a repository for its tags")
        self._written: set[bytes] = set()
        self._pinned: dict[tuple[str, ...], list[str]] = defaultdict(list)

    def listed(self, rule: Rule, tags: Iterator[str]) -> Iterator[str]:
        """Take down the tags of an entry's source while they pass."""
        entry = self._entries[id(rule)]
        if not entry.prunes:
            yield from tags
            return
        for tag in tags:
            entry.tags.add(short(tag))
            yield tag

    def writes(self, destination: str) -> None:
        """Take down an image's target."""
        address = parse_address(destination)
        key = key_of(address)
        if where_of(key) in self._pruned:
            self._written.add(short(*key))
            if address.digest is not None:
                self._pinned[where_of(key)].append(str(address.digest))

    def complete(self, rule: Rule) -> None:
        """Take down that all of an entry has passed, without any error."""
        self._entries[id(rule)].is_complete = True

    def targets(self) -> Iterator[Target]:
        """Yield what is to be pruned, once the plan has been expanded."""
        for where in dict.fromkeys(e.where for e in self._entries.values() if e.prunes):
            assert where is not None  # noqa: S101 - `_entry` has refused that
            entries = [e for e in self._entries.values() if e.where in (where, None)]
            ours = [e for e in entries if e.prunes]
            yield Target(
                _written(ours[0].repository),
                self._judge(ours),
                tuple(self._pinned[where]),
                self._problem(entries),
            )

    def _problem(self, entries: Sequence[_Entry]) -> ConcilError | None:
        """Why a repository must not be pruned."""
        for entry in entries:
            if not entry.is_complete:
                return ConcilError(
                    f"{entry.repository} was not pruned: not all is known of what "
                    f"{entry.rule.place} writes there",
                    remedy="mirror again once its source can be listed",
                )
            if entry.prunes and not entry.tags and not self._empty:
                return ConcilError(
                    f"{entry.repository} was not pruned: {parse_address(entry.rule.source)} lists "
                    "no tags at all",
                    remedy="if that is right, say without_limit=True",
                )
        return None

    def _judge(self, entries: Sequence[_Entry]) -> Callable[[str], Sequence[str] | None]:
        def judge(tag: str) -> Sequence[str] | None:
            if _is_list(tag):
                return None
            sources = []
            for entry in entries:
                inner = entry.source_tag(tag)
                choice = entry.rule.tags
                if inner is None or choice is None or not choice.covers(inner):
                    continue
                if short(inner) in entry.tags:
                    return ()
                sources.append(f"{entry.rule.source}:{inner}")
            if not sources:
                return None
            return () if short(*_key(entries[0], tag)) in self._written else sources

        return judge


def _is_list(tag: str) -> bool:
    """Whether it lists what refers to an image: it is kept where the registry keeps no list."""
    _, suffix = digest_tag_parts(tag) or ("", "image")
    return not suffix


def _entry(rule: Rule, destination: Callable[[Rule, Address], str]) -> _Entry:
    source = parse_address(rule.source)
    if rule.tags is None:
        target = parse_address(destination(rule, source))
        return _Entry(rule, where_of(key_of(target)), target)
    if isinstance(source, LayoutAddress):
        if rule.prune:
            raise _cannot(rule, "its source is a layout, whose names may come from anywhere")
        return _Entry(rule, None, source)
    target = parse_address(destination(rule, source.at(tag=_PROBE)))
    if rule.prune and isinstance(target, LayoutAddress) and target.kind != LAYOUT:
        raise _cannot(rule, "its target is an archive; mirror to a new one instead")
    *repository, name = key_of(target)
    head, found, tail = name.partition(_PROBE)
    if _PROBE in "\0".join(repository) or not found or _PROBE in tail:
        if rule.prune:
            raise _cannot(rule, "its target has the tag not once, or not as its tag alone")
        return _Entry(rule, None, target)
    return _Entry(rule, where_of(key_of(target)), _whole(target), head, tail)


def _cannot(rule: Rule, why: str) -> UsageError:
    return UsageError(
        f"{rule.place}: 'prune': what is gone could not be told: {why}", remedy="do not prune it"
    )


def _whole(target: Address) -> Address:
    return LayoutAddress(target.path) if isinstance(target, LayoutAddress) else target.at()


def _written(repository: Address) -> str:
    """An address with its user and password, as `parse_address` reads it."""
    if isinstance(repository, LayoutAddress) or repository.username is None:
        return str(repository)
    parts = (repository.username, repository.password or "")
    user = ":".join(urllib.parse.quote(part, safe="") for part in parts)
    return f"{repository.scheme}://{user}@{repository.host}/{repository.repository}"


def _key(entry: _Entry, tag: str) -> tuple[str, ...]:
    """The key of a tag in the repository that an entry writes to."""
    if isinstance(entry.repository, LayoutAddress):
        return key_of(LayoutAddress(entry.repository.path, tag))
    return key_of(entry.repository.at(tag=tag))
