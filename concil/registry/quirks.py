"""What a host is known to need for uploads: declared by its name, or learned from its answers."""

from __future__ import annotations

import enum
import logging
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from concil.config import KIB, MIB
from concil.registry.returned import Returned

logger = logging.getLogger(__name__)

# A registry is mended some day, and a proxy in front of it gets another limit.
REMEMBERED = 30 * 24 * 3600.0  # seconds
# A chunk size is memory for others and requests for us: nonsense is passed over.
SENSIBLE = range(64 * KIB, 1024 * MIB + 1)
# Where nobody wishes for a size, a chunk is what the host carries in about two seconds:
# so much may be lost with it, and so rarely does a connection stand idle for an answer.
LEAST_PACE, MOST_PACE = 10 * MIB, 64 * MIB  # bytes
PACE_TIME = 2.0  # seconds
LEAST_LIMITED = 1 * MIB  # bytes; with a limit on bandwidth a chunk is what it lets through


class Strategy(enum.StrEnum):
    """How the bytes of a large blob travel."""

    CHUNKS = "chunks"  # PATCHes of a constant size, then an empty PUT
    CHUNKS_LAST_IN_PUT = "chunks, the last in the PUT"
    STREAM = "stream"  # one PATCH without Content-Range, then an empty PUT
    MONOLITHIC = "monolithic"  # one PUT


@dataclass(frozen=True, slots=True)
class Quirks:
    """How to upload to one host."""

    strategy: Strategy = Strategy.CHUNKS
    largest_chunk: int | None = None  # bytes
    smallest_chunk: int = 0  # bytes, of every chunk but the last
    own_offset: bool = False  # the Range of its answers sticks; count what it accepted
    uploads_at_once: int | None = None  # that it bears; never learned

    def chunk_size(self, wanted: int, size: int = 0) -> int:
        """The chunk size nearest to the wanted one, in bytes.

        Args:
            size: bytes of the blob. A last chunk of one byte is avoided: Cloudflare refuses
                it, and of a Range of "0-0" nobody knows whether it tells of one byte or none.
        """
        chunk = self._within(wanted)
        if size <= chunk or size % chunk != 1:
            return chunk
        near = (self._within(chunk + step) for step in (-1, -2, 1, 2) if chunk + step > 1)
        return next((other for other in near if size % other != 1), chunk)

    def _within(self, chunk: int) -> int:
        chunk = max(chunk, self.smallest_chunk)
        return chunk if self.largest_chunk is None else min(chunk, self.largest_chunk)

    def saved(self) -> dict[str, Any]:
        """What another process can read again; only what can be learned."""
        learned = asdict(self)
        del learned["uploads_at_once"]
        return {**learned, "learned": time.time()}

    @classmethod
    def read(cls, saved: Mapping[str, Any]) -> Quirks | None:
        """Read what `saved` gave; None if it is too old, or nothing that it ever gave."""
        try:
            largest, smallest = saved["largest_chunk"], int(saved["smallest_chunk"])
            found = cls(
                Strategy(saved["strategy"]),
                None if largest is None else int(largest),
                smallest,
                own_offset=saved["own_offset"] is True,
            )
            age = time.time() - float(saved["learned"])
        except (KeyError, TypeError, ValueError, OverflowError):
            return None
        sizes = (1 if found.largest_chunk is None else found.largest_chunk, smallest or 1)
        sensible = all(0 < size < SENSIBLE.stop for size in sizes)
        return found if sensible and 0 <= age < REMEMBERED else None


# Sources: REGISTRIES.md 2.4 (GHCR), 2.8 (ECR), 2.10 (GAR, GCR), 2.11 (ACR).
_DECLARED: tuple[tuple[re.Pattern[str], Quirks], ...] = (
    # GHCR answers 416 to a chunk of more than 4 MiB, and 500 now and then to many at once.
    (re.compile(r"ghcr\.io"), Quirks(largest_chunk=4 * MIB, uploads_at_once=4)),
    # ECR's Range sticks at the first chunk, it fails an empty closing PUT, and it is
    # swamped by parallel uploads.
    (
        re.compile(r"[0-9]+\.dkr\.ecr(-fips)?\.[a-z0-9-]+\.amazonaws\.com(\.cn)?|public\.ecr\.aws"),
        Quirks(Strategy.CHUNKS_LAST_IN_PUT, 10 * MIB, 5 * MIB, own_offset=True, uploads_at_once=1),
    ),
    # Google's registries have no chunked uploads at all.
    (
        re.compile(r"([a-z0-9-]+-docker\.pkg\.dev)|(([a-z]+\.)?gcr\.io)"),
        Quirks(Strategy.MONOLITHIC),
    ),
    (re.compile(r"[a-z0-9-]+\.azurecr\.(io|cn|us)"), Quirks(largest_chunk=20 * MIB)),
)


def declared(host: str) -> Quirks:
    """What is known of ``host[:port]`` by its name."""
    name = host.rpartition(":")[0] if host.count(":") == 1 else host
    for pattern, quirks in _DECLARED:
        if pattern.fullmatch(name):
            return quirks
    return Quirks()


@dataclass(frozen=True, slots=True)
class _Known:
    """What is known of one host, and since when."""

    quirks: Quirks
    since: float = 0.0  # seconds since the epoch; 0: nobody taught it
    pace: int = 0  # bytes it last carried in `PACE_TIME`; 0: not known

    def saved(self) -> dict[str, Any]:
        """What another process can read again; what is only declared may be declared anew."""
        taught = self.quirks.saved() | {"learned": self.since} if self.since else {}
        return taught | {"pace": self.pace}

    @classmethod
    def read(cls, host: str, saved: Mapping[str, Any]) -> _Known:
        """Read what `saved` gave, as far as it makes sense."""
        pace = saved.get("pace")
        pace = pace if isinstance(pace, int) and pace > 0 else 0
        quirks, known = Quirks.read(saved), declared(host)
        if quirks is None:
            return cls(known, 0.0, pace)
        quirks = replace(quirks, uploads_at_once=known.uploads_at_once)
        return cls(quirks, float(saved["learned"]), pace)


class Knowledge:
    """The quirks of the hosts, as they are learned. Any thread may call any method."""

    def __init__(
        self,
        recall: Callable[[str], Mapping[str, Any]] | None = None,
        record: Callable[[str, dict[str, Any]], None] | None = None,
        allowed: Callable[[str], int | None] | None = None,
    ) -> None:
        """Know what is declared, and what earlier processes learned.

        Args:
            recall: what was recorded of a host; empty: nothing.
            record: told of each lesson.
            allowed: bytes a second that may go to a host; None: as many as it carries.
        """
        self.returned = Returned()  # manifests that were read back
        self._allowed = allowed or (lambda _: None)
        self._recall = recall
        self._record = record
        self._hosts: dict[str, _Known] = {}
        self._lock = threading.Lock()  # guards _hosts

    def of(self, host: str) -> Quirks:
        """What is known of ``host``."""
        return self._known(host).quirks

    def chunk_size(self, host: str, wanted: int | None, size: int) -> int:
        """Bytes of one chunk of a blob of ``size`` bytes.

        Args:
            wanted: bytes; None: what the host carries in about two seconds.
        """
        known, allowed = self._known(host), self._allowed(host)
        if wanted is None:
            wanted = min(max(known.pace // MIB * MIB, LEAST_PACE), MOST_PACE)
            if allowed is not None:
                wanted = min(wanted, max(int(allowed * PACE_TIME), LEAST_LIMITED))
        return known.quirks.chunk_size(wanted, size)

    def carried(self, host: str, count: int, seconds: float) -> None:
        """The host took ``count`` bytes in so many seconds; with a limit that tells nothing."""
        if self._allowed(host) is not None:
            return
        pace = int(min(count * PACE_TIME / max(seconds, 1e-6), MOST_PACE))
        self._pace(host, pace)

    def lost(self, host: str, chunk: int) -> None:
        """A session was lost with a chunk of so many bytes: smaller ones lose less."""
        self._pace(host, chunk // 2)

    def keep(self, host: str) -> None:
        """Write down how much the host carries; done once a blob, not once a chunk."""
        self._write(host, self._known(host))

    def limit_chunk(self, host: str, largest: int) -> None:
        """The host refused a chunk for its size: send at most ``largest`` bytes at once."""
        known = self.of(host)
        if known.largest_chunk is None or largest < known.largest_chunk:
            self._learn(host, replace(known, largest_chunk=largest))

    def use(self, host: str, strategy: Strategy) -> None:
        """The host refused another strategy."""
        self._learn(host, replace(self.of(host), strategy=strategy))

    def announce(self, host: str, smallest: int | None, largest: int | None) -> None:
        """The host says what sizes of chunks it takes."""
        known = self.of(host)
        self._learn(
            host,
            replace(
                known,
                smallest_chunk=known.smallest_chunk if smallest is None else smallest,
                largest_chunk=known.largest_chunk if largest is None else largest,
            ),
        )

    def count_ourselves(self, host: str) -> None:
        """The host's Range cannot be believed."""
        self._learn(host, replace(self.of(host), own_offset=True))

    def _known(self, host: str) -> _Known:
        with self._lock:
            found = self._hosts.get(host)
        if found is None:
            recalled = _Known.read(host, self._recall(host) if self._recall else {})
            with self._lock:
                found = self._hosts.setdefault(host, recalled)
        return found

    def _pace(self, host: str, pace: int) -> None:
        known = self._known(host)
        with self._lock:
            self._hosts[host] = replace(self._hosts.get(host, known), pace=max(pace, 1))

    def _learn(self, host: str, quirks: Quirks) -> None:
        known = self._known(host)
        if known.quirks == quirks:
            return
        with self._lock:
            pace = self._hosts.get(host, known).pace
            known = self._hosts[host] = _Known(quirks, time.time(), pace)
        logger.info("%s: uploads by %s", host, quirks)
        self._write(host, known)

    def _write(self, host: str, known: _Known) -> None:
        if self._record is not None:
            self._record(host, known.saved())
