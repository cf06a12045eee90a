"""Which blobs and manifests belong to which repository.

A repository is a directory ``.concil/repositories/<name>`` with marker files below
``_blobs``, ``_manifests`` (the media type inside) and ``_referrers``. No part of a
repository's name begins with an underscore, so names cannot collide with them.
What an entry of index.json reaches belongs to the entry's repository without any
marker, so that a layout somebody else wrote can be served as it is. Entries without a
name that refer to a manifest of a repository belong to that, too: so signatures are
found that were copied into the layout.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

from concil.config import MIB
from concil.content import Descriptor, Digest, Manifest
from concil.errors import InvalidDigest, NotFound
from concil.server.names import Named, Names
from concil.server.walks import Walks
from concil.store.layout import Layout
from concil.store.layout_disk import OWN, Tree

_HOME = f"{OWN}/repositories"
_MARKER_LIMIT = 1024  # bytes
_MANIFEST_LIMIT = 32 * MIB  # bytes; what somebody else put into the layout may be large


class Repositories:
    """The members of every repository. Any thread may call any method."""

    def __init__(self, layout: Layout) -> None:
        """Use an open layout; nothing is written until something is added."""
        self.names = Names(layout)
        self._layout = layout
        self._tree = Tree(layout.path)
        # Both by the lock of the names.
        self._walks: dict[str, Walks] = {}  # by repository, from roots without a marker
        self._loose = Walks(self._read)  # from entries without a name
        self._number = 0  # of the names that they are about
        # Held over disk writes on purpose: it guards files. Only one thread at a time
        # turns what is reached into markers, or removes some.
        self._changing = threading.Lock()

    def all(self) -> list[str]:
        """The names of all repositories that hold something, in ASCII order."""
        home = self._layout.path / _HOME
        found = {str(place.relative_to(home)) for place in _marked(home)}
        return sorted(found.union(self.names.all()))

    def exists(self, repository: str) -> bool:
        """Whether a repository holds something."""
        home = self._layout.path / _HOME / repository
        return self.names.tags(repository) is not None or any(
            (home / part).is_dir() for part in ("_blobs", "_manifests")
        )

    def holds_blob(self, repository: str, digest: Digest) -> bool:
        """Whether a blob belongs to a repository."""
        if self._tree.size(_marker(repository, "_blobs", digest)) is not None:
            return True
        with self._walked(repository) as walks:
            return bool(walks.roots_of(digest)) or self._is_loose(repository, digest)

    def manifest_type(self, repository: str, digest: Digest) -> str | None:
        """The media type of a manifest of a repository; None if it has no such."""
        try:
            text, _ = self._tree.read(_marker(repository, "_manifests", digest), _MARKER_LIMIT)
        except NotFound:
            with self._walked(repository) as walks:
                return self._reached_type(repository, walks, digest)
        return text.decode("ascii", "replace")

    def holder(self, digest: Digest) -> str | None:
        """Some repository that a blob belongs to."""
        return next((name for name in self.all() if self.holds_blob(name, digest)), None)

    def referrers(self, repository: str, subject: Digest) -> list[Digest]:
        """The manifests of a repository whose subject it is, in the order of their digests."""
        directory = self._layout.path / _HOME / repository / "_referrers" / subject.algorithm
        found = set()
        for name in _listed(directory / subject.hex):
            try:
                found.add(Digest.parse(name.replace("-", ":", 1)))
            except InvalidDigest:
                continue
        with self._walked(repository) as walks:
            found.update(walks.referrers(subject), self._loose.referrers(subject))
        return sorted((d for d in found if self.manifest_type(repository, d) is not None), key=str)

    def add_blob(self, repository: str, digest: Digest) -> None:
        """Let a blob belong to a repository."""
        name = _marker(repository, "_blobs", digest)
        if self._tree.size(name) is None:
            self._tree.replace(name, b"")

    def add_manifest(
        self, repository: str, digest: Digest, media_type: str, subject: Digest | None
    ) -> None:
        """Let a manifest belong to a repository."""
        if subject is not None:
            self._tree.replace(_referrer(repository, subject, digest), b"")
        name = _marker(repository, "_manifests", digest)
        self._tree.replace(name, media_type.encode("ascii", "replace"))

    def remove_blob(self, repository: str, digest: Digest) -> bool:
        """Let a blob no longer belong to a repository; False if it did not. The file stays."""
        with self._changing:
            self._adopt_around(repository, [digest])
            return self._tree.remove(_marker(repository, "_blobs", digest))

    def remove_manifest(self, repository: str, digest: Digest) -> bool:
        """Let a manifest and its tags no longer belong to a repository; False if it did not."""
        with self._changing:
            self._adopt_around(repository, [digest])
            with self.names.current():
                tags = self.names.of(repository).tags_of(digest)
            self.names.remove_tags(repository, tags)
            return self._tree.remove(_marker(repository, "_manifests", digest))

    def set_tag(self, repository: str, tag: str, descriptor: Descriptor) -> None:
        """Let a tag mean a manifest of the repository; what it meant before is kept."""
        with self._changing:
            before = self.names.tag(repository, tag)
            if before is not None:
                self._adopt(repository, before.digest)
            self.names.set_tag(repository, tag, descriptor)

    def remove_tag(self, repository: str, tag: str) -> bool:
        """Remove a tag; False if there is none. Its manifest is kept."""
        with self._changing:
            before = self.names.tag(repository, tag)
            if before is None:
                return False
            self._adopt(repository, before.digest)
            self.names.remove_tags(repository, [tag])
            return True

    def mark_members(self, repository: str, manifest: Manifest) -> None:
        """Mark what a manifest names, before it is marked itself.

        Some of it may belong to the repository only because an entry leads to it.
        """
        named = (*manifest.children(), *manifest.blobs())
        with self._changing:
            self._adopt_around(repository, [each.digest for each in named])

    def _adopt_around(self, repository: str, digests: Iterable[Digest]) -> None:
        """Adopt all from which something can be reached."""
        with self._walked(repository) as walks:
            roots = {root for digest in digests for root in walks.roots_of(digest)}
        for root in roots:
            self._adopt(repository, root)

    def _adopt(self, repository: str, root: Digest) -> None:
        """Mark what belongs to a repository by an entry alone, before the entry goes.

        Children come before their parents: a root that is marked is complete.
        """
        with self._walked(repository) as walks:
            walk = walks.walk(root)
        if walk is None:
            return
        for digest in walk.blobs:
            self.add_blob(repository, digest)
        for digest, media_type in reversed(walk.manifests.items()):
            self.add_manifest(repository, digest, media_type, walk.subjects.get(digest))
        with self._walked(repository) as walks:
            walks.remove(root)

    @contextlib.contextmanager
    def _walked(self, repository: str) -> Iterator[Walks]:
        """Keep the lock, with what belongs to a repository without a marker of its own.

        Roots with a marker are left out: what is below them was marked before them.
        That keeps a push of many tags from walking through all that came before.
        """
        with self.names.current() as names:
            if names.number != self._number:
                self._number, self._walks, self._loose = names.number, {}, Walks(self._read)
            self._look(names.nameless, self._loose, None)
            walks = self._walks.get(repository)
            if walks is None:
                walks = Walks(self._read)
                if names.of(repository):
                    self._walks[repository] = walks
            self._look(names.of(repository), walks, repository)
            yield walks

    def _look(self, named: Named, walks: Walks, repository: str | None) -> None:
        """Walk from the roots that are new.

        Args:
            repository: whose markers count; None: no markers count.
        """
        for root in named.gone:
            walks.remove(root)
        named.gone.clear()
        new, named.new = named.new, {}
        for root, entry in new.items():
            if repository is None or not self._is_marked(repository, root):
                walks.add(entry)

    def _reached_type(self, repository: str, walks: Walks, digest: Digest) -> str | None:
        """The media type of a manifest that entries lead to. The caller keeps the lock."""
        for root in walks.roots_of(digest):
            if (found := walks.manifest_type(root, digest)) is not None:
                return found
        for root in self._loose.roots_of(digest):
            found = self._loose.manifest_type(root, digest)
            if found is not None and self._refers(repository, walks, root):
                return found
        return None

    def _is_loose(self, repository: str, digest: Digest) -> bool:
        """Whether a referrer without name leads to a blob. The caller keeps the lock."""
        walks = self._walks.get(repository) or Walks(self._read)
        return any(self._refers(repository, walks, root) for root in self._loose.roots_of(digest))

    def _refers(self, repository: str, walks: Walks, root: Digest) -> bool:
        """Whether an entry without name refers to a manifest of the repository."""
        seen: set[Digest] = set()
        todo = [root]
        while todo:
            subject = self._loose.subject_of(todo.pop())
            if subject is None or subject in seen:
                continue
            seen.add(subject)
            if walks.roots_of(subject) or self._is_marked(repository, subject):
                return True
            todo += self._loose.roots_of(subject)
        return False

    def _is_marked(self, repository: str, digest: Digest) -> bool:
        return self._tree.size(_marker(repository, "_manifests", digest)) is not None

    def _read(self, entry: Descriptor) -> Manifest:
        body = self._layout.read_blob(entry.digest, _MANIFEST_LIMIT)
        return Manifest.parse(body, entry.media_type)


def _marker(repository: str, part: str, digest: Digest) -> str:
    return f"{_HOME}/{repository}/{part}/{digest.algorithm}/{digest.hex}"


def _referrer(repository: str, subject: Digest, digest: Digest) -> str:
    return f"{_marker(repository, '_referrers', subject)}/{digest.algorithm}-{digest.hex}"


def _marked(directory: Path) -> Iterator[Path]:
    """The directories of repositories at or below one, without following links."""
    below = _listed(directory)
    if "_blobs" in below or "_manifests" in below:
        yield directory
    for name in below:
        if not name.startswith("_") and not (directory / name).is_symlink():
            yield from _marked(directory / name)


def _listed(directory: Path) -> list[str]:
    try:
        return [path.name for path in directory.iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
