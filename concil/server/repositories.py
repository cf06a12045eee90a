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

import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from concil.config import MIB
from concil.content import Descriptor, Digest, Manifest
from concil.errors import ConcilError, InvalidDigest, NotFound
from concil.server.names import Names
from concil.store.layout import Layout
from concil.store.layout_disk import OWN, Tree

logger = logging.getLogger(__name__)

_HOME = f"{OWN}/repositories"
_MARKER_LIMIT = 1024  # bytes
_MANIFEST_LIMIT = 32 * MIB  # bytes; what somebody else put into the layout may be large


@dataclass(slots=True)
class Reached:
    """What can be reached from some manifests, themselves included."""

    manifests: dict[Digest, str] = field(default_factory=dict)  # media types, children last
    blobs: set[Digest] = field(default_factory=set)
    subjects: dict[Digest, Digest] = field(default_factory=dict)  # of manifests


class Repositories:
    """The members of every repository. Any thread may call any method."""

    def __init__(self, layout: Layout) -> None:
        """Use an open layout; nothing is written until something is added."""
        self.names = Names(layout)
        self._layout = layout
        self._tree = Tree(layout.path)
        self._lock = threading.Lock()  # guards _cache and _subjects
        self._cache: dict[str, tuple[frozenset[Digest], Reached]] = {}
        self._subjects: dict[Digest, Digest | None] = {}  # of manifests; it never changes
        # Held over disk writes on purpose: it guards files. Only one thread at a time
        # turns what is reached into markers, or removes some.
        self._changing = threading.Lock()

    def all(self) -> list[str]:
        """The names of all repositories that hold something, in ASCII order."""
        home = self._layout.path / _HOME
        found = {str(place.relative_to(home)) for place in _marked(home)}
        return sorted(found | set(self.names.all()))

    def exists(self, repository: str) -> bool:
        """Whether a repository holds something."""
        home = self._layout.path / _HOME / repository
        return repository in self.names.all() or any(
            (home / part).is_dir() for part in ("_blobs", "_manifests")
        )

    def holds_blob(self, repository: str, digest: Digest) -> bool:
        """Whether a blob belongs to a repository."""
        if self._tree.size(_marker(repository, "_blobs", digest)) is not None:
            return True
        return digest in self._reached(repository).blobs

    def manifest_type(self, repository: str, digest: Digest) -> str | None:
        """The media type of a manifest of a repository; None if it has no such."""
        try:
            text, _ = self._tree.read(_marker(repository, "_manifests", digest), _MARKER_LIMIT)
        except NotFound:
            return self._reached(repository).manifests.get(digest)
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
        subjects = self._reached(repository).subjects
        found |= {digest for digest, target in subjects.items() if target == subject}
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
            self._adopt(repository)
            return self._tree.remove(_marker(repository, "_blobs", digest))

    def remove_manifest(self, repository: str, digest: Digest) -> bool:
        """Let a manifest and its tags no longer belong to a repository; False if it did not."""
        with self._changing:
            self._adopt(repository)
            tags = self.names.of(repository).tags
            self.names.remove_tags(
                repository, [tag for tag, entry in tags.items() if entry.digest == digest]
            )
            return self._tree.remove(_marker(repository, "_manifests", digest))

    def set_tag(self, repository: str, tag: str, descriptor: Descriptor) -> None:
        """Let a tag mean a manifest of the repository; what it meant before is kept."""
        with self._changing:
            if tag in self.names.of(repository).tags:
                self._adopt(repository)
            self.names.set_tag(repository, tag, descriptor)

    def remove_tag(self, repository: str, tag: str) -> bool:
        """Remove a tag; False if there is none. Its manifest is kept."""
        with self._changing:
            if tag not in self.names.of(repository).tags:
                return False
            self._adopt(repository)
            self.names.remove_tags(repository, [tag])
            return True

    def _adopt(self, repository: str) -> None:
        """Mark what belongs to a repository by its entries alone, before an entry goes.

        Children come before their parents: a root that is marked is complete.
        """
        reached = self._reached(repository)
        for digest in reached.blobs:
            self.add_blob(repository, digest)
        for digest, media_type in reversed(reached.manifests.items()):
            self.add_manifest(repository, digest, media_type, reached.subjects.get(digest))

    def _reached(self, repository: str) -> Reached:
        """What belongs to a repository without a marker of its own.

        Roots with a marker are left out: what is below them was marked before them.
        That keeps a push of many tags from walking through all that came before.
        """
        roots = {
            digest: entry
            for digest, entry in self.names.of(repository).roots.items()
            if self._tree.size(_marker(repository, "_manifests", digest)) is None
        }
        nameless = self.names.nameless()
        state = frozenset(roots) | frozenset(entry.digest for entry in nameless)
        with self._lock:
            cached = self._cache.get(repository)
            if cached is not None and cached[0] == state:
                return cached[1]
        reached = Reached()
        self._walk(list(roots.values()), reached)
        while about := [e for e in nameless if self._refers(repository, e, reached)]:
            self._walk(about, reached)
        with self._lock:
            if state:
                self._cache[repository] = (state, reached)
            else:
                self._cache.pop(repository, None)
        return reached

    def _refers(self, repository: str, entry: Descriptor, reached: Reached) -> bool:
        """Whether an entry that is not reached yet refers to a manifest of the repository."""
        if entry.digest in reached.manifests:
            return False
        subject = self._subject(entry)
        if subject is None:
            return False
        is_marked = self._tree.size(_marker(repository, "_manifests", subject)) is not None
        return is_marked or subject in reached.manifests

    def _subject(self, entry: Descriptor) -> Digest | None:
        with self._lock:
            if entry.digest in self._subjects:
                return self._subjects[entry.digest]
        try:
            body = self._layout.read_blob(entry.digest, _MANIFEST_LIMIT)
            manifest = Manifest.parse(body, entry.media_type)
            manifest.blobs(), manifest.children()  # what cannot be read is not reached either
            found = manifest.subject.digest if manifest.subject is not None else None
        except ConcilError:
            found = None
        with self._lock:
            self._subjects[entry.digest] = found
        return found

    def _walk(self, todo: list[Descriptor], reached: Reached) -> None:
        """Find what can be reached, parents before their children; circles do no harm."""
        while todo:
            entry = todo.pop(0)
            if entry.digest in reached.manifests:
                continue
            try:
                body = self._layout.read_blob(entry.digest, _MANIFEST_LIMIT)
                manifest = Manifest.parse(body, entry.media_type)
                blobs, subject = manifest.blobs(), manifest.subject
                children = manifest.children()
            except ConcilError as error:
                # Usual for an index of which only some platforms were copied.
                logger.debug("%s is not served: %s", entry.digest, error)
                continue
            reached.manifests[entry.digest] = manifest.media_type
            reached.blobs.update(blob.digest for blob in blobs)
            if subject is not None:
                reached.subjects[entry.digest] = subject.digest
            # An index may list blobs as well, as the caches of BuildKit do.
            todo += [child for child in children if child.is_manifest]
            reached.blobs.update(child.digest for child in children if not child.is_manifest)


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
