"""Selects the tags of a repository."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Sequence

from concil.errors import UsageError
from concil.plan.selection.order import FindCreated, SortOrder, TagOrder
from concil.plan.versions import Version, VersionRange
from concil.runtime.dataclass import dataclass
from concil.runtime.recursion import pause_collection


def compile_pattern(text: str) -> re.Pattern[str]:
    """Compile a regular expression of a plan.

    Raises:
        re.error: it is invalid, or Python cannot compile it.
    """
    try:
        with pause_collection():
            return re.compile(text)
    except RecursionError as error:
        raise re.error("it is nested too deeply") from error
    except OverflowError as error:
        raise re.error(str(error)) from error


def _find_no_dates(_tags: Sequence[str]) -> Sequence[float | None]:
    raise UsageError("the creation dates of images cannot be found here")


@dataclass(frozen=True, slots=True)
class TagFilter:
    """Selects tags; without any condition it selects all of them.

    A tag is selected if it is listed, or if it meets all other conditions; ``excluded``
    overrides both.
    """

    names: tuple[str, ...] = ()
    pattern: re.Pattern[str] | None = None  # matches the whole tag
    version_range: VersionRange | None = None
    latest: int | None = None  # only this many of the highest matching versions
    excluded: tuple[re.Pattern[str], ...] = ()  # each matches the whole tag
    immutable: tuple[re.Pattern[str], ...] = ()  # selected tags that never change
    keep: int | None = None  # only this many of the newest images, or of the first in ``sort``
    newer_than: float | None = None  # seconds; only images that were created since
    sort: SortOrder | None = None  # None: by date for ``keep``, by version for ``latest``

    @property
    def needs_listing(self) -> bool:
        """Whether the tags of the repository have to be listed."""
        conditions = (self.pattern, self.version_range, self.limit, self.newer_than)
        return not self.names or any(condition is not None for condition in conditions)

    @property
    def limit(self) -> int | None:
        """The number of tags to select among those that match; None: all."""
        return self.latest if self.keep is None else self.keep

    @property
    def sort_order(self) -> SortOrder | None:
        """The order of the tags that match; None: that of the list."""
        if self.sort is not None or self.limit is None:
            return self.sort
        return SortOrder.CREATED if self.latest is None else SortOrder.SEMVER

    def order(self, now: float) -> TagOrder:
        """Return the order and the limits of the tags that match.

        Args:
            now: seconds since the epoch.
        """
        oldest = None if self.newer_than is None else now - self.newer_than
        return TagOrder(self.sort_order, self.limit, oldest)

    def select(
        self,
        tags: Iterable[str],
        order: TagOrder | None = None,
        find_created: FindCreated = _find_no_dates,
    ) -> Iterator[str]:
        """Yield the selected tags, each once.

        Args:
            tags: the tags of the repository, read lazily; all of them are read before the first
                one is yielded if they have an order.
            order: that of the method of this name; None: it is not needed afterwards.
            find_created: finds the dates of images.
        Raises:
            As ``find_created``.
        """
        listed = [tag for tag in dict.fromkeys(self.names) if not self._is_excluded(tag)]
        yield from listed
        if not self.needs_listing:
            return
        matching = (tag for tag in tags if tag not in listed and self._matches(tag))
        yield from (order or self.order(time.time())).apply(matching, find_created)

    def _matches(self, tag: str) -> bool:
        if self._is_excluded(tag) or (self.pattern is not None and not self.pattern.fullmatch(tag)):
            return False
        if self.version_range is None:
            return True
        version = Version.parse(tag)
        return version is not None and version in self.version_range

    def is_match(self, tag: str) -> bool:
        """Return whether a tag is one that a listing is searched for.

        False for a tag that is named, which is selected whether or not it is listed, and for one
        that is declared immutable.
        """
        if not self.needs_listing or tag in self.names or self.is_immutable(tag):
            return False
        # Of a limited number of tags by version, those without version are none.
        by_version = self.limit is not None and self.sort_order is SortOrder.SEMVER
        return self._matches(tag) and not (by_version and Version.parse(tag) is None)

    def is_immutable(self, tag: str) -> bool:
        """Return whether a tag is declared never to change."""
        return any(pattern.fullmatch(tag) for pattern in self.immutable)

    def _is_excluded(self, tag: str) -> bool:
        return any(pattern.fullmatch(tag) for pattern in self.excluded)
