"""Frozen settings of transfers, with units."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import field
from typing import Any

from concil.defaults import (
    CACHE_SIZE,
    KIB,
    MAX_ATTEMPTS,
    MIB,
    MIN_BANDWIDTH,
    MIN_REQUEST_RATE,
    SPOOL_SIZE,
    WORKERS,
)
from concil.errors import UsageError
from concil.runtime import arguments
from concil.runtime.dataclass import dataclass

__all__ = [
    "KIB",
    "MIB",
    "MIN_BANDWIDTH",
    "MIN_REQUEST_RATE",
    "HostLimits",
    "RetryPolicy",
    "Timeouts",
    "TransferConfig",
    "check_rates",
]

_SECONDS_TYPES = (int, float, type(None))


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Network timeouts in seconds."""

    connect: float = 10.0  # seconds to establish a connection
    idle: float = 60.0  # seconds without a byte, in either direction
    commit: float = 300.0  # seconds for a closing PUT, as object stores join the parts first

    def __post_init__(self) -> None:
        """Check that the timeouts are positive numbers."""
        arguments.check_numbers(self, "connect idle commit")
        if not all(0 < seconds < math.inf for seconds in (self.connect, self.idle, self.commit)):
            raise UsageError("a timeout must be a number of seconds greater than 0")

    @classmethod
    def from_argument(
        cls, name: str, value: float | tuple[float | None, float | None] | Timeouts | None
    ) -> Timeouts:
        """Convert an argument to timeouts: idle seconds, or (connect, read) as in requests.

        Raises:
            TypeError: the argument has another type.
            UsageError: a timeout is not positive.
        """
        if value is None:
            return cls()
        if isinstance(value, cls):
            return value
        expected = "seconds, (connect, read) or Timeouts"
        pair = value if isinstance(value, tuple) and len(value) == 2 else (None, value)
        for seconds in pair:
            arguments.check_instance(name, seconds, _SECONDS_TYPES, expected)
        named_values: Any = zip(("connect", "idle"), pair, strict=True)
        return cls(**{key: seconds for key, seconds in named_values if seconds is not None})


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Number of attempts after failures, and the waits between them."""

    max_attempts: int = MAX_ATTEMPTS  # consecutive, without progress
    backoff_base: float = 0.5  # seconds; the wait before attempt n is random in 0..base*2^(n-1)
    max_backoff: float = 30.0  # seconds; upper limit of a back-off
    max_retry_after: float = 300.0  # seconds; upper limit of a wait for Retry-After
    max_lost_sessions: int = 5  # upload sessions that one blob may lose

    def __post_init__(self) -> None:
        """Check for at least one attempt and no negative numbers."""
        arguments.check_numbers(self, "max_attempts max_lost_sessions", int)
        arguments.check_numbers(self, "backoff_base max_backoff max_retry_after")
        if (
            self.max_attempts < 1
            or self.max_lost_sessions < 0
            or min(self.backoff_base, self.max_backoff) < 0
        ):
            raise UsageError(
                "a retry policy needs at least one attempt, and its numbers must not be negative"
            )

    @classmethod
    def from_argument(cls, name: str, value: int | RetryPolicy | None) -> RetryPolicy:
        """Convert an argument to a policy: a number of attempts, or a policy.

        Raises:
            TypeError: the argument has another type.
            UsageError: it is less than one attempt.
        """
        if value is None or isinstance(value, cls):
            return value or cls()
        attempts: Any = arguments.check_instance(name, value, int, "int or RetryPolicy")
        return cls(max_attempts=attempts)


@dataclass(frozen=True, slots=True)
class HostLimits:
    """Limits of one host; None for the general limits."""

    jobs: int | None = None
    requests: float | None = None  # per second
    bandwidth: int | None = None  # bytes per second

    def __post_init__(self) -> None:
        """Check that the limits are not too low for any progress."""
        arguments.check_numbers(self, "jobs?", int)
        arguments.check_numbers(self, "requests? bandwidth?")
        if self.jobs is not None and self.jobs < 1:
            raise UsageError("the jobs of a host must be at least 1")
        check_rates(self.requests, self.bandwidth)


def check_rates(requests: float | None, bandwidth: int | None) -> None:
    """Check that rates are not below the minimum; None means no limit.

    Args:
        requests: per second.
        bandwidth: bytes per second.
    Raises:
        UsageError: a rate is too low.
    """
    if requests is not None and not MIN_REQUEST_RATE <= requests < math.inf:
        raise UsageError("a request rate must be at least one per minute")
    if bandwidth is not None and bandwidth < MIN_BANDWIDTH:
        raise UsageError(f"a bandwidth limit must be at least {MIN_BANDWIDTH} bytes per second")


@dataclass(frozen=True, slots=True)
class TransferConfig:
    """Settings of an engine for threads, memory and requests.

    Each worker uses one block (``block_size``) and one connection, so the buffers take at most
    ``workers * 2 * block_size`` bytes, whatever the size of the blobs.
    """

    workers: int = WORKERS  # threads that transfer blobs; 0 runs every job in the caller's thread
    concurrent_images: int = 16  # images of a mirror planned at the same time
    chunk_size: int | None = None  # bytes of one PATCH; None adapts to two seconds each
    block_size: int = 1 * MIB  # bytes of one read or write
    helpers: int = 3  # additional ranges of one blob fetched in parallel
    range_size: int = 16 * MIB  # bytes of one range
    max_manifest_size: int = 4 * MIB  # bytes; larger manifests are rejected
    jobs_per_host: int = 8  # concurrent jobs per host
    requests: float | None = None  # per second and host; None for no fixed rate
    bandwidth: int | None = None  # bytes per second of all workers together; None for no limit
    host_limits: Mapping[str, HostLimits] = field(
        default_factory=dict
    )  # by host, such as "docker.io"
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    # Of copies to several destinations; None: the directory of the journal.
    spool_directory: str | os.PathLike[str] | None = None
    spool_size: int = SPOOL_SIZE  # bytes by which a destination may be ahead of the slowest one
    cache: str | None = None  # oci:DIR, which keeps the blobs that copies read from registries
    cache_size: int = CACHE_SIZE  # bytes

    def __post_init__(self) -> None:
        """Check the types and ranges of the fields."""
        integer_fields = (
            "workers concurrent_images chunk_size? block_size helpers range_size "
            "max_manifest_size jobs_per_host spool_size cache_size"
        )
        arguments.check_numbers(self, integer_fields, int)
        arguments.check_numbers(self, "requests? bandwidth?")
        arguments.check_instance("host_limits", self.host_limits, Mapping)
        arguments.check_instance("retry", self.retry, RetryPolicy)
        if self.spool_directory is not None:
            arguments.to_path("spool_directory", self.spool_directory)
        if self.workers < 0 or self.helpers < 0:
            raise UsageError("the numbers of workers and helpers must not be negative")
        if self.cache is not None:
            arguments.check_str("cache", self.cache)
        if min(self.spool_size, self.cache_size) < 0:
            raise UsageError("the sizes of the spool and the cache must not be negative")
        smallest = min(self.concurrent_images, self.block_size, self.range_size, self.jobs_per_host)
        if (
            min(smallest, self.max_manifest_size, 1 if self.chunk_size is None else self.chunk_size)
            < 1
        ):
            raise UsageError(
                "the numbers of images, the sizes and the limits of a transfer must be at least 1"
            )
        check_rates(self.requests, self.bandwidth)
