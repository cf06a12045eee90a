"""Upload quirks of known hosts, declared or learned."""

from __future__ import annotations

import enum
import logging
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from typing import Any

from concil.config import KIB, MIB
from concil.registry.confirmed_manifests import ConfirmedManifests
from concil.runtime.dataclass import dataclass

logger = logging.getLogger(__name__)

# Learned quirks expire, because registries get fixed and limits of proxies change.
PROFILE_LIFETIME = 30 * 24 * 3600.0  # seconds
# Chunk sizes announced outside this range are ignored: too many requests, or too much memory.
VALID_CHUNK_SIZES = range(64 * KIB, 1024 * MIB + 1)
# Without a configured size a chunk is what the host transfers in about two seconds: a lost
# chunk costs no more than that, and waiting for responses takes little time in comparison.
MIN_ADAPTIVE_CHUNK, MAX_ADAPTIVE_CHUNK = 10 * MIB, 64 * MIB  # bytes
TARGET_CHUNK_TIME = 2.0  # seconds
MIN_LIMITED_CHUNK = 1 * MIB  # bytes; lower bound if there is a bandwidth limit


class Strategy(enum.StrEnum):
    """How the bytes of a large blob are sent."""

    CHUNKS = "chunks"  # PATCHes, then an empty PUT
    CHUNKS_LAST_IN_PUT = "chunks, the last in the PUT"
    STREAM = "stream"  # one PATCH without Content-Range, then an empty PUT
    MONOLITHIC = "monolithic"  # one PUT

    @property
    def is_chunked(self) -> bool:
        """Whether a large blob is sent in several requests."""
        return self in (Strategy.CHUNKS, Strategy.CHUNKS_LAST_IN_PUT)


@dataclass(frozen=True, slots=True)
class Quirks:
    """Upload parameters of one host."""

    strategy: Strategy = Strategy.CHUNKS
    max_chunk_size: int | None = None  # bytes
    min_chunk_size: int = 0  # bytes, for every chunk but the last
    ignore_range_header: bool = False  # its Range does not advance; count accepted bytes instead
    # Whether a mount of a blob from the repository itself answers 201 if the blob is there, and
    # opens an upload session otherwise. None: not known yet.
    lookup_by_mount: bool | None = None
    max_uploads: int | None = None  # concurrent uploads; declared only, never learned
    has_pull_quota: bool = False  # GETs of manifests count against a quota; declared only

    def chunk_size(self, requested: int, size: int = 0) -> int:
        """Return the allowed chunk size nearest to the requested one, in bytes.

        Args:
            size: bytes of the blob. A last chunk of one byte is avoided: Cloudflare rejects it,
                and a Range of "0-0" may mean one byte or none.
        """
        chunk = self._clamp(requested)
        if size <= chunk or size % chunk != 1:
            return chunk
        candidates = (self._clamp(chunk + step) for step in (-1, -2, 1, 2) if chunk + step > 1)
        return next((candidate for candidate in candidates if size % candidate != 1), chunk)

    def _clamp(self, chunk: int) -> int:
        chunk = max(chunk, self.min_chunk_size)
        return chunk if self.max_chunk_size is None else min(chunk, self.max_chunk_size)

    def to_json(self) -> dict[str, Any]:
        """Return the learned fields as JSON, for other processes."""
        learned = asdict(self)
        del learned["max_uploads"], learned["has_pull_quota"]
        return {**learned, "learned_at": time.time()}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Quirks | None:
        """Parse the output of `to_json`; None if it is too old or invalid."""
        try:
            largest, smallest = document["max_chunk_size"], int(document["min_chunk_size"])
            lookup = document["lookup_by_mount"]
            quirks = cls(
                Strategy(document["strategy"]),
                None if largest is None else int(largest),
                smallest,
                ignore_range_header=document["ignore_range_header"] is True,
                lookup_by_mount=lookup if isinstance(lookup, bool) else None,
            )
            age = time.time() - float(document["learned_at"])
        except (KeyError, TypeError, ValueError, OverflowError):
            return None
        sizes = (1 if quirks.max_chunk_size is None else quirks.max_chunk_size, smallest or 1)
        is_valid = all(0 < size < VALID_CHUNK_SIZES.stop for size in sizes)
        return quirks if is_valid and 0 <= age < PROFILE_LIFETIME else None


# Sources: REGISTRIES.md 2.3 (Docker Hub), 2.4 (GHCR), 2.8 (ECR), 2.10 (GAR, GCR), 2.11 (ACR).
# Where it is not documented how a mount from the repository itself is answered, none is sent.
_DECLARED: tuple[tuple[re.Pattern[str], Quirks], ...] = (
    (
        re.compile(r"((registry-1|index)\.)?docker\.io"),
        Quirks(lookup_by_mount=False, has_pull_quota=True),
    ),
    # GHCR answers 416 to a chunk of more than 4 MiB, and sometimes 500 to many concurrent uploads.
    (re.compile(r"ghcr\.io"), Quirks(max_chunk_size=4 * MIB, lookup_by_mount=False, max_uploads=4)),
    # ECR's Range stays at the first chunk, it rejects an empty closing PUT, and parallel
    # uploads overload it.
    (
        re.compile(r"[0-9]+\.dkr\.ecr(-fips)?\.[a-z0-9-]+\.amazonaws\.com(\.cn)?|public\.ecr\.aws"),
        Quirks(
            Strategy.CHUNKS_LAST_IN_PUT,
            10 * MIB,
            5 * MIB,
            ignore_range_header=True,
            lookup_by_mount=False,
            max_uploads=1,
        ),
    ),
    # Google's registries do not support chunked uploads.
    (
        re.compile(r"([a-z0-9-]+-docker\.pkg\.dev)|(([a-z]+\.)?gcr\.io)"),
        Quirks(Strategy.MONOLITHIC, lookup_by_mount=False),
    ),
    (
        re.compile(r"[a-z0-9-]+\.azurecr\.(io|cn|us)"),
        Quirks(max_chunk_size=20 * MIB, lookup_by_mount=False),
    ),
)


def declared_quirks(host: str) -> Quirks:
    """Return the declared quirks of ``host[:port]``; the defaults if there are none."""
    name = host.rpartition(":")[0] if host.count(":") == 1 else host
    for pattern, quirks in _DECLARED:
        if pattern.fullmatch(name):
            return quirks
    return Quirks()


@dataclass(frozen=True, slots=True)
class _HostProfile:
    """Quirks and throughput of one host."""

    quirks: Quirks
    learned_at: float = 0.0  # seconds since the epoch; 0 if not learned
    throughput: int = 0  # bytes in `TARGET_CHUNK_TIME`, as last measured; 0 if unknown

    def to_json(self) -> dict[str, Any]:
        """Return the profile as JSON, without quirks that are only declared."""
        learned = self.quirks.to_json() | {"learned_at": self.learned_at} if self.learned_at else {}
        return learned | {"throughput": self.throughput}

    @classmethod
    def from_json(cls, host: str, document: Mapping[str, Any]) -> _HostProfile:
        """Parse the output of `to_json`, ignoring invalid parts."""
        throughput = document.get("throughput")
        throughput = throughput if isinstance(throughput, int) and throughput > 0 else 0
        quirks, declared = Quirks.from_json(document), declared_quirks(host)
        if quirks is None:
            return cls(declared, 0.0, throughput)
        quirks = replace(
            quirks, max_uploads=declared.max_uploads, has_pull_quota=declared.has_pull_quota
        )
        if quirks.lookup_by_mount is None:
            quirks = replace(quirks, lookup_by_mount=declared.lookup_by_mount)
        return cls(quirks, float(document["learned_at"]), throughput)


class HostProfiles:
    """Declared and learned quirks of all hosts. Any thread may call any method."""

    def __init__(
        self,
        load_profile: Callable[[str], Mapping[str, Any]] | None = None,
        save_profile: Callable[[str, dict[str, Any]], None] | None = None,
        bandwidth_limit: Callable[[str], int | None] | None = None,
    ) -> None:
        """Start with the declared quirks and those that earlier processes learned.

        Args:
            load_profile: returns a host's saved profile; empty if there is none.
            save_profile: called with each changed profile.
            bandwidth_limit: returns a host's limit in bytes per second; None for no limit.
        """
        self.confirmed_manifests = ConfirmedManifests()  # manifests that were read back
        self._bandwidth_limit = bandwidth_limit or (lambda _: None)
        self._load_profile = load_profile
        self._save_profile = save_profile
        self._profiles: dict[str, _HostProfile] = {}
        self._lock = threading.Lock()  # guards _profiles

    def quirks_for(self, host: str) -> Quirks:
        """Return the current quirks of ``host``."""
        return self._get_profile(host).quirks

    def chunk_size(self, host: str, requested: int | None, blob_size: int) -> int:
        """Return the chunk size in bytes for a blob of ``blob_size`` bytes.

        Args:
            requested: bytes; None for what the host transfers in about two seconds.
        """
        profile, bandwidth_limit = self._get_profile(host), self._bandwidth_limit(host)
        if requested is None:
            requested = min(
                max(profile.throughput // MIB * MIB, MIN_ADAPTIVE_CHUNK), MAX_ADAPTIVE_CHUNK
            )
            if bandwidth_limit is not None:
                requested = min(
                    requested, max(int(bandwidth_limit * TARGET_CHUNK_TIME), MIN_LIMITED_CHUNK)
                )
        return profile.quirks.chunk_size(requested, blob_size)

    def next_chunk_size(self, host: str, current: int, sent: int, remaining: int) -> int:
        """Return the bytes of the chunk after one of ``current`` bytes.

        It grows up to a quarter of what was sent, so that a lost chunk costs little in
        comparison. A host that announces a minimum wants chunks of equal sizes.

        Args:
            sent: bytes of the blob that the host has.
            remaining: bytes of the blob that are not sent yet.
        Source: REGISTRIES.md 2.17.
        """
        if self.quirks_for(host).min_chunk_size:
            return current
        target = self.chunk_size(host, None, remaining)
        if target > sent // 4:
            target = self.chunk_size(host, max(current, sent // 4 // MIB * MIB), remaining)
        return max(current, target)

    def record_throughput(self, host: str, count: int, seconds: float) -> None:
        """Record that ``count`` bytes took ``seconds``; ignored if a bandwidth limit applies."""
        if self._bandwidth_limit(host) is not None:
            return
        throughput = int(min(count * TARGET_CHUNK_TIME / max(seconds, 1e-6), MAX_ADAPTIVE_CHUNK))
        self._set_throughput(host, throughput)

    def record_lost_session(self, host: str, chunk_size: int) -> None:
        """Halve the chunk size after a lost session: smaller chunks lose less."""
        self._set_throughput(host, chunk_size // 2)

    def save_throughput(self, host: str) -> None:
        """Save the host's throughput; called once per blob, not per chunk."""
        self._write_profile(host, self._get_profile(host))

    def set_max_chunk_size(self, host: str, max_chunk_size: int) -> None:
        """Limit chunks to ``max_chunk_size`` bytes after the host rejected a larger one."""
        quirks = self.quirks_for(host)
        if quirks.max_chunk_size is None or max_chunk_size < quirks.max_chunk_size:
            self._update_quirks(host, replace(quirks, max_chunk_size=max_chunk_size))

    def set_strategy(self, host: str, strategy: Strategy) -> None:
        """Use ``strategy`` from now on, after the host rejected the previous one."""
        self._update_quirks(host, replace(self.quirks_for(host), strategy=strategy))

    def set_chunk_size_range(
        self, host: str, min_chunk_size: int | None, max_chunk_size: int | None
    ) -> None:
        """Set the chunk sizes in bytes that the host announced; None leaves a bound unchanged."""
        quirks = self.quirks_for(host)
        self._update_quirks(
            host,
            replace(
                quirks,
                min_chunk_size=quirks.min_chunk_size if min_chunk_size is None else min_chunk_size,
                max_chunk_size=quirks.max_chunk_size if max_chunk_size is None else max_chunk_size,
            ),
        )

    def distrust_range(self, host: str) -> None:
        """Ignore the host's Range header from now on."""
        self._update_quirks(host, replace(self.quirks_for(host), ignore_range_header=True))

    def set_lookup_by_mount(self, host: str, *, works: bool) -> None:
        """Record whether a mount from the repository itself finds blobs that are there."""
        self._update_quirks(host, replace(self.quirks_for(host), lookup_by_mount=works))

    def _get_profile(self, host: str) -> _HostProfile:
        with self._lock:
            profile = self._profiles.get(host)
        if profile is None:
            loaded = _HostProfile.from_json(
                host, self._load_profile(host) if self._load_profile else {}
            )
            with self._lock:
                profile = self._profiles.setdefault(host, loaded)
        return profile

    def _set_throughput(self, host: str, throughput: int) -> None:
        profile = self._get_profile(host)
        with self._lock:
            self._profiles[host] = replace(
                self._profiles.get(host, profile), throughput=max(throughput, 1)
            )

    def _update_quirks(self, host: str, quirks: Quirks) -> None:
        profile = self._get_profile(host)
        if profile.quirks == quirks:
            return
        with self._lock:
            throughput = self._profiles.get(host, profile).throughput
            profile = self._profiles[host] = _HostProfile(quirks, time.time(), throughput)
        logger.info("%s: uploads by %s", host, quirks)
        self._write_profile(host, profile)

    def _write_profile(self, host: str, profile: _HostProfile) -> None:
        if self._save_profile is not None:
            self._save_profile(host, profile.to_json())
