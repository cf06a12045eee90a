"""Expands the rules of a plan to single images, lazily."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import field, replace
from functools import partial

from concil.errors import ConcilError, InvalidReference, NotFound, UsageError
from concil.oci.address import (
    Address,
    LayoutAddress,
    parse_address,
)
from concil.oci.reference import check_repository
from concil.oci.referrers_tag import split_digest_tag
from concil.plan.prune_ledger import PruneLedger
from concil.plan.registry_rules import (
    PLACEHOLDER_REPOSITORY,
    check_registry_rule,
    may_merge_repositories,
    registry_of,
    rule_for_repository,
)
from concil.plan.rule import NameFilter, Rule
from concil.plan.target_names import (
    DestinationPrefix,
    address_key,
    hash_key,
    is_local,
    repository_key,
    target_addresses,
)
from concil.runtime.dataclass import dataclass
from concil.runtime.quantities import count_of
from concil.transfer.image.job import ForeignLayers
from concil.transfer.mirror.report import MirrorItem, combine
from concil.transfer.signatures.verifier import ImageVerifier

logger = logging.getLogger(__name__)

ListTags = Callable[[str], Iterator[str]]
# From a repository, tags and platforms to the seconds since the epoch when the images were created.
FindCreationTimes = Callable[[str, Sequence[str], Sequence[str]], Sequence[float | None]]
_ITSELF_REMEDY = "give it another target"
_TARGET_REMEDY = "give one of them another target"


@dataclass(slots=True)
class PlanExpansion:
    """The images of a plan, expanded lazily; rules that cannot be expanded go to ``failures``.

    Not thread-safe. If a repository cannot be listed, only its rule fails: the tags listed
    before the error are copied, and the other rules are expanded.
    """

    rules: tuple[Rule, ...]
    list_tags: ListTags  # the tags of a repository, page by page
    prefixes: Sequence[DestinationPrefix] = ()  # none: every rule names its full targets
    platforms: tuple[str, ...] = ()  # for rules without platforms of their own
    referrers: bool = False  # for rules that do not set it
    foreign_layers: ForeignLayers = ForeignLayers.SKIP
    recheck: bool = False  # check every image again, immutable ones too
    ledger: PruneLedger | None = None  # records what prune needs to know
    image_filter: Callable[[MirrorItem], bool] | None = None  # None: copy every image
    list_repositories: ListTags | None = None  # of a registry; None: no rule needs it
    overwrite: bool = True  # False: images that exist at the destination stay as they are
    find_creation_times: FindCreationTimes | None = None  # None: no rule needs it
    verifier: ImageVerifier | None = None  # for rules that do not say whom they trust
    failures: list[tuple[Rule, ConcilError]] = field(default_factory=list)
    is_fan_out: bool = False  # an image has several destinations; known after `check`
    # Source by destination, for repositories that several rules write to. Hashes, so that
    # a plan of a hundred thousand images is checked in little memory.
    _written_images: dict[bytes, bytes] = field(default_factory=dict)
    _shared_repositories: set[tuple[str, ...]] = field(default_factory=set)
    _is_every_repository_shared: bool = False

    def check(self) -> list[MirrorItem]:
        """Check every rule as far as possible without a request.

        Returns:
            The images of the plan, with one placeholder tag for each repository that has to be
            listed; the full list if there is none.
        Raises:
            UsageError: a rule is invalid; the message names file, line and reason.
        """
        seen_destinations: dict[tuple[str, ...], str] = {}
        items_found = []
        for entry in self.rules:
            rule = (
                entry
                if entry.repository_filter is None
                else rule_for_repository(entry, PLACEHOLDER_REPOSITORY)
            )
            if rule is not entry and self.list_repositories is None:
                raise UsageError(
                    f"{rule.location}: the repositories of a registry cannot be listed here"
                )
            if entry.repository_filter is not None:
                check_registry_rule(entry)
            platforms = rule.platforms or self.platforms
            listed = (
                [f"{rule.source}:{tag}" for tag in rule.tag_filter.names] if rule.tag_filter else []
            )
            probe = (
                rule.source
                if rule.tag_filter is None
                else f"{rule.source}:{_placeholder_tag(rule.source)}"
            )
            try:
                copies = [
                    self._create_items(rule, source, platforms) for source in listed or [probe]
                ]
                items = [item for each in copies for item in each]
                self.is_fan_out = self.is_fan_out or len(items) > len(copies)
                if rule.tag_filter is None:
                    for item in items:
                        self._check_duplicate(item, rule, seen_destinations)
            except ConcilError as error:
                raise _error_at(rule, error) from error
            items_found += items
        self._find_shared_repositories(items_found)
        return items_found

    def _find_shared_repositories(self, items: Iterable[MirrorItem]) -> None:
        """Find the repositories that more than one entry writes to."""
        seen: set[tuple[str, ...]] = set()
        for item in items:
            key = repository_key(address_key(parse_address(item.destination)))
            (self._shared_repositories if key in seen else seen).add(key)
        # The repositories of a registry are not known yet.
        registry_rules = [rule for rule in self.rules if rule.repository_filter is not None]
        self._is_every_repository_shared = bool(registry_rules) and (
            len(self.rules) > 1 or any(map(may_merge_repositories, registry_rules))
        )

    @property
    def is_static(self) -> bool:
        """Whether the plan expands without listing any repository."""
        return all(
            rule.repository_filter is None
            and (rule.tag_filter is None or not rule.tag_filter.needs_listing)
            for rule in self.rules
        )

    def __iter__(self) -> Iterator[MirrorItem]:
        """Yield the images to copy."""
        self.check()
        for rule in self.rules:
            if rule.repository_filter is None:
                yield from self._expand_rule(rule)
                continue
            failure_count = len(self.failures)
            for repository_rule in self._expand_registry(rule, rule.repository_filter):
                yield from self._expand_rule(repository_rule, in_registry=True)
            if self.ledger is not None and len(self.failures) == failure_count:
                self.ledger.mark_complete(rule)

    def _expand_rule(self, rule: Rule, *, in_registry: bool = False) -> Iterator[MirrorItem]:
        """Yield the images of a rule for one image or one repository.

        Args:
            in_registry: the repository was listed by its registry and may have no tags.
        """
        is_any_listed = False
        try:
            for items in self._list_items(rule):
                is_any_listed = True
                chosen = [item for item in items if self._is_chosen(item)]
                if chosen:
                    yield combine(chosen)
        except ConcilError as error:
            # Distribution lists repositories whose tags have all been deleted.
            if not (in_registry and isinstance(error, NotFound) and not is_any_listed):
                self.failures.append((rule, error))
            return
        if self.ledger is not None:
            self.ledger.mark_complete(rule)
        if not is_any_listed and not in_registry:
            source = parse_address(rule.source)
            logger.warning("%s: no tag of %s matches", rule.location, source)

    def _is_chosen(self, item: MirrorItem) -> bool:
        """Return whether an image is to be copied. Raises as `_is_new`."""
        if self.ledger is not None:
            self.ledger.record_destination(item.destination)
        return self._is_new(item) and (self.image_filter is None or self.image_filter(item))

    def _expand_registry(self, rule: Rule, name_filter: NameFilter) -> Iterator[Rule]:
        """Yield a rule for each repository of a registry; an invalid name fails alone."""
        assert self.list_repositories is not None  # noqa: S101 - by `check`
        is_any_matched = False
        try:
            for name in self.list_repositories(rule.source):
                if not name_filter.matches(name):
                    continue
                is_any_matched = True
                try:
                    check_repository(name)
                except InvalidReference as error:
                    self.failures.append((rule, error))
                else:
                    yield rule_for_repository(rule, name)
        except ConcilError as error:
            self.failures.append((rule, error))
            return
        if not is_any_matched:
            logger.warning(
                "%s: no repository of %s matches", rule.location, registry_of(rule.source)
            )

    def _check_duplicate(
        self, item: MirrorItem, rule: Rule, seen_destinations: dict[tuple[str, ...], str]
    ) -> None:
        target = parse_address(item.destination)
        first_location = seen_destinations.setdefault(address_key(target), rule.location)
        if first_location is not rule.location:
            raise UsageError(
                f"{first_location} and {rule.location} would both write {target}",
                remedy=_TARGET_REMEDY,
            )

    def _is_new(self, item: MirrorItem) -> bool:
        """Return whether nothing has been written to the destination so far.

        Raises:
            UsageError: another image has been written to it.
        """
        target = parse_address(item.destination)
        if (
            not self._is_every_repository_shared
            and repository_key(address_key(target)) not in self._shared_repositories
        ):
            return True  # no repository lists a tag twice
        key, source = (
            hash_key(*address_key(target)),
            hash_key(*address_key(parse_address(item.source))),
        )
        first_source = self._written_images.setdefault(key, source)
        if first_source != source:
            raise UsageError(
                f"two images would be written to {target}; one is {parse_address(item.source)}",
                remedy=_TARGET_REMEDY,
            )
        return first_source is source

    def _list_items(self, rule: Rule) -> Iterator[list[MirrorItem]]:
        """Yield the images of a rule, each with all its destinations."""
        platforms = rule.platforms or self.platforms
        if rule.tag_filter is None:
            yield self._create_items(rule, rule.source, platforms)
            return
        tags = self.list_tags(rule.source) if rule.tag_filter.needs_listing else iter(())
        if self.ledger is not None:
            tags = self.ledger.record_source_tags(rule, tags)
        # Before they are limited to a number.
        images = (tag for tag in tags if not self._is_referrer_tag(rule, tag))
        order = rule.tag_filter.order(time.time())
        find_created = partial(self._find_created, rule, platforms)
        for tag in rule.tag_filter.select(images, order, find_created):
            yield self._create_items(rule, f"{rule.source}:{tag}", platforms)
        if order.undated.count:
            logger.warning(
                "%s: %s of %s left out, as nothing says when they were created: %s",
                rule.location,
                count_of(order.undated.count, "tag"),
                parse_address(rule.source),
                order.undated,
            )

    def _find_created(
        self, rule: Rule, platforms: tuple[str, ...], tags: Sequence[str]
    ) -> Sequence[float | None]:
        if self.find_creation_times is None:
            raise UsageError(f"{rule.location}: the dates of images cannot be found here")
        return self.find_creation_times(rule.source, tags, platforms)

    def _create_items(
        self, rule: Rule, source: str, platforms: tuple[str, ...]
    ) -> list[MirrorItem]:
        """Return an item for each destination of an image."""
        address = parse_address(source)
        destinations = self.destinations(rule, address)
        if address_key(address) in [address_key(parse_address(each)) for each in destinations]:
            # Not the address itself: its tag may be the placeholder.
            name = str(parse_address(rule.source)).removesuffix(f"/{PLACEHOLDER_REPOSITORY}")
            raise UsageError(f"{name} would be copied onto itself", remedy=_ITSELF_REMEDY)
        item = MirrorItem(
            source,
            destinations[0],
            platforms,
            self._has_referrers(rule),
            self.foreign_layers,
            self._is_immutable(rule, address),
            self.recheck,
            self.overwrite,
            self._verifier_for(rule),
        )
        return [item, *(replace(item, destination=each) for each in destinations[1:])]

    def _verifier_for(self, rule: Rule) -> ImageVerifier | None:
        return self.verifier if rule.verification is None else rule.verification.verifier

    def _has_referrers(self, rule: Rule) -> bool:
        return self.referrers if rule.referrers is None else rule.referrers

    def _is_referrer_tag(self, rule: Rule, tag: str) -> bool:
        """Return whether a tag holds a signature, which is not copied as an image of its own.

        It is copied with its image; and where images are verified, nobody has signed it.
        """
        listed = rule.tag_filter is not None and tag in rule.tag_filter.names
        _, suffix = split_digest_tag(tag.rpartition(":")[2]) or ("", "")
        is_left_out = self._has_referrers(rule) or self._verifier_for(rule) is not None
        return bool(suffix) and not listed and is_left_out

    def _is_immutable(self, rule: Rule, source: Address) -> bool:
        """Return whether an image need not be checked again once it has been copied."""
        if self.recheck or rule.tag_filter is None:
            return False
        tag = source.name if isinstance(source, LayoutAddress) else source.tag
        return rule.tag_filter.is_immutable(tag or "")

    def destinations(self, rule: Rule, source: Address) -> list[str]:
        """Return the destination addresses of an image of a rule. Raises as `target_addresses`."""
        return target_addresses(rule, source, self.prefixes)


def _placeholder_tag(source: str) -> str:
    """Return a placeholder for the tags of a repository or the names of a layout."""
    return "probe.example/probe:probe" if is_local(source) else "probe"


def _error_at(rule: Rule, error: ConcilError) -> UsageError:
    text = str(error)
    # Some errors name their own locations already.
    message = text if rule.location in text else f"{rule.location}: {text}"
    return UsageError(message, remedy=error.remedy)
