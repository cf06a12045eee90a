"""Repositories and tags from the entries of index.json."""

from __future__ import annotations

import bisect
import contextlib
import logging
import re
import threading
from collections.abc import Callable, Iterator
from typing import Self

from concil.errors import InvalidReference, safe_repr
from concil.oci.descriptor import Descriptor
from concil.oci.manifest import Digest
from concil.oci.reference import check_repository, check_tag
from concil.store.layout.index import CONTAINERD_IMAGE_NAME, REF_NAME, Mark
from concil.store.layout.multimap import Multimap
from concil.store.layout.store import LayoutDirectory

logger = logging.getLogger(__name__)


class RepositoryEntries:
    """The entries of index.json for one repository. Not thread-safe."""

    def __init__(self) -> None:
        """Create it without entries."""
        # By tag: pairs of an entry's name in index.json and the entry; the first one counts.
        self._tags: Multimap[str, tuple[str, Descriptor]] = Multimap()
        self._sorted: list[str] | None = None
        self._roots: dict[Digest, int] = {}  # number of entries, tagged or not
        self.added_roots: dict[
            Digest, Descriptor
        ] = {}  # roots that `RepositoryIndex` has not walked
        self.removed_roots: set[Digest] = set()  # removed roots that it has walked

    @property
    def tags(self) -> list[str]:
        """The tags, in ASCII order."""
        if self._sorted is None:
            self._sorted = sorted(self._tags)
        return self._sorted[:]

    def tag(self, tag: str) -> Descriptor | None:
        """Return the descriptor of a tag; None if there is none."""
        first = self._tags.first(tag)
        return None if first is None else first[1]

    def entry_names(self, tag: str) -> list[str]:
        """Return the names of a tag's entries in index.json."""
        return [name for name, _ in self._tags.of(tag)]

    def tags_of(self, digest: Digest) -> list[str]:
        """Return the tags of a manifest."""
        if digest not in self._roots:
            return []
        entries = ((tag, self.tag(tag)) for tag in self._tags)
        return [tag for tag, entry in entries if entry is not None and entry.digest == digest]

    def add(self, name: str, tag: str | None, entry: Descriptor) -> None:
        """Add an entry."""
        count = self._roots[entry.digest] = self._roots.get(entry.digest, 0) + 1
        if count == 1:
            self.added_roots[entry.digest] = entry
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
            self.removed_roots.add(entry.digest)
            self.added_roots.pop(entry.digest, None)
        if tag is not None:
            self._tags.discard(tag, (name, entry))
            if tag not in self._tags:
                self._sorted = None

    def __bool__(self) -> bool:
        """Return whether there are entries."""
        return bool(self._roots)


class TagIndex:
    """The entries of index.json by repository. Thread-safe."""

    def __init__(self, layout: LayoutDirectory) -> None:
        """Use a layout; its directory name is the repository of entries that name none."""
        self._layout = layout
        self._default_repository = _default_repository_name(layout.path.resolve().name)
        self._lock = threading.RLock()  # guards the fields below
        self._mark: Mark | None = None  # how far index.json was read
        self._by_repository: dict[str, RepositoryEntries] = {}
        self.unnamed_entries = RepositoryEntries()  # entries without a name; they may be referrers
        self.number = 0  # how often index.json had to be read anew

    @contextlib.contextmanager
    def current(self) -> Iterator[Self]:
        """Yield the index, up to date and with its lock held."""
        with self._lock:
            changes = self._layout.edits_since(self._mark)
            self._mark = changes.mark
            if changes.anew:
                self._by_repository, self.unnamed_entries = {}, RepositoryEntries()
                self.number += 1
            for removed, added in changes.edits:
                for entry in removed:
                    self._each(entry, RepositoryEntries.remove)
                if added is not None:
                    self._each(added, RepositoryEntries.add)
            yield self

    def get_all(self) -> list[str]:
        """Return the repositories that have entries."""
        with self.current():
            return [repository for repository, entries in self._by_repository.items() if entries]

    def get(self, repository: str) -> RepositoryEntries:
        """Return the entries of a repository, which may be empty. The caller holds the lock."""
        return self._by_repository.get(repository) or RepositoryEntries()

    def tags(self, repository: str) -> list[str] | None:
        """Return the tags of a repository in ASCII order; None if it has no entries."""
        with self.current():
            return (
                self._by_repository[repository].tags
                if self._by_repository.get(repository)
                else None
            )

    def tag(self, repository: str, tag: str) -> Descriptor | None:
        """Return the descriptor of a tag; None if there is none."""
        with self.current():
            return self.get(repository).tag(tag)

    def set_tag(self, repository: str, tag: str, descriptor: Descriptor) -> None:
        """Set a tag in all its entries, or in a new one named ``repository:tag``."""
        with self.current():
            names = self.get(repository).entry_names(tag) or [f"{repository}:{tag}"]
        for name in names:
            self._layout.set_entry(name, descriptor)

    def remove_tags(self, repository: str, tags: list[str]) -> None:
        """Remove all entries of the tags."""
        with self.current():
            names = [name for tag in tags for name in self.get(repository).entry_names(tag)]
        for name in names:
            self._layout.remove_entry(name)

    def _each(
        self,
        entry: Descriptor,
        change: Callable[[RepositoryEntries, str, str | None, Descriptor], None],
    ) -> None:
        """Add or remove an entry in its repository."""
        if not {CONTAINERD_IMAGE_NAME, REF_NAME} & entry.annotations.keys():
            change(self.unnamed_entries, "", None, entry)
        # Only containerd's full name has the repository.
        name = entry.annotations.get(CONTAINERD_IMAGE_NAME) or entry.annotations.get(REF_NAME, "")
        location = parse_entry_name(name, self._default_repository)
        if location is None:
            logger.warning(
                "index.json contains %s, which is not a valid tag or repository for a registry",
                safe_repr(name),
            )
            return
        repository, tag = location
        change(self._by_repository.setdefault(repository, RepositoryEntries()), name, tag, entry)


def parse_entry_name(name: str, default_repository: str) -> tuple[str, str | None] | None:
    """Return the repository and tag that an entry's name stands for.

    Args:
        name: containerd's full name or org.opencontainers.image.ref.name; "" if there is none.
        default_repository: the repository of names that are empty or only a tag.

    Returns:
        None if no registry could serve the name; the tag is None if the entry can only be
        pulled by digest.
    """
    image_name, at_sign, _ = name.partition("@")
    before_colon, colon, after_colon = image_name.rpartition(":")
    tag: str | None
    if not image_name:
        repository, tag = default_repository, None
    elif colon and "/" not in after_colon:
        repository, tag = before_colon, after_colon
    elif at_sign:
        repository, tag = image_name, None
    elif "/" in image_name:
        repository, tag = image_name, "latest"
    else:
        repository, tag = default_repository, image_name
    try:
        return check_repository(repository), None if tag is None else check_tag(tag)
    except InvalidReference:
        return None


def _default_repository_name(directory: str) -> str:
    parts = re.findall(r"[a-z0-9]+", directory.lower())
    return "-".join(parts)[:200] or "layout"
