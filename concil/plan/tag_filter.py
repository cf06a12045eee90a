"""Selects the tags of a repository."""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterable, Iterator

from concil.plan.versions import Version, VersionRange
from concil.runtime.dataclass import dataclass


def compile_pattern(text: str) -> re.Pattern[str]:
    """Compile a regular expression of a plan.

    Raises:
        re.error: it is invalid, or Python cannot compile it.
    """
    try:
        return re.compile(text)
    except RecursionError as error:
        raise re.error("it is nested too deeply") from error
    except OverflowError as error:
        raise re.error(str(error)) from error


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

    @property
    def needs_listing(self) -> bool:
        """Whether the tags of the repository have to be listed."""
        conditions = (self.pattern, self.version_range, self.latest)
        return not self.names or any(condition is not None for condition in conditions)

    def select(self, tags: Iterable[str]) -> Iterator[str]:
        """Yield the selected tags, each once.

        Args:
            tags: the tags of the repository, read lazily; only ``latest`` reads all of them
                before it yields, and keeps no more than it yields.
        """
        listed = [tag for tag in dict.fromkeys(self.names) if not self._is_excluded(tag)]
        yield from listed
        if not self.needs_listing:
            return
        matching = (tag for tag in tags if tag not in listed and self._matches(tag))
        if self.latest is None:
            yield from matching
            return
        versions = ((Version.parse(tag), tag) for tag in matching)
        numbered = ((version, tag) for version, tag in versions if version is not None)
        for _, tag in heapq.nlargest(self.latest, numbered):
            yield tag

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
        numbered = self.latest is None or Version.parse(tag) is not None
        return numbered and self._matches(tag)

    def is_immutable(self, tag: str) -> bool:
        """Return whether a tag is declared never to change."""
        return any(pattern.fullmatch(tag) for pattern in self.immutable)

    def _is_excluded(self, tag: str) -> bool:
        return any(pattern.fullmatch(tag) for pattern in self.excluded)
