"""What this and earlier mirrors have brought: images, and where blobs and manifests are."""

from __future__ import annotations

import threading
import time
from collections import Counter, OrderedDict
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from concil.digest import Digest
from concil.errors import InvalidDigest
from concil.transfer.journal import Journal

_RECENT = 20_000  # manifests of this run that are remembered without a journal
_KEPT = 180 * 24 * 3600  # seconds that a place is remembered
_VAIN = 3  # mounts that may fail before none is tried any more on the word of the journal


@dataclass(frozen=True, slots=True)
class ImageKey:
    """One image of a mirror, as the journal knows it; without users and passwords."""

    source: str
    target: str
    platforms: str = ""


@dataclass(frozen=True, slots=True)
class Brought:
    """The digests of an image when it was brought last."""

    source: Digest  # at the source; of an index for some platforms the whole one's
    target: Digest


@runtime_checkable
class CountsLosses(Protocol):
    """A place whose answers can get lost, and which may have been restarted then."""

    @property
    def losses(self) -> int:
        """How many answers were lost, or said that the place failed, since the run began."""
        ...


def losses_of(place: object) -> int:
    """How many answers of a place were lost so far; 0 where none can be."""
    return place.losses if isinstance(place, CountsLosses) else 0


class Past:
    """The journal's word on images and blobs: a hint, wrong at worst by some requests.

    Any thread may call any method.
    """

    def __init__(self, journal: Journal) -> None:
        """Ask ``journal``, and remember this run's in it."""
        self._journal = journal
        self._lock = threading.Lock()  # guards the fields below
        # Manifests that this run has put or seen, and how many answers were lost by then.
        self._recent: OrderedDict[tuple[str, str, Digest], int] = OrderedDict()
        self._places: OrderedDict[tuple[str, Digest], str | None] = OrderedDict()
        self._vain: Counter[str] = Counter()  # mounts that failed, by realm
        self._is_tidy = False

    # Images ------------------------------------------------------------------------

    def image(self, key: ImageKey) -> Brought | None:
        """What is known of an image; None if nothing."""
        rows = self._journal.query(
            "SELECT source_digest, digest FROM images"
            " WHERE source = ? AND target = ? AND platforms = ?",
            key.source,
            key.target,
            key.platforms,
        )
        try:
            return Brought(*map(Digest.parse, rows[0])) if rows else None
        except InvalidDigest:
            return None

    def remember_image(self, key: ImageKey, brought: Brought) -> None:
        """Remember that an image is where it should be."""
        if self.image(key) != brought:
            self._journal.execute(
                "INSERT OR REPLACE INTO images VALUES (?, ?, ?, ?, ?, ?)",
                key.source,
                key.target,
                key.platforms,
                str(brought.source),
                str(brought.target),
                time.time(),
            )

    # Manifests ---------------------------------------------------------------------

    def put(self, realm: str, repository: str, digest: Digest, losses: int = 0) -> None:
        """Take note that a manifest, with all below it, is in a repository.

        Args:
            losses: answers of the registry that were lost before it was put.
        """
        with self._lock:
            self._recent[realm, repository, digest] = losses
            if len(self._recent) > _RECENT:
                self._recent.popitem(last=False)
        self.landed(realm, repository, digest)

    def was_put(self, realm: str, repository: str, digest: Digest, losses: int = 0) -> bool:
        """Whether this run has put or seen a manifest there: it need not be asked for.

        Args:
            losses: answers of the registry that were lost so far. It may have been
                restarted since, and have lost what it had confirmed.
        """
        with self._lock:
            return self._recent.get((realm, repository, digest)) == losses

    def forget(self, realm: str, repository: str, digest: Digest) -> None:
        """Drop what is remembered of a blob or manifest that a repository turned out to lack."""
        key = realm, digest
        with self._lock:
            self._recent.pop((realm, repository, digest), None)
            if self._places.get(key) == repository:
                del self._places[key]
        self._journal.flush()  # where it was remembered may not be written yet
        self._journal.execute(
            "DELETE FROM places WHERE realm = ? AND digest = ? AND repository = ?",
            realm,
            str(digest),
            repository,
        )

    # Blobs -------------------------------------------------------------------------

    def repository_of(self, realm: str, digest: Digest) -> str | None:
        """A repository of a registry that had a blob or manifest; None: not known."""
        key = realm, digest
        with self._lock:
            if key in self._places:
                return self._places[key]
        rows = self._journal.query(
            "SELECT repository FROM places WHERE realm = ? AND digest = ?", realm, str(digest)
        )
        found = str(rows[0][0]) if rows else None
        with self._lock:
            return self._hold(key, self._places.get(key, found))

    def siblings(self, realm: str, digest: Digest, but: str) -> list[str]:
        """Where to mount a blob from, if that has not turned out to be in vain.

        Args:
            but: the repository that it is for.
        """
        with self._lock:
            if self._vain[realm] >= _VAIN:
                return []
        known = self.repository_of(realm, digest)
        return [known] if known is not None and known != but else []

    def landed(self, realm: str, repository: str, digest: Digest) -> None:
        """Remember that a blob or manifest is in a repository."""
        if self.repository_of(realm, digest) != repository:
            self._tidy()
            with self._lock:
                self._hold((realm, digest), repository)
            self._journal.later(
                "INSERT OR REPLACE INTO places VALUES (?, ?, ?, ?)",
                realm,
                str(digest),
                repository,
                time.time(),
            )

    def _hold(self, key: tuple[str, Digest], repository: str | None) -> str | None:
        """Keep what is known of a place for this run. The caller holds the lock.

        Without a journal as well: after a lost answer it says what may be there already.
        """
        self._places[key] = repository
        if len(self._places) > _RECENT:
            self._places.popitem(last=False)
        return repository

    def _tidy(self) -> None:
        """Forget what is old, once a run: what is still there is found out by a request."""
        with self._lock:
            tidy, self._is_tidy = self._is_tidy, True
        if not tidy:
            since = time.time() - _KEPT
            self._journal.execute("DELETE FROM places WHERE updated < ?", since)

    def tried(self, realm: str, *, mounted: bool) -> None:
        """Take note of a mount that was tried on the word of the journal."""
        with self._lock:
            # One that works shows a registry that mounts: then a few are only out of date.
            self._vain[realm] = -_RECENT if mounted else self._vain[realm] + 1
