"""Which tags of a repository a plan asks for."""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from concil.plan.versions import Version, VersionRange


def compile_pattern(text: str) -> re.Pattern[str]:
    """Compile a regular expression that somebody wrote into a plan.

    Raises:
        re.error: it is none, or none that Python can compile.
    """
    try:
        return re.compile(text)
    except RecursionError as error:
        raise re.error("it nests too deep") from error
    except OverflowError as error:
        raise re.error(str(error)) from error


@dataclass(frozen=True, slots=True)
class TagFilter:
    """Chooses tags. Without any condition it chooses all of them.

    A tag is chosen if it is listed, or meets every other condition that is given;
    ``exclude`` has the last word.
    """

    listed: tuple[str, ...] = ()
    match: re.Pattern[str] | None = None  # the whole tag
    versions: VersionRange | None = None
    latest: int | None = None  # so many of the highest versions among those that match
    exclude: tuple[re.Pattern[str], ...] = ()  # the whole tag, each
    immutable: tuple[re.Pattern[str], ...] = ()  # of what is chosen: never another image

    @property
    def needs_listing(self) -> bool:
        """Whether the repository has to be asked for its tags."""
        conditions = (self.match, self.versions, self.latest)
        return not self.listed or any(one is not None for one in conditions)

    def choose(self, tags: Iterable[str]) -> Iterator[str]:
        """Yield the tags that are chosen, each once.

        Args:
            tags: what the repository has, read as they come; only ``latest`` reads all
                of them first, and then keeps no more than it yields.
        """
        listed = [tag for tag in dict.fromkeys(self.listed) if not self._excluded(tag)]
        yield from listed
        if not self.needs_listing:
            return
        found = (tag for tag in tags if tag not in listed and self._meets(tag))
        if self.latest is None:
            yield from found
            return
        versions = ((Version.parse(tag), tag) for tag in found)
        numbered = ((version, tag) for version, tag in versions if version is not None)
        for _, tag in heapq.nlargest(self.latest, numbered):
            yield tag

    def _meets(self, tag: str) -> bool:
        if self._excluded(tag) or (self.match is not None and not self.match.fullmatch(tag)):
            return False
        if self.versions is None:
            return True
        version = Version.parse(tag)
        return version is not None and version in self.versions

    def covers(self, tag: str) -> bool:
        """Whether a tag is one of those that a listing is searched for.

        Not so a tag that is named, which is wanted whatever a listing says, and one that is
        declared immutable.
        """
        if not self.needs_listing or tag in self.listed or self.is_immutable(tag):
            return False
        numbered = self.latest is None or Version.parse(tag) is not None
        return numbered and self._meets(tag)

    def is_immutable(self, tag: str) -> bool:
        """Whether a tag is declared to name the same image for ever."""
        return any(pattern.fullmatch(tag) for pattern in self.immutable)

    def _excluded(self, tag: str) -> bool:
        return any(pattern.fullmatch(tag) for pattern in self.exclude)
