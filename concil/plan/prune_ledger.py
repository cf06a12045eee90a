"""Determines which tags of a destination a plan may delete."""

from __future__ import annotations

import logging
import re
import urllib.parse
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import field, replace

from concil.errors import ConcilError, UsageError
from concil.oci.address import LAYOUT, Address, LayoutAddress, parse_address
from concil.oci.referrers_tag import split_digest_tag
from concil.plan.rule import Rule
from concil.plan.target_names import address_key, hash_key, repository_key
from concil.runtime.dataclass import dataclass

logger = logging.getLogger(__name__)

_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_PLACEHOLDER_TAG = "concil-probe.tag"  # stands for every tag of a repository


@dataclass(slots=True)
class _RuleState:
    """A rule of a plan, and what has been expanded of it so far."""

    rule: Rule
    repository_key: tuple[str, ...] | None  # of the destination; None: it depends on the tag
    repository: Address
    prefix: str = ""  # the destination's tag is prefix + source tag + suffix
    suffix: str = ""
    source_tags: set[bytes] = field(default_factory=set)  # hashes of the source's tags
    is_complete: bool = False

    def source_tag(self, tag: str) -> str | None:
        """Return the source tag that a destination tag corresponds to; None if there is none."""
        inner = tag.removeprefix(self.prefix).removesuffix(self.suffix)
        # Other names of a layout may have any form.
        is_match = f"{self.prefix}{inner}{self.suffix}" == tag and _TAG.fullmatch(inner)
        return inner if is_match else None

    @property
    def is_pruned(self) -> bool:
        """Whether the rule can delete any tags."""
        return (
            self.rule.prune
            and self.rule.tag_filter is not None
            and self.rule.tag_filter.needs_listing
        )


@dataclass(frozen=True, slots=True)
class PruneDestination:
    """A repository or layout of the destination to prune."""

    address: str
    find_sources: Callable[[str], Sequence[str] | None]
    pinned_digests: tuple[str, ...]  # digests that rules write without a tag
    error: ConcilError | None = None  # why it must not be pruned


class PruneLedger:
    """Records source tags and written destinations while a plan is expanded.

    Not thread-safe. Memory grows with the tags of the rules that prune; tags are hashed.
    """

    def __init__(
        self,
        rules: Iterable[Rule],
        destinations: Callable[[Rule, Address], Sequence[str]],
        *,
        allow_empty: bool,
    ) -> None:
        """Determine where each rule writes.

        Args:
            destinations: returns the destinations of an image of a rule.
            allow_empty: prune a repository even if its source lists no tags at all.
        Raises:
            UsageError: the target of a rule that prunes cannot be distinguished from other
                targets, or a rule is for a whole registry.
        """
        self._allow_empty = allow_empty
        rules = tuple(rules)
        for rule in rules:
            if rule.repository_filter is not None:
                raise UsageError(
                    f"{rule.location}: a whole registry cannot be pruned",
                    remedy="list its repositories, or do not prune",
                )
        # By the identity of their rule, one for each destination.
        self._states_by_rule = {id(rule): _create_states(rule, destinations) for rule in rules}
        self._pruned_repositories = {
            state.repository_key for state in self._rule_states if state.is_pruned
        }
        if not self._pruned_repositories:
            logger.warning("nothing is pruned: no entry of the plan selects tags of a repository")
        self._written_keys: set[bytes] = set()
        self._pinned_digests: dict[tuple[str, ...], list[str]] = defaultdict(list)

    def record_source_tags(self, rule: Rule, tags: Iterator[str]) -> Iterator[str]:
        """Record the source tags of a rule while they are iterated."""
        state = self._states_by_rule[id(rule)][0]  # they share the tags
        if not state.is_pruned:
            yield from tags
            return
        for tag in tags:
            state.source_tags.add(hash_key(tag))
            yield tag

    def record_destination(self, destination: str) -> None:
        """Record the destination of an image."""
        address = parse_address(destination)
        key = address_key(address)
        if repository_key(key) in self._pruned_repositories:
            self._written_keys.add(hash_key(*key))
            if address.digest is not None:
                self._pinned_digests[repository_key(key)].append(str(address.digest))

    def mark_complete(self, rule: Rule) -> None:
        """Record that a rule was expanded completely and without errors."""
        for state in self._states_by_rule[id(rule)]:
            state.is_complete = True

    @property
    def _rule_states(self) -> list[_RuleState]:
        return [state for states in self._states_by_rule.values() for state in states]

    def destinations(self) -> Iterator[PruneDestination]:
        """Yield the repositories to prune, once the plan has been expanded."""
        for key in dict.fromkeys(
            state.repository_key for state in self._rule_states if state.is_pruned
        ):
            assert key is not None  # noqa: S101 - `_create_state` raises for None
            states = [state for state in self._rule_states if state.repository_key in (key, None)]
            pruned_states = [state for state in states if state.is_pruned]
            yield PruneDestination(
                _address_with_credentials(pruned_states[0].repository),
                self._create_source_finder(pruned_states),
                tuple(self._pinned_digests[key]),
                self._find_error(states),
            )

    def _find_error(self, entries: Sequence[_RuleState]) -> ConcilError | None:
        """Return why a repository must not be pruned; None if it may be."""
        for entry in entries:
            if not entry.is_complete:
                return ConcilError(
                    f"{entry.repository} was not pruned: the source of {entry.rule.location}, "
                    "which writes to it, could not be listed completely",
                    remedy="mirror again once that source can be listed",
                )
            if entry.is_pruned and not entry.source_tags and not self._allow_empty:
                return ConcilError(
                    f"{entry.repository} was not pruned: {parse_address(entry.rule.source)} lists "
                    "no tags at all",
                    remedy="if that is correct, use without_limit=True",
                )
        return None

    def _create_source_finder(
        self, entries: Sequence[_RuleState]
    ) -> Callable[[str], Sequence[str] | None]:
        def judge(tag: str) -> Sequence[str] | None:
            if _is_referrers_tag(tag):
                return None
            sources = []
            for entry in entries:
                source_tag = entry.source_tag(tag)
                tag_filter = entry.rule.tag_filter
                if source_tag is None or tag_filter is None or not tag_filter.is_match(source_tag):
                    continue
                if hash_key(source_tag) in entry.source_tags:
                    return ()
                sources.append(f"{entry.rule.source}:{source_tag}")
            if not sources:
                return None
            return () if hash_key(*_tag_key(entries[0], tag)) in self._written_keys else sources

        return judge


def _is_referrers_tag(tag: str) -> bool:
    """Return whether it is a referrers tag, which registries without a referrers API need."""
    _, suffix = split_digest_tag(tag) or ("", "image")
    return not suffix


def _create_states(
    rule: Rule, destinations: Callable[[Rule, Address], Sequence[str]]
) -> list[_RuleState]:
    """Return a state for each destination of a rule; they share the tags of the source."""
    source = parse_address(rule.source)
    if rule.tag_filter is None:
        targets = map(parse_address, destinations(rule, source))
        return [_RuleState(rule, repository_key(address_key(each)), each) for each in targets]
    if isinstance(source, LayoutAddress):
        if rule.prune:
            raise _cannot_prune(
                rule,
                "its source is a layout, and the names in a layout may come from different sources",
            )
        return [_RuleState(rule, None, source)]
    addresses = destinations(rule, source.with_reference(tag=_PLACEHOLDER_TAG))
    states = [_create_state(rule, parse_address(address)) for address in addresses]
    return [states[0], *(replace(each, source_tags=states[0].source_tags) for each in states[1:])]


def _create_state(rule: Rule, target: Address) -> _RuleState:
    """Return the state of a rule for a destination with the placeholder tag."""
    if rule.prune and isinstance(target, LayoutAddress) and target.scheme != LAYOUT:
        raise _cannot_prune(rule, "its target is an archive; mirror to a new archive instead")
    *repository, name = address_key(target)
    prefix, separator, suffix = name.partition(_PLACEHOLDER_TAG)
    if _PLACEHOLDER_TAG in "\0".join(repository) or not separator or _PLACEHOLDER_TAG in suffix:
        if rule.prune:
            raise _cannot_prune(rule, "its target must contain {tag} exactly once, in its tag")
        return _RuleState(rule, None, target)
    return _RuleState(
        rule, repository_key(address_key(target)), _repository_address(target), prefix, suffix
    )


def _cannot_prune(rule: Rule, reason: str) -> UsageError:
    return UsageError(
        f"{rule.location}: 'prune': deleted tags cannot be detected: {reason}",
        remedy="remove prune from this entry",
    )


def _repository_address(destination: Address) -> Address:
    return (
        LayoutAddress(destination.path)
        if isinstance(destination, LayoutAddress)
        else destination.with_reference()
    )


def _address_with_credentials(repository: Address) -> str:
    """Return an address with its user and password, as `parse_address` reads it."""
    if isinstance(repository, LayoutAddress) or repository.username is None:
        return str(repository)
    parts = (repository.username, repository.password or "")
    user = ":".join(urllib.parse.quote(part, safe="") for part in parts)
    return f"{repository.scheme}://{user}@{repository.host}/{repository.repository}"


def _tag_key(state: _RuleState, tag: str) -> tuple[str, ...]:
    """Return the key of a tag in the repository that a rule writes to."""
    if isinstance(state.repository, LayoutAddress):
        return address_key(LayoutAddress(state.repository.path, tag))
    return address_key(state.repository.with_reference(tag=tag))
