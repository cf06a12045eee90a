"""Which repository and tag an entry of a layout's index.json stands for."""

from __future__ import annotations

import functools
import logging
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

from concil.content import Descriptor, Digest
from concil.errors import InvalidReference, shown
from concil.reference import check_repository, check_tag
from concil.store.layout import Layout
from concil.store.layout_index import FULL_NAME, REF_NAME

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Named:
    """What index.json holds for one repository."""

    tags: dict[str, Descriptor] = field(default_factory=dict)
    names: dict[str, list[str]] = field(default_factory=dict)  # of a tag, as index.json has them
    roots: dict[Digest, Descriptor] = field(default_factory=dict)  # tagged or not


class Names:
    """The entries of index.json by repository. Any thread may call any method."""

    def __init__(self, layout: Layout) -> None:
        """Read nothing; the directory's name stands in where an entry names no repository."""
        self._layout = layout
        self._fallback = _repository_name(layout.path.resolve().name)
        self._lock = threading.Lock()  # guards the three below
        self._seen: tuple[Descriptor, ...] | None = None
        self._named: dict[str, Named] = {}
        self._nameless: tuple[Descriptor, ...] = ()

    def of(self, repository: str) -> Named:
        """What index.json holds for a repository, perhaps nothing; not to be changed."""
        return self.all().get(repository) or Named()

    def all(self) -> Mapping[str, Named]:
        """What index.json holds, by repository."""
        entries = self._layout.entries()
        with self._lock:
            if entries is self._seen:
                return self._named
        named = self._sorted(entries)
        nameless = tuple(e for e in entries if not {FULL_NAME, REF_NAME} & e.annotations.keys())
        with self._lock:
            self._seen, self._named, self._nameless = entries, named, nameless
        return named

    def nameless(self) -> tuple[Descriptor, ...]:
        """The entries without any name: referrers of images in other repositories, perhaps."""
        self.all()
        with self._lock:
            return self._nameless

    def set_tag(self, repository: str, tag: str, descriptor: Descriptor) -> None:
        """Let a tag mean a manifest, under the name it has or as ``repository:tag``."""
        names = self.of(repository).names.get(tag) or [f"{repository}:{tag}"]
        for name in names:
            self._layout.set_entry(name, descriptor)

    def remove_tags(self, repository: str, tags: list[str]) -> None:
        """Remove tags, under all the names they have."""
        names = self.of(repository).names
        for name in (name for tag in tags for name in names.get(tag, ())):
            self._layout.remove_entry(name)

    def _sorted(self, entries: tuple[Descriptor, ...]) -> dict[str, Named]:
        named: dict[str, Named] = {}
        for entry in entries:
            # containerd tells the repository only in the full name.
            name = entry.annotations.get(FULL_NAME) or entry.annotations.get(REF_NAME, "")
            place = place_of(name, self._fallback)
            if place is None:
                logger.warning("index.json has %s, which no registry can serve", shown(name))
                continue
            repository, tag = place
            group = named.setdefault(repository, Named())
            group.roots[entry.digest] = entry
            if tag is not None:
                group.tags.setdefault(tag, entry)
                group.names.setdefault(tag, []).append(name)
        return named


@functools.lru_cache(maxsize=65536)
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
