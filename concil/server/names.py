"""Which repository and tag an entry of a layout's index.json stands for."""

from __future__ import annotations

import bisect
import contextlib
import logging
import re
import threading
from collections.abc import Callable, Iterator
from typing import Self

from concil.content import Descriptor, Digest
from concil.errors import InvalidReference, shown
from concil.reference import check_repository, check_tag
from concil.store.layout import Layout
from concil.store.layout_index import FULL_NAME, REF_NAME, Mark
from concil.store.multimap import Multimap

logger = logging.getLogger(__name__)


class Named:
    """What index.json holds for one repository. One thread at a time."""

    def __init__(self) -> None:
        """Begin without any entry."""
        # By tag: names in index.json, and the entries; the first of them counts.
        self._tags: Multimap[str, tuple[str, Descriptor]] = Multimap()
        self._sorted: list[str] | None = None
        self._roots: dict[Digest, int] = {}  # how many entries there are, tagged or not
        self.new: dict[Digest, Descriptor] = {}  # roots that `Repositories` has not looked at
        self.gone: set[Digest] = set()  # roots that it has, and that are there no more

    @property
    def tags(self) -> list[str]:
        """All tags, in ASCII order."""
        if self._sorted is None:
            self._sorted = sorted(self._tags)
        return self._sorted[:]

    def tag(self, tag: str) -> Descriptor | None:
        """What a tag means; None: there is no such tag."""
        first = self._tags.first(tag)
        return None if first is None else first[1]

    def names(self, tag: str) -> list[str]:
        """The names of a tag, as index.json has them."""
        return [name for name, _ in self._tags.of(tag)]

    def tags_of(self, digest: Digest) -> list[str]:
        """The tags that mean a manifest."""
        if digest not in self._roots:
            return []
        found = ((tag, self.tag(tag)) for tag in self._tags)
        return [tag for tag, entry in found if entry is not None and entry.digest == digest]

    def add(self, name: str, tag: str | None, entry: Descriptor) -> None:
        """Add an entry."""
        count = self._roots[entry.digest] = self._roots.get(entry.digest, 0) + 1
        if count == 1:
            self.new[entry.digest] = entry
        if tag is None:
            return
        if tag not in self._tags and self._sorted is not None:
            bisect.insort(self._sorted, tag)
        self._tags.add(tag, (name, entry))

    def remove(self, name: str, tag: str | None, entry: Descriptor) -> None:
        """Remove an entry."""
        self._roots[entry.digest] -= 1
        if not self._roots[entry.digest]:
            del self._roots[entry.digest]
            self.gone.add(entry.digest)
            self.new.pop(entry.digest, None)
        if tag is not None:
            self._tags.discard(tag, (name, entry))
            if tag not in self._tags:
                self._sorted = None

    def __bool__(self) -> bool:
        """Whether there are entries."""
        return bool(self._roots)


class Names:
    """The entries of index.json by repository. Any thread may call any method."""

    def __init__(self, layout: Layout) -> None:
        """Read nothing; the directory's name stands in where an entry names no repository."""
        self._layout = layout
        self._fallback = _repository_name(layout.path.resolve().name)
        self._lock = threading.RLock()  # guards the fields below
        self._mark: Mark | None = None  # how far index.json was looked at
        self._named: dict[str, Named] = {}
        self.nameless = Named()  # entries without any name: referrers, perhaps
        self.number = 0  # how often all that was known of index.json became void

    @contextlib.contextmanager
    def current(self) -> Iterator[Self]:
        """Keep the lock, with all that index.json holds now."""
        with self._lock:
            found = self._layout.edits_since(self._mark)
            self._mark = found.mark
            if found.anew:
                self._named, self.nameless = {}, Named()
                self.number += 1
            for gone, came in found.edits:
                for entry in gone:
                    self._each(entry, Named.remove)
                if came is not None:
                    self._each(came, Named.add)
            yield self

    def all(self) -> list[str]:
        """The repositories that index.json holds something for."""
        with self.current():
            return [repository for repository, named in self._named.items() if named]

    def of(self, repository: str) -> Named:
        """What index.json holds for a repository, perhaps nothing. The caller keeps the lock."""
        return self._named.get(repository) or Named()

    def tags(self, repository: str) -> list[str] | None:
        """The tags of a repository, in ASCII order; None: index.json holds nothing for it."""
        with self.current():
            return self._named[repository].tags if self._named.get(repository) else None

    def tag(self, repository: str, tag: str) -> Descriptor | None:
        """What a tag of a repository means; None: there is no such tag."""
        with self.current():
            return self.of(repository).tag(tag)

    def set_tag(self, repository: str, tag: str, descriptor: Descriptor) -> None:
        """Let a tag mean a manifest, under the name it has or as ``repository:tag``."""
        with self.current():
            names = self.of(repository).names(tag) or [f"{repository}:{tag}"]
        for name in names:
            self._layout.set_entry(name, descriptor)

    def remove_tags(self, repository: str, tags: list[str]) -> None:
        """Remove tags, under all the names they have."""
        with self.current():
            names = [name for tag in tags for name in self.of(repository).names(tag)]
        for name in names:
            self._layout.remove_entry(name)

    def _each(
        self, entry: Descriptor, change: Callable[[Named, str, str | None, Descriptor], None]
    ) -> None:
        """Add or remove an entry where it belongs."""
        if not {FULL_NAME, REF_NAME} & entry.annotations.keys():
            change(self.nameless, "", None, entry)
        # containerd tells the repository only in the full name.
        name = entry.annotations.get(FULL_NAME) or entry.annotations.get(REF_NAME, "")
        place = place_of(name, self._fallback)
        if place is None:
            logger.warning("index.json has %s, which no registry can serve", shown(name))
            return
        repository, tag = place
        change(self._named.setdefault(repository, Named()), name, tag, entry)


def place_of(name: str, fallback: str) -> tuple[str, str | None] | None:
    """The repository and the tag that the name of an entry stands for.

    Args:
        name: containerd's full name or org.opencontainers.image.ref.name, "" if there is none.
        fallback: the repository of names that are only a tag, or empty.

    Returns:
        None where the name has no form that a registry could serve; a tag of None
        where the entry can only be had by its digest.
    """
    plain, pinned, _ = name.partition("@")
    head, colon, tail = plain.rpartition(":")
    tag: str | None
    if not plain:
        repository, tag = fallback, None
    elif colon and "/" not in tail:
        repository, tag = head, tail
    elif pinned:
        repository, tag = plain, None
    elif "/" in plain:
        repository, tag = plain, "latest"
    else:
        repository, tag = fallback, plain
    try:
        return check_repository(repository), None if tag is None else check_tag(tag)
    except InvalidReference:
        return None


def _repository_name(directory: str) -> str:
    parts = re.findall(r"[a-z0-9]+", directory.lower())
    return "-".join(parts)[:200] or "layout"
