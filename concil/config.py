"""The settings of a transfer, frozen, with their units and what they cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from concil.errors import UsageError

KIB = 1024
MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long to wait for the other side, in seconds."""

    connect: float = 10.0  # seconds until a connection must stand
    idle: float = 60.0  # seconds without a byte, in either direction
    commit: float = 300.0  # seconds for a closing PUT: object stores join parts first


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often to repeat what was lost, and how long to wait in between."""

    attempts: int = 6  # in a row without any progress
    base: float = 0.5  # seconds; the wait before attempt n is random in 0..base*2^(n-1)
    longest: float = 30.0  # seconds; no back-off waits longer
    longest_asked: float = 300.0  # seconds; how much of a Retry-After is obeyed
    restarts: int = 5  # upload sessions lost for one blob before it is an error

    def __post_init__(self) -> None:
        """Refuse numbers that would never try or never stop."""
        if self.attempts < 1 or self.restarts < 0 or min(self.base, self.longest) < 0:
            raise UsageError("a retry policy needs at least one attempt and no negative numbers")


@dataclass(frozen=True, slots=True)
class HostLimits:
    """What one host is asked for at most; None: no limit of its own."""

    jobs: int | None = None
    requests: float | None = None  # a second
    bandwidth: int | None = None  # bytes a second


@dataclass(frozen=True, slots=True)
class TransferConfig:
    """What an engine does with threads, memory and requests.

    Memory: each worker holds one block (``block_size``) and one connection, so
    ``workers * 2 * block_size`` bounds the buffers whatever the blobs' sizes.
    """

    workers: int = 8  # threads that move bytes; 0 runs every job in the caller's thread
    images: int = 16  # images of a mirror that are planned at once
    chunk_size: int | None = None  # bytes of one PATCH; None: what a host carries in two seconds
    block_size: int = 1 * MIB  # bytes of one read or write
    helpers: int = 3  # ranges of one blob fetched beside the primary one
    range_size: int = 16 * MIB  # bytes of one range when a blob is fetched in parts
    manifest_limit: int = 4 * MIB  # bytes of a manifest that are accepted
    per_host: int = 8  # jobs that may talk to one host at once
    hosts: Mapping[str, HostLimits] = field(default_factory=dict)  # as people write them: docker.io
    retry: RetryPolicy = field(default_factory=RetryPolicy)

    def __post_init__(self) -> None:
        """Refuse numbers that cannot work."""
        if self.workers < 0 or self.helpers < 0:
            raise UsageError("workers and helpers are 0 or more")
        least = min(self.images, self.block_size, self.range_size, self.per_host)
        if min(least, self.manifest_limit, 1 if self.chunk_size is None else self.chunk_size) < 1:
            raise UsageError("images, sizes and limits of a transfer are 1 or more")
