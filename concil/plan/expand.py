"""From the entries of a plan to single images, as they are needed."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from concil.digest_tags import digest_tag_parts
from concil.errors import ConcilError, InvalidReference, NotFound, UsageError, shown
from concil.plan.prune import Ledger
from concil.plan.registries import PROBE, one_of, registry_of
from concil.plan.rules import NameFilter, Rule
from concil.plan.targets import Below, key_of, short, where_of
from concil.reference import (
    LOCAL_SCHEMES,
    Address,
    LayoutAddress,
    Reference,
    check_repository,
    parse_address,
)
from concil.transfer.job import ForeignLayers
from concil.transfer.mirror import MirrorItem

logger = logging.getLogger(__name__)

ListTags = Callable[[str], Iterator[str]]
_FIELD = re.compile(r"\{([^{}]*)\}")
_ITSELF_REMEDY = "give it another target"
_TARGET_REMEDY = "give one of them another target"


@dataclass(slots=True)
class Expansion:
    """Images of a plan, one after the other; what could not be had is in ``failed``.

    One thread at a time. A repository that cannot be listed fails alone: the tags that
    came before are copied, and the other entries go on.
    """

    rules: tuple[Rule, ...]
    list_tags: ListTags  # the tags of a repository, page by page
    below: Below | None = None  # None: every entry names its whole target
    platforms: tuple[str, ...] = ()  # for entries that name none
    referrers: bool = False  # for entries that do not say
    foreign_layers: ForeignLayers = ForeignLayers.SKIP
    recheck: bool = False  # look at all of every image, immutable ones too
    ledger: Ledger | None = None  # takes down what prune has to know
    wanted: Callable[[MirrorItem], bool] | None = None  # None: every image
    list_repositories: ListTags | None = None  # of a registry; None: no entry asks for that
    failed: list[tuple[Rule, ConcilError]] = field(default_factory=list)
    # What was written so far, by target; only of repositories that several entries write to,
    # and in hashes: a plan of a hundred thousand images is checked in little memory.
    _taken: dict[bytes, bytes] = field(default_factory=dict)
    _contested: set[tuple[str, ...]] = field(default_factory=set)
    _all_contested: bool = False

    def check(self) -> list[MirrorItem]:
        """See that every entry makes sense, as far as that can be told without asking anybody.

        Returns:
            What the entries come to if each repository has one tag: all of them if no
            repository has to be listed.
        Raises:
            UsageError: file, line and reason.
        """
        single: dict[tuple[str, ...], str] = {}
        found = []
        for entry in self.rules:
            rule = entry if entry.repositories is None else one_of(entry, PROBE)
            if rule is not entry and self.list_repositories is None:
                raise UsageError(f"{rule.place}: nobody lists the repositories of a registry")
            platforms = rule.platforms or self.platforms
            listed = [f"{rule.source}:{tag}" for tag in rule.tags.listed] if rule.tags else []
            probe = rule.source if rule.tags is None else f"{rule.source}:{_probe(rule.source)}"
            try:
                items = [self._item(rule, source, platforms) for source in listed or [probe]]
                if rule.tags is None:
                    self._check_single(items[0], rule, single)
            except ConcilError as error:
                raise _at(rule, error) from error
            found += items
        self._contest(found)
        return found

    def _contest(self, items: Iterable[MirrorItem]) -> None:
        """Find the repositories that more than one entry writes to."""
        seen: set[tuple[str, ...]] = set()
        for item in items:
            where = where_of(key_of(parse_address(item.destination)))
            (self._contested if where in seen else seen).add(where)
        # What repositories a registry has is not known yet.
        whole = any(rule.repositories is not None for rule in self.rules)
        self._all_contested = whole and len(self.rules) > 1

    @property
    def known(self) -> bool:
        """Whether no repository has to be listed."""
        return all(rule.tags is None or not rule.tags.needs_listing for rule in self.rules)

    def __iter__(self) -> Iterator[MirrorItem]:
        """Yield what is to be copied."""
        self.check()
        for rule in self.rules:
            if rule.repositories is None:
                yield from self._images(rule)
                continue
            for one in self._repositories(rule, rule.repositories):
                yield from self._images(one, among_others=True)

    def _images(self, rule: Rule, *, among_others: bool = False) -> Iterator[MirrorItem]:
        """Yield what is to be copied for an image or a repository.

        Args:
            among_others: it is one of a registry's, which may have no tags.
        """
        found = False
        try:
            for item in self._items(rule):
                found = True
                if self.ledger is not None:
                    self.ledger.writes(item.destination)
                if self._is_new(item) and (self.wanted is None or self.wanted(item)):
                    yield item
        except ConcilError as error:
            # Distribution lists repositories whose tags have all been deleted.
            if not (among_others and isinstance(error, NotFound) and not found):
                self.failed.append((rule, error))
            return
        if self.ledger is not None:
            self.ledger.complete(rule)
        if not found and not among_others:
            source = parse_address(rule.source)
            logger.warning("%s: no tag of %s matches", rule.place, source)

    def _repositories(self, rule: Rule, wanted: NameFilter) -> Iterator[Rule]:
        """Yield an entry for each repository of a registry; one of an odd name fails alone."""
        assert self.list_repositories is not None  # noqa: S101 - by `check`
        found = False
        try:
            for name in self.list_repositories(rule.source):
                if not wanted.wants(name):
                    continue
                found = True
                try:
                    check_repository(name)
                except InvalidReference as error:
                    self.failed.append((rule, error))
                else:
                    yield one_of(rule, name)
        except ConcilError as error:
            self.failed.append((rule, error))
            return
        if not found:
            logger.warning("%s: no repository of %s matches", rule.place, registry_of(rule.source))

    def _check_single(
        self, item: MirrorItem, rule: Rule, single: dict[tuple[str, ...], str]
    ) -> None:
        target = parse_address(item.destination)
        other = single.setdefault(key_of(target), rule.place)
        if other is not rule.place:
            raise UsageError(
                f"{other} and {rule.place} would both write {target}", remedy=_TARGET_REMEDY
            )

    def _is_new(self, item: MirrorItem) -> bool:
        """Whether nothing was to be written there so far.

        Raises:
            UsageError: another image was.
        """
        target = parse_address(item.destination)
        if not self._all_contested and where_of(key_of(target)) not in self._contested:
            return True  # a repository has each of its tags once
        key, source = short(*key_of(target)), short(*key_of(parse_address(item.source)))
        before = self._taken.setdefault(key, source)
        if before != source:
            raise UsageError(
                f"two images would be written to {target}; one is {parse_address(item.source)}",
                remedy=_TARGET_REMEDY,
            )
        return before is source

    def _items(self, rule: Rule) -> Iterator[MirrorItem]:
        platforms = rule.platforms or self.platforms
        if rule.tags is None:
            yield self._item(rule, rule.source, platforms)
            return
        tags = self.list_tags(rule.source) if rule.tags.needs_listing else iter(())
        if self.ledger is not None:
            tags = self.ledger.listed(rule, tags)
        for tag in rule.tags.choose(tags):
            if self._goes_along(rule, tag):
                continue
            yield self._item(rule, f"{rule.source}:{tag}", platforms)

    def _item(self, rule: Rule, source: str, platforms: tuple[str, ...]) -> MirrorItem:
        address = parse_address(source)
        destination = self.destination(rule, address)
        if key_of(parse_address(destination)) == key_of(address):
            # Not the address: it may have the tag that stands for all of them.
            name = str(parse_address(rule.source)).removesuffix(f"/{PROBE}")
            raise UsageError(f"{name} would be copied onto itself", remedy=_ITSELF_REMEDY)
        return MirrorItem(
            source,
            destination,
            platforms,
            self._with_referrers(rule),
            self.foreign_layers,
            self._is_done(rule, address),
            self.recheck,
        )

    def _with_referrers(self, rule: Rule) -> bool:
        return self.referrers if rule.referrers is None else rule.referrers

    def _goes_along(self, rule: Rule, tag: str) -> bool:
        """Whether a tag is of a signature, which goes along with its image and not alone."""
        listed = rule.tags is not None and tag in rule.tags.listed
        _, suffix = digest_tag_parts(tag.rpartition(":")[2]) or ("", "")
        return bool(suffix) and not listed and self._with_referrers(rule)

    def _is_done(self, rule: Rule, source: Address) -> bool:
        """Whether an image need not be looked at once it was brought."""
        if self.recheck or rule.tags is None:
            return False
        tag = source.name if isinstance(source, LayoutAddress) else source.tag
        return rule.tags.is_immutable(tag or "")

    def destination(self, rule: Rule, source: Address) -> str:
        """Return where an image of an entry goes.

        Raises:
            UsageError: nobody says so, or its target cannot be written.
        """
        target = rule.target
        if target is not None:
            if rule.tags is not None and "{tag}" not in target:
                target = _with_tag(target)
            target = _FIELD.sub(lambda found: _value(found[1], source), target)
        if self.below is not None:
            return self.below.of(source, target)
        if target is None or rule.below:
            raise UsageError(
                "nobody says where it goes", remedy="give a target, or a destination for all"
            )
        return target


def _probe(source: str) -> str:
    """A tag, or a name of a layout, that stands for all of them."""
    return "probe.example/probe:probe" if source.startswith(LOCAL_SCHEMES) else "probe"


def _with_tag(target: str) -> str:
    """A template without tag, with one; a layout gets names as people write images."""
    if target.startswith(LOCAL_SCHEMES):
        return f"{target}:{{host}}/{{repository}}:{{tag}}"
    return f"{target}:{{tag}}"


def _value(name: str, source: Address) -> str:
    """What stands for ``{name}`` in a template."""
    if isinstance(source, LayoutAddress):
        values = {"tag": source.name or ""}
    else:
        values = {
            "host": source.host,
            "repository": source.repository,
            "name": source.repository.rpartition("/")[2],
            "tag": _tag_of(source),
        }
    if name not in values:
        raise UsageError(
            f"unknown field in a target: {{{shown(name)}}}",
            remedy=f"known are: {', '.join(f'{{{one}}}' for one in values)}",
        )
    return values[name]


def _tag_of(source: Reference) -> str:
    if source.tag is None and source.digest is not None:
        return f"sha256-{source.digest.hex}"
    return source.tag or "latest"


def _at(rule: Rule, error: ConcilError) -> UsageError:
    text = str(error)
    # Some name two places of their own.
    named = text if rule.place in text else f"{rule.place}: {text}"
    return UsageError(named, remedy=error.remedy)
