"""Which blobs and manifests each repository of a layout contains.

A repository is a directory ``.concil/repositories/<name>`` with marker files below
``_blobs``, ``_manifests`` (the file holds the media type) and ``_referrers``. No part of a
repository name starts with an underscore, so that names cannot collide with them.
Content reachable from an entry of index.json belongs to the entry's repository without
markers, so that a layout of another program can be served as it is. Unnamed entries
whose subject is a manifest of a repository belong to it, too: this finds signatures
that were copied into the layout.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

from concil.config import MIB
from concil.errors import InvalidDigest, NotFound
from concil.fs.nofollow_tree import PRIVATE_DIRECTORY, NoFollowTree
from concil.oci.descriptor import Descriptor
from concil.oci.manifest import Digest, Manifest
from concil.server.reachability import ReachabilityIndex
from concil.server.tag_index import RepositoryEntries, TagIndex
from concil.store.layout.store import LayoutDirectory

_REPOSITORIES_PATH = f"{PRIVATE_DIRECTORY}/repositories"
_MAX_MARKER_SIZE = 1024  # bytes
_MAX_MANIFEST_SIZE = 32 * MIB  # bytes; other programs may have written large manifests


class RepositoryIndex:
    """The members of every repository. Thread-safe."""

    def __init__(self, layout: LayoutDirectory) -> None:
        """Use an open layout; nothing is written until something is added."""
        self.tag_index = TagIndex(layout)
        self._layout = layout
        self._tree = NoFollowTree(layout.path)
        # The next three fields are guarded by the lock of the tag index.
        self._reachability_by_repository: dict[
            str, ReachabilityIndex
        ] = {}  # of roots without a marker
        self._unnamed_reachability = ReachabilityIndex(self._read)  # of unnamed entries
        self._number = 0  # version of the tag index that they belong to
        # Held during disk writes on purpose: it guards files. Only one thread at a time
        # converts reachable content to markers, or removes markers.
        self._write_lock = threading.Lock()

    def list_names(self) -> list[str]:
        """Return the names of all repositories that are not empty, in ASCII order."""
        repositories = self._layout.path / _REPOSITORIES_PATH
        names = {
            str(path.relative_to(repositories)) for path in _repository_directories(repositories)
        }
        return sorted(names.union(self.tag_index.get_all()))

    def exists(self, repository: str) -> bool:
        """Return whether a repository is not empty."""
        directory = self._layout.path / _REPOSITORIES_PATH / repository
        return self.tag_index.tags(repository) is not None or any(
            (directory / part).is_dir() for part in ("_blobs", "_manifests")
        )

    def has_blob(self, repository: str, digest: Digest) -> bool:
        """Return whether a blob belongs to a repository."""
        if self._tree.file_size(_marker_path(repository, "_blobs", digest)) is not None:
            return True
        with self._reachability(repository) as reachability:
            return bool(reachability.roots_of(digest)) or self._is_unnamed_referrer(
                repository, digest
            )

    def manifest_media_type(self, repository: str, digest: Digest) -> str | None:
        """Return the media type of a manifest of a repository; None if it is not a member."""
        try:
            text, _ = self._tree.read(
                _marker_path(repository, "_manifests", digest), _MAX_MARKER_SIZE
            )
        except NotFound:
            with self._reachability(repository) as reachability:
                return self._reached_type(repository, reachability, digest)
        return text.decode("ascii", "replace")

    def find_repository_of(self, digest: Digest) -> str | None:
        """Return any repository that a blob belongs to."""
        return next((name for name in self.list_names() if self.has_blob(name, digest)), None)

    def referrers(self, repository: str, subject: Digest) -> list[Digest]:
        """Return the manifests of a repository with the given subject, ordered by digest."""
        directory = (
            self._layout.path / _REPOSITORIES_PATH / repository / "_referrers" / subject.algorithm
        )
        digests = set()
        for name in _list_directory(directory / subject.hex):
            try:
                digests.add(Digest.parse(name.replace("-", ":", 1)))
            except InvalidDigest:
                continue
        with self._reachability(repository) as reachability:
            digests.update(
                reachability.referrers(subject), self._unnamed_reachability.referrers(subject)
            )
        return sorted(
            (d for d in digests if self.manifest_media_type(repository, d) is not None), key=str
        )

    def add_blob(self, repository: str, digest: Digest) -> None:
        """Add a blob to a repository."""
        name = _marker_path(repository, "_blobs", digest)
        if self._tree.file_size(name) is None:
            self._tree.replace(name, b"")

    def add_manifest(
        self, repository: str, digest: Digest, media_type: str, subject: Digest | None
    ) -> None:
        """Add a manifest to a repository."""
        if subject is not None:
            self._tree.replace(_referrer_path(repository, subject, digest), b"")
        name = _marker_path(repository, "_manifests", digest)
        self._tree.replace(name, media_type.encode("ascii", "replace"))

    def remove_blob(self, repository: str, digest: Digest) -> bool:
        """Remove a blob from a repository; return False if it is not a member. The file stays."""
        with self._write_lock:
            self._adopt_around(repository, [digest])
            return self._tree.remove(_marker_path(repository, "_blobs", digest))

    def remove_manifest(self, repository: str, digest: Digest) -> bool:
        """Remove a manifest and its tags from a repository; return False if it is not a member."""
        with self._write_lock:
            self._adopt_around(repository, [digest])
            with self.tag_index.current():
                tags = self.tag_index.get(repository).tags_of(digest)
            self.tag_index.remove_tags(repository, tags)
            return self._tree.remove(_marker_path(repository, "_manifests", digest))

    def set_tag(self, repository: str, tag: str, descriptor: Descriptor) -> None:
        """Set a tag of a repository; the manifest that it replaces stays a member."""
        with self._write_lock:
            previous = self.tag_index.tag(repository, tag)
            if previous is not None:
                self._write_markers(repository, previous.digest)
            self.tag_index.set_tag(repository, tag, descriptor)

    def remove_tag(self, repository: str, tag: str) -> bool:
        """Remove a tag; return False if there is none. Its manifest stays a member."""
        with self._write_lock:
            previous = self.tag_index.tag(repository, tag)
            if previous is None:
                return False
            self._write_markers(repository, previous.digest)
            self.tag_index.remove_tags(repository, [tag])
            return True

    def mark_members(self, repository: str, manifest: Manifest) -> None:
        """Write markers for the content of a manifest, before the manifest's own marker.

        The repository may have some of it only because it is reachable from an entry.
        """
        members = (*manifest.children(), *manifest.blobs())
        with self._write_lock:
            self._adopt_around(repository, [member.digest for member in members])

    def _adopt_around(self, repository: str, digests: Iterable[Digest]) -> None:
        """Write markers for all roots from which one of the digests is reachable."""
        with self._reachability(repository) as reachability:
            roots = {root for digest in digests for root in reachability.roots_of(digest)}
        for root in roots:
            self._write_markers(repository, root)

    def _write_markers(self, repository: str, root: Digest) -> None:
        """Write markers for the content of a root, before its entry is removed.

        Children come before their parents: a root with a marker is complete.
        """
        with self._reachability(repository) as reachability:
            reachable = reachability.walk(root)
        if reachable is None:
            return
        for digest in reachable.blobs:
            self.add_blob(repository, digest)
        for digest, media_type in reversed(reachable.manifests.items()):
            self.add_manifest(repository, digest, media_type, reachable.subjects.get(digest))
        with self._reachability(repository) as reachability:
            reachability.remove(root)

    @contextlib.contextmanager
    def _reachability(self, repository: str) -> Iterator[ReachabilityIndex]:
        """Yield the unmarked content of a repository, with the lock held.

        Roots with a marker are left out: their content has markers, too. This saves a push of
        many tags from walking all earlier ones.
        """
        with self.tag_index.current() as tag_index:
            if tag_index.number != self._number:
                self._number, self._reachability_by_repository, self._unnamed_reachability = (
                    tag_index.number,
                    {},
                    ReachabilityIndex(self._read),
                )
            self._update_reachability(tag_index.unnamed_entries, self._unnamed_reachability, None)
            reachability = self._reachability_by_repository.get(repository)
            if reachability is None:
                reachability = ReachabilityIndex(self._read)
                if tag_index.get(repository):
                    self._reachability_by_repository[repository] = reachability
            self._update_reachability(tag_index.get(repository), reachability, repository)
            yield reachability

    def _update_reachability(
        self, named: RepositoryEntries, walks: ReachabilityIndex, repository: str | None
    ) -> None:
        """Walk from new roots.

        Args:
            repository: skip roots with a marker in it; None: skip none.
        """
        for root in named.removed_roots:
            walks.remove(root)
        named.removed_roots.clear()
        new_roots, named.added_roots = named.added_roots, {}
        for root, entry in new_roots.items():
            if repository is None or not self._is_marked(repository, root):
                walks.add(entry)

    def _reached_type(
        self, repository: str, walks: ReachabilityIndex, digest: Digest
    ) -> str | None:
        """Return the media type of a reachable manifest. The caller holds the lock."""
        for root in walks.roots_of(digest):
            if (media_type := walks.manifest_type(root, digest)) is not None:
                return media_type
        for root in self._unnamed_reachability.roots_of(digest):
            media_type = self._unnamed_reachability.manifest_type(root, digest)
            if media_type is not None and self._is_referrer(repository, walks, root):
                return media_type
        return None

    def _is_unnamed_referrer(self, repository: str, digest: Digest) -> bool:
        """Return whether an unnamed referrer leads to a blob. The caller holds the lock."""
        reachability = self._reachability_by_repository.get(repository) or ReachabilityIndex(
            self._read
        )
        return any(
            self._is_referrer(repository, reachability, root)
            for root in self._unnamed_reachability.roots_of(digest)
        )

    def _is_referrer(self, repository: str, walks: ReachabilityIndex, root: Digest) -> bool:
        """Return whether an unnamed entry refers to a manifest of the repository."""
        seen: set[Digest] = set()
        pending = [root]
        while pending:
            subject = self._unnamed_reachability.subject_of(pending.pop())
            if subject is None or subject in seen:
                continue
            seen.add(subject)
            if walks.roots_of(subject) or self._is_marked(repository, subject):
                return True
            pending += self._unnamed_reachability.roots_of(subject)
        return False

    def _is_marked(self, repository: str, digest: Digest) -> bool:
        return self._tree.file_size(_marker_path(repository, "_manifests", digest)) is not None

    def _read(self, entry: Descriptor) -> Manifest:
        body = self._layout.read_blob(entry.digest, _MAX_MANIFEST_SIZE)
        return Manifest.parse(body, entry.media_type)


def _marker_path(repository: str, part: str, digest: Digest) -> str:
    return f"{_REPOSITORIES_PATH}/{repository}/{part}/{digest.algorithm}/{digest.hex}"


def _referrer_path(repository: str, subject: Digest, digest: Digest) -> str:
    return f"{_marker_path(repository, '_referrers', subject)}/{digest.algorithm}-{digest.hex}"


def _repository_directories(directory: Path) -> Iterator[Path]:
    """Yield the directories of repositories at or below one, without following links."""
    names = _list_directory(directory)
    if "_blobs" in names or "_manifests" in names:
        yield directory
    for name in names:
        if not name.startswith("_") and not (directory / name).is_symlink():
            yield from _repository_directories(directory / name)


def _list_directory(directory: Path) -> list[str]:
    try:
        return [path.name for path in directory.iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
