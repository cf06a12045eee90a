"""Bandwidth limits of a run and of single hosts."""

from __future__ import annotations

import threading
import time

from concil.config import KIB, TransferConfig
from concil.errors import Cancelled
from concil.oci.blob_reader import BlobReader, RangeOpener
from concil.oci.reference import limits_by_api_host
from concil.ratelimit.schedule import Schedule
from concil.runtime.parent_process import ParentProcess

BURST_TIME = 0.05  # seconds of the rate that are reserved at once; small, to avoid bursts
_MIN_BURST_SIZE = 1 * KIB


class BandwidthLimiter:
    """Limits bytes per second, serving requests in order. Any thread may call any method."""

    def __init__(self, rate: int) -> None:
        """Allow ``rate`` bytes per second."""
        self.rate = rate
        self.burst_size = max(_MIN_BURST_SIZE, int(rate * BURST_TIME))
        self._schedule = Schedule(rate)
        self._lock = threading.Lock()  # guards _schedule

    def reserve(self, count: int, now: float) -> float:
        """Reserve ``count`` bytes; return when they may be read, in monotonic seconds."""
        with self._lock:
            return self._schedule.reserve(count, now)

    def release(self, count: int) -> None:
        """Release reserved bytes that were not read."""
        with self._lock:
            self._schedule.release(count)


class SharedBandwidthLimiter(BandwidthLimiter):
    """Limiter of one of several processes of a run; the parent has the schedule of all."""

    def __init__(self, rate: int, parent: ParentProcess, host: str) -> None:
        """Allow ``rate`` bytes per second; ``host`` is "" for the limit of the run."""
        super().__init__(rate)
        self._parent = parent
        self._host = host

    def reserve(self, count: int, now: float) -> float:
        """Reserve ``count`` bytes. See `BandwidthLimiter.reserve`."""
        start_time: float = self._parent.call("reserve_bytes", self._host, count, now)
        return start_time

    def release(self, count: int) -> None:
        """Release reserved bytes that were not read."""
        self._parent.post("release_bytes", self._host, count)


class ThrottledReader:
    """A BlobReader within bandwidth limits. One thread at a time."""

    def __init__(
        self, reader: BlobReader, limiters: tuple[BandwidthLimiter, ...], cancel: threading.Event
    ) -> None:
        """Read ``reader``, which is closed with this one; ``cancel`` ends a wait."""
        self._reader = reader
        self._limiters = limiters
        self._burst_size = min(limiter.burst_size for limiter in limiters)
        self._cancel = cancel
        self.start = reader.start

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill some of ``buffer``, after waiting for the reserved time.

        Raises:
            Cancelled: the wait was cancelled.
        """
        size = min(len(buffer), self._burst_size)
        count = 0
        now = time.monotonic()
        start_time = max([limiter.reserve(size, now) for limiter in self._limiters])
        try:
            if start_time > now and self._cancel.wait(start_time - now):
                raise Cancelled("cancelled while waiting for bandwidth")
            count = self._reader.readinto(buffer[:size])
        finally:
            if count < size:
                for limiter in self._limiters:
                    limiter.release(size - count)
        return count

    def close(self) -> None:
        """Close the connection or file."""
        self._reader.close()


class BandwidthLimits:
    """Bandwidth limits of a run, in total and per host. Any thread may call any method.

    Bytes are counted when they are read from the source: once each for the run, the source's
    host and the destination's host. Bytes that are read again after a failure count again.
    """

    def __init__(self, config: TransferConfig, parent: ParentProcess | None = None) -> None:
        """Create the limiters of ``config``; if there are none, readers are not wrapped.

        Args:
            parent: shares the limits with other processes; None if there are none.
        """
        self._parent = parent
        self._total_limiter = (
            None if config.bandwidth is None else self._create_limiter(config.bandwidth, "")
        )
        self._limiter_by_host = {
            host: self._create_limiter(limits.bandwidth, host)
            for host, limits in limits_by_api_host(config.host_limits).items()
            if limits.bandwidth is not None
        }

    def _create_limiter(self, rate: int, host: str) -> BandwidthLimiter:
        if self._parent is None:
            return BandwidthLimiter(rate)
        return SharedBandwidthLimiter(rate, self._parent, host)

    def limiter_for(self, host: str) -> BandwidthLimiter | None:
        """Return the limiter of a host, or of the run for ""; None: no limit."""
        return self._limiter_by_host.get(host) if host else self._total_limiter

    def limit_for(self, host: str) -> int | None:
        """Return the limit for a host in bytes per second; None: no limit."""
        rates = [
            limiter.rate
            for limiter in (self._total_limiter, self._limiter_by_host.get(host))
            if limiter is not None
        ]
        return min(rates, default=None)

    def throttled(
        self, opener: RangeOpener, hosts: tuple[str, ...], cancel: threading.Event
    ) -> RangeOpener:
        """Return an opener whose readers stay within the limits of the run and of ``hosts``.

        Args:
            hosts: hosts of the source and the destination; "": local.
            cancel: ends a wait with Cancelled.
        Returns:
            ``opener`` itself if there are no limits.
        """
        candidates = (
            self._total_limiter,
            *(self._limiter_by_host.get(host) for host in dict.fromkeys(hosts)),
        )
        limiters = tuple(limiter for limiter in candidates if limiter is not None)
        if not limiters:
            return opener

        def open_throttled(start: int, stop: int | None = None, /) -> BlobReader:
            return ThrottledReader(opener(start, stop), limiters, cancel)

        return open_throttled
