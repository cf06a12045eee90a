"""Which images, manifests and blobs earlier runs have put."""

from __future__ import annotations

import threading
import time
from collections import Counter

from concil.errors import InvalidDigest
from concil.oci.digest import Digest
from concil.runtime.dataclass import dataclass
from concil.runtime.lru_dict import LruDict
from concil.transfer.journal import Journal

_LOCATION_LIFETIME = 180 * 24 * 3600  # seconds until the location of a blob is forgotten
_CREATED_LIFETIME = 180 * 24 * 3600  # seconds until the unused date of an image is forgotten
_MAX_FAILED_MOUNTS = 3  # failed mounts after which recorded locations are not tried any more
_PROVEN = -1_000_000_000  # failed mounts of a registry where one has worked


@dataclass(frozen=True, slots=True)
class ImageKey:
    """The key of an image in the journal, without users and passwords."""

    source: str
    destination: str
    platforms: str = ""


@dataclass(frozen=True, slots=True)
class CopiedImage:
    """The digests of an image when it was copied last."""

    source: Digest  # at the source; of the whole index, even if only some platforms were copied
    destination: Digest


@dataclass(frozen=True, slots=True)
class CreationTime:
    """When an image was created."""

    time: float | None  # seconds since the epoch; None: it has no usable date


class History:
    """Known locations of images and blobs: hints, which cost extra requests if they are wrong.

    Any thread may call any method.
    """

    def __init__(self, journal: Journal) -> None:
        """Use ``journal`` for the locations of earlier runs, and record this run's in it."""
        self._journal = journal
        self._lock = threading.Lock()  # guards the fields below
        # Manifests that this run has put or seen, and the number of lost responses by then.
        self._confirmed_manifests: LruDict[tuple[str, str, Digest], int] = LruDict()
        self._repository_by_digest: LruDict[tuple[str, Digest], str | None] = LruDict()
        self._created: LruDict[tuple[Digest, str], CreationTime] = LruDict()
        self._failed_mounts: Counter[str] = Counter()  # by mount scope
        self._has_deleted_expired = False

    # Images ------------------------------------------------------------------------

    def find_image(self, key: ImageKey) -> CopiedImage | None:
        """Return the recorded digests of an image; None if it was never copied."""
        rows = self._journal.query(
            "SELECT source_digest, digest FROM images"
            " WHERE source = ? AND target = ? AND platforms = ?",
            key.source,
            key.destination,
            key.platforms,
        )
        try:
            return CopiedImage(*map(Digest.parse, rows[0])) if rows else None
        except InvalidDigest:
            return None

    def record_image(self, key: ImageKey, copied: CopiedImage) -> None:
        """Record that an image was copied."""
        if self.find_image(key) != copied:
            self._journal.execute(
                "INSERT OR REPLACE INTO images VALUES (?, ?, ?, ?, ?, ?)",
                key.source,
                key.destination,
                key.platforms,
                str(copied.source),
                str(copied.destination),
                time.time(),
            )

    def find_created(self, digest: Digest, platforms: str) -> CreationTime | None:
        """Return when an image was created; None: no run has found it out.

        Args:
            platforms: those of an index that count.
        """
        key = digest, platforms
        with self._lock:
            known = self._created.use(key)
        if known is not None:
            return known
        rows = self._journal.query(
            "SELECT time, updated FROM created WHERE digest = ? AND platforms = ?",
            str(digest),
            platforms,
        )
        if not rows:
            return None
        seconds, updated = rows[0]
        created = CreationTime(None if seconds is None else float(seconds))
        if time.time() - updated > _CREATED_LIFETIME / 4:
            self.record_created(digest, platforms, created.time)  # it is still in use
        with self._lock:
            self._created.store(key, created)
        return created

    def record_created(self, digest: Digest, platforms: str, seconds: float | None) -> None:
        """Record when an image was created; None: it has no usable date."""
        with self._lock:
            self._created.store((digest, platforms), CreationTime(seconds))
        self._delete_expired()
        self._journal.execute_deferred(
            "INSERT OR REPLACE INTO created VALUES (?, ?, ?, ?)",
            str(digest),
            platforms,
            seconds,
            time.time(),
        )

    # Manifests ---------------------------------------------------------------------

    def record_manifest(
        self, mount_scope: str, repository: str, digest: Digest, lost_responses: int = 0
    ) -> None:
        """Record that a repository has a manifest with all its content.

        Args:
            lost_responses: responses of the registry that were lost before it was put.
        """
        with self._lock:
            self._confirmed_manifests.store((mount_scope, repository, digest), lost_responses)
        self.record_blob(mount_scope, repository, digest)

    def is_confirmed(
        self, mount_scope: str, repository: str, digest: Digest, lost_responses: int = 0
    ) -> bool:
        """Whether this run has put or seen a manifest there, so that no check is needed.

        Args:
            lost_responses: responses of the registry that were lost so far. If there are new
                ones, the registry may have been restarted and have lost confirmed content.
        """
        with self._lock:
            return (
                self._confirmed_manifests.use((mount_scope, repository, digest)) == lost_responses
            )

    def forget(self, mount_scope: str, repository: str, digest: Digest) -> None:
        """Forget a blob or manifest that a repository turned out to lack."""
        key = mount_scope, digest
        with self._lock:
            self._confirmed_manifests.pop((mount_scope, repository, digest), None)
            if self._repository_by_digest.get(key) == repository:
                del self._repository_by_digest[key]
        self._journal.flush()  # its row may not be written yet
        self._journal.execute(
            "DELETE FROM places WHERE realm = ? AND digest = ? AND repository = ?",
            mount_scope,
            str(digest),
            repository,
        )

    # Blobs -------------------------------------------------------------------------

    def find_repository(self, mount_scope: str, digest: Digest) -> str | None:
        """Return a repository of a registry that had a blob or manifest; None: unknown."""
        key = mount_scope, digest
        with self._lock:
            if key in self._repository_by_digest:
                return self._repository_by_digest.use(key)
        rows = self._journal.query(
            "SELECT repository FROM places WHERE realm = ? AND digest = ?", mount_scope, str(digest)
        )
        repository = str(rows[0][0]) if rows else None
        with self._lock:
            return self._cache_repository(key, self._repository_by_digest.get(key, repository))

    def mount_sources(self, mount_scope: str, digest: Digest, excluded: str) -> list[str]:
        """Return repositories to mount a blob from; empty after too many failed mounts.

        Args:
            excluded: the repository that the blob is mounted into.
        """
        with self._lock:
            if self._failed_mounts[mount_scope] >= _MAX_FAILED_MOUNTS:
                return []
        repository = self.find_repository(mount_scope, digest)
        return [repository] if repository is not None and repository != excluded else []

    def record_blob(self, mount_scope: str, repository: str, digest: Digest) -> None:
        """Record that a blob or manifest is in a repository."""
        if self.find_repository(mount_scope, digest) != repository:
            self._delete_expired()
            with self._lock:
                self._cache_repository((mount_scope, digest), repository)
            self._journal.execute_deferred(
                "INSERT OR REPLACE INTO places VALUES (?, ?, ?, ?)",
                mount_scope,
                str(digest),
                repository,
                time.time(),
            )

    def _cache_repository(self, key: tuple[str, Digest], repository: str | None) -> str | None:
        """Keep a location in memory for this run. The caller holds the lock.

        This works without a journal, too: after a lost response it shows what may be present.
        """
        self._repository_by_digest.store(key, repository)
        return repository

    def _delete_expired(self) -> None:
        """Delete old records, once per run; what is needed again costs a request."""
        with self._lock:
            is_done, self._has_deleted_expired = self._has_deleted_expired, True
        if not is_done:
            self._journal.delete_expired("places", _LOCATION_LIFETIME)
            self._journal.delete_expired("created", _CREATED_LIFETIME)

    def record_mount(self, mount_scope: str, *, mounted: bool) -> None:
        """Record the result of a mount from a recorded location."""
        with self._lock:
            # After a mount that worked, failures only mean that single locations are out of date.
            self._failed_mounts[mount_scope] = (
                _PROVEN if mounted else self._failed_mounts[mount_scope] + 1
            )
