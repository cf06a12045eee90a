"""The settings of a transfer, frozen, with their units and what they cost."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from concil import arguments
from concil.errors import UsageError

_SECONDS = (int, float, type(None))
KIB = 1024
MIB = 1024 * 1024
LEAST_BANDWIDTH = 1 * KIB  # bytes a second; with less every connection seems to be dead
LEAST_REQUESTS = 1 / 60  # a second


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long to wait for the other side, in seconds."""

    connect: float = 10.0  # seconds until a connection must stand
    idle: float = 60.0  # seconds without a byte, in either direction
    commit: float = 300.0  # seconds for a closing PUT: object stores join parts first

    def __post_init__(self) -> None:
        """Refuse what is no time to wait."""
        arguments.numbers(self, "connect idle commit")
        if not all(0 < each < math.inf for each in (self.connect, self.idle, self.commit)):
            raise UsageError("a timeout is a number of seconds above 0")

    @classmethod
    def argument(
        cls, name: str, value: float | tuple[float | None, float | None] | Timeouts | None
    ) -> Timeouts:
        """Return an argument as timeouts: seconds without a byte, or (connect, read) as requests.

        Raises:
            TypeError: it is something else.
            UsageError: it is no time to wait.
        """
        if value is None:
            return cls()
        if isinstance(value, cls):
            return value
        wanted = "seconds, (connect, read) or Timeouts"
        pair = value if isinstance(value, tuple) and len(value) == 2 else (None, value)
        for each in pair:
            arguments.instance(name, each, _SECONDS, wanted)
        seconds: Any = zip(("connect", "idle"), pair, strict=True)
        return cls(**{key: each for key, each in seconds if each is not None})


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
        arguments.numbers(self, "attempts restarts", int)
        arguments.numbers(self, "base longest longest_asked")
        if self.attempts < 1 or self.restarts < 0 or min(self.base, self.longest) < 0:
            raise UsageError("a retry policy needs at least one attempt and no negative numbers")

    @classmethod
    def argument(cls, name: str, value: int | RetryPolicy | None) -> RetryPolicy:
        """Return an argument as a policy: how many attempts, or all of it.

        Raises:
            TypeError: it is something else.
            UsageError: it is less than one attempt.
        """
        if value is None or isinstance(value, cls):
            return value or cls()
        attempts: Any = arguments.instance(name, value, int, "int or RetryPolicy")
        return cls(attempts=attempts)


@dataclass(frozen=True, slots=True)
class HostLimits:
    """What one host is asked for at most; None: no limit of its own."""

    jobs: int | None = None
    requests: float | None = None  # a second
    bandwidth: int | None = None  # bytes a second

    def __post_init__(self) -> None:
        """Refuse limits under which nothing would move."""
        arguments.numbers(self, "jobs?", int)
        arguments.numbers(self, "requests? bandwidth?")
        if self.jobs is not None and self.jobs < 1:
            raise UsageError("a host has 1 job at once or more")
        check_rates(self.requests, self.bandwidth)


def check_rates(requests: float | None, bandwidth: int | None) -> None:
    """Refuse rates under which nothing would move; None: no limit.

    Args:
        requests: a second.
        bandwidth: bytes a second.
    """
    if requests is not None and not LEAST_REQUESTS <= requests < math.inf:
        raise UsageError("a limit on requests is one a minute or more")
    if bandwidth is not None and bandwidth < LEAST_BANDWIDTH:
        raise UsageError(f"a limit on bandwidth is {LEAST_BANDWIDTH} bytes a second or more")


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
    requests: float | None = None  # a second, to each host; None: as many as it takes
    bandwidth: int | None = None  # bytes a second of all workers together; None: no limit
    hosts: Mapping[str, HostLimits] = field(default_factory=dict)  # by host as people write it
    retry: RetryPolicy = field(default_factory=RetryPolicy)

    def __post_init__(self) -> None:
        """Refuse numbers that cannot work."""
        whole = "workers images chunk_size? block_size helpers range_size manifest_limit per_host"
        arguments.numbers(self, whole, int)
        arguments.numbers(self, "requests? bandwidth?")
        arguments.instance("hosts", self.hosts, Mapping)
        arguments.instance("retry", self.retry, RetryPolicy)
        if self.workers < 0 or self.helpers < 0:
            raise UsageError("workers and helpers are 0 or more")
        least = min(self.images, self.block_size, self.range_size, self.per_host)
        if min(least, self.manifest_limit, 1 if self.chunk_size is None else self.chunk_size) < 1:
            raise UsageError("images, sizes and limits of a transfer are 1 or more")
        check_rates(self.requests, self.bandwidth)
