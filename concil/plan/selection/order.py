"""Orders tags by version, creation date or name, and limits them by age and number."""

from __future__ import annotations

import enum
import heapq
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import field
from itertools import islice
from typing import TypeAlias

from concil.plan.versions import Version
from concil.runtime.dataclass import dataclass

# From tags to the seconds since the epoch when their images were created; None: unknown.
FindCreated = Callable[[Sequence[str]], Sequence[float | None]]
_Key: TypeAlias = tuple[object, ...]  # of a sort
_NUMBER = re.compile(r"([0-9]+)")
_MAX_BATCH, _MIN_BATCH = 64, 8  # tags whose dates are asked for together
_SHOWN = 5  # tags in a message


class SortOrder(enum.StrEnum):
    """An order of tags; the first one is the highest version, the newest image or the last name."""

    SEMVER = "semver"
    CREATED = "created"
    ALPHANUMERIC = "alphanumeric"


@dataclass(slots=True)
class UndatedTags:
    """The tags that were left out because their images have no usable creation date."""

    count: int = 0
    first_tags: list[str] = field(default_factory=list)

    def add(self, tag: str) -> None:
        """Record a tag."""
        self.count += 1
        if len(self.first_tags) < _SHOWN:
            self.first_tags.append(tag)

    def __str__(self) -> str:
        """Return the first tags, for a message."""
        rest = self.count - len(self.first_tags)
        return ", ".join(self.first_tags) + (f" and {rest} more" if rest else "")


@dataclass(frozen=True, slots=True)
class TagOrder:
    """Orders the tags that match, and limits them; without any condition it changes nothing."""

    order: SortOrder | None = None  # None: that of the list
    limit: int | None = None  # only this many, in that order
    oldest: float | None = None  # seconds since the epoch; only images created after that
    undated: UndatedTags = field(default_factory=UndatedTags)

    def apply(self, tags: Iterable[str], find_created: FindCreated) -> Iterator[str]:
        """Yield the tags to copy.

        Without order, dates are asked for as the tags arrive. By version or name, no more dates
        are asked for than the limit needs.

        Args:
            tags: read lazily if there is no order.
        Raises:
            As ``find_created``.
        """
        if self.order is SortOrder.CREATED:
            yield from self._newest(self._recent(tags, find_created))
            return
        if self.order is not None:
            # Without an age, the limit is known now, and no more tags have to be kept.
            limit = self.limit if self.oldest is None else None
            tags = _sorted(_keyed(tags, self.order, is_limited=self.limit is not None), limit)
        if self.oldest is not None:
            tags = (tag for tag, _ in self._recent(tags, find_created))
        yield from islice(tags, self.limit)

    def _recent(
        self, tags: Iterable[str], find_created: FindCreated
    ) -> Iterator[tuple[str, float | None]]:
        """Yield the tags of images that are new enough, with their dates."""
        iterator = iter(tags)
        size = _MAX_BATCH if self.order is SortOrder.CREATED else self.limit or _MAX_BATCH
        size = min(max(size, _MIN_BATCH), _MAX_BATCH)
        while batch := list(islice(iterator, size)):
            for tag, created in zip(batch, find_created(batch), strict=True):
                if self.oldest is None or (created is not None and created > self.oldest):
                    yield tag, created
                elif created is None:
                    self.undated.add(tag)

    def _newest(self, dated: Iterable[tuple[str, float | None]]) -> list[str]:
        """Return the newest first; those without a date come last, in alphanumeric order."""
        undated: list[str] = []

        def keyed() -> Iterator[tuple[_Key, str]]:
            for tag, created in dated:
                if created is None:
                    undated.append(tag)
                yield (created is not None, created or 0.0, _name_key(tag)), tag

        selected = _sorted(keyed(), self.limit)
        left_out = {*undated}.difference(selected)
        for tag in undated:
            if tag in left_out:
                self.undated.add(tag)
        return selected


def _keyed(
    tags: Iterable[str], order: SortOrder, *, is_limited: bool
) -> Iterator[tuple[_Key, str]]:
    """Yield tags with their sort keys; the highest versions of a limited number are versions."""
    for tag in tags:
        if order is SortOrder.ALPHANUMERIC:
            yield _name_key(tag), tag
            continue
        version = Version.parse(tag)
        if version is not None:
            yield (True, version, tag), tag
        elif not is_limited:
            yield (False, _name_key(tag)), tag


def _sorted(keyed: Iterable[tuple[_Key, str]], limit: int | None) -> list[str]:
    """Return tags by their keys, the highest first."""
    if limit is not None:
        return [tag for _, tag in heapq.nlargest(limit, keyed)]
    return [tag for _, tag in sorted(keyed, reverse=True)]


def _name_key(tag: str) -> _Key:
    """Return the sort key of a name: numbers in it are compared as numbers, before letters."""
    parts = _NUMBER.split(tag)
    return tuple(
        (0, int(part), part) if part.isdecimal() else (1, 0, part) for part in parts if part
    )
