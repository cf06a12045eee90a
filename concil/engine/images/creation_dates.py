"""Finds out when images were created, once for each digest."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

from concil.engine.images.reader import ImageReader
from concil.engine.store_factory import SourceStore
from concil.errors import ContentError, NotFound
from concil.oci.descriptor import Descriptor
from concil.oci.manifest import Digest, Manifest
from concil.oci.platform import Platform
from concil.runtime.dataclass import dataclass
from concil.transfer.blob.image_config import read_config
from concil.transfer.image.graph import attested_digest, check_descriptor, select_platforms
from concil.transfer.image.history import History
from concil.transfer.image.manifest_cache import ManifestCache

_MAX_MANIFESTS = 8  # of an image that are searched for a date
_MAX_LENGTH = 64  # characters of a date
_CREATED = "org.opencontainers.image.created"
# Reproducible builds write the beginning of an epoch instead of a date: that of Unix, of Go
# (year 1), or of zip files (1980-01-01, and a second later).
_FIRST_DATE = datetime(1980, 1, 2, tzinfo=UTC).timestamp()
# A date further ahead is a mistake: the image would be the newest one until then.
_MAX_AHEAD = 24 * 3600.0  # seconds


@dataclass(frozen=True, slots=True)
class _Date:
    """The date of an image as far as it was found."""

    time: float | None  # seconds since the epoch
    is_complete: bool = True  # nothing of the image was missing


@dataclass(frozen=True, slots=True)
class CreationDates:
    """Reads the dates of images. Any thread but a worker: it waits for jobs."""

    reader: ImageReader
    history: History
    manifest_cache: ManifestCache

    def find(
        self, repository: str, tags: Sequence[str], platforms: Sequence[Platform]
    ) -> list[float | None]:
        """Return when the images of tags were created, in seconds since the epoch.

        Each tag costs a HEAD request; a digest that is not known yet costs up to three GET
        requests, for the manifest, for one of its platforms, and for the config.

        Args:
            platforms: those of an index that count; empty: all.
        Returns:
            None for an image that is missing, damaged, or has no usable date.
        """
        _, store = self.reader.open(repository)
        digests = self.reader.run_all([partial(_find_digest, store, tag) for tag in tags], store)
        key = ",".join(map(str, platforms))
        known: dict[Digest, float | None] = {}
        unknown: list[Digest] = []
        for digest in dict.fromkeys(digests):
            if digest is None:
                continue
            recorded = self.history.find_created(digest, key)
            if recorded is None:
                unknown.append(digest)
            else:
                known[digest] = recorded.time
        reads: list[Callable[[], float | None]] = [
            partial(self._read, store, digest, platforms, key) for digest in unknown
        ]
        known |= zip(unknown, self.reader.run_all(reads, store), strict=True)
        latest = time.time() + _MAX_AHEAD
        return [
            None if created is None or created > latest else created
            for created in (None if digest is None else known[digest] for digest in digests)
        ]

    def _read(
        self, store: SourceStore, digest: Digest, platforms: Sequence[Platform], key: str
    ) -> float | None:
        """Read the date of an image, and record it."""
        try:
            manifest = self._get_manifest(store, digest)
            found = self._find_in(store, _select(manifest, platforms, store.name))
        except (NotFound, ContentError):
            return None  # it may be complete the next time
        if found.time is not None or found.is_complete:
            self.history.record_created(digest, key, found.time)
        return found.time

    def _find_in(self, store: SourceStore, root: Manifest | Descriptor) -> _Date:
        """Return the date of a manifest, or that of the first image of an index that has one."""
        pending = [root]
        index_date: float | None = None
        is_complete = True
        for _ in range(_MAX_MANIFESTS):
            if not pending:
                break
            entry = pending.pop(0)
            try:
                manifest = self._get_child(store, entry) if isinstance(entry, Descriptor) else entry
            except NotFound:
                is_complete = False  # the source has only some of the platforms
                continue
            if manifest.is_index:
                # BuildKit lists attestations as well, which are no images.
                children = manifest.children()
                pending[:0] = [c for c in children if c.is_manifest and not attested_digest(c)]
                index_date = index_date or _annotated_date(manifest.annotations)
                continue
            config = read_config(store, manifest, self.reader.pool.context, store.name)
            created = _parse_date((config or {}).get("created"))
            created = created or _annotated_date(manifest.annotations)
            if created is not None:
                return _Date(created)
        return _Date(index_date, is_complete)

    def _get_manifest(self, store: SourceStore, digest: Digest) -> Manifest:
        read = partial(store.get_manifest, str(digest))
        return self.manifest_cache.get(store.host or store.name, digest, read)

    def _get_child(self, store: SourceStore, child: Descriptor) -> Manifest:
        manifest = self._get_manifest(store, child.digest)
        check_descriptor(child, manifest, store.name)
        return manifest


def _find_digest(store: SourceStore, tag: str) -> Digest | None:
    try:
        descriptor = store.find_manifest(tag)
    except (NotFound, ContentError):
        return None
    return None if descriptor is None else descriptor.digest


def _select(manifest: Manifest, platforms: Sequence[Platform], name: str) -> Manifest | Descriptor:
    """Return the part of an index for some platforms; all of it if it lacks one of them.

    Then its copy fails, with an error that names the platform.
    """
    try:
        return select_platforms(manifest, platforms, name)
    except NotFound:
        return manifest


def _annotated_date(annotations: Mapping[str, str]) -> float | None:
    """Return the date in the annotations of an artifact, such as a Helm chart."""
    return _parse_date(annotations.get(_CREATED))


def _parse_date(value: Any) -> float | None:  # noqa: ANN401 - a value of JSON
    """Parse a date of RFC 3339; None: it is none, or stands for "no date"."""
    if not isinstance(value, str) or not value or len(value) > _MAX_LENGTH:
        return None
    try:
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        seconds = moment.timestamp()
    except (ValueError, OverflowError):
        return None
    return seconds if seconds >= _FIRST_DATE else None
