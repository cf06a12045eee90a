"""Bandwidth: the bytes of a run, and of single hosts, read at a rate and not as they come."""

from __future__ import annotations

import threading
import time

from concil.config import KIB, TransferConfig
from concil.errors import Cancelled
from concil.pace import Schedule
from concil.reference import by_server
from concil.store.protocol import BlobReader

PIECE_TIME = 0.05  # seconds of a rate that are taken at once: a chunk does not come in a burst
_LEAST_PIECE = 1 * KIB


class Throttle:
    """So many bytes a second for whoever asks, in the order of asking. Any thread."""

    def __init__(self, rate: int) -> None:
        """Give ``rate`` bytes a second."""
        self.rate = rate
        self.piece = max(_LEAST_PIECE, int(rate * PIECE_TIME))
        self._schedule = Schedule(rate)
        self._lock = threading.Lock()  # guards _schedule

    def take(self, count: int, now: float) -> float:
        """Take ``count`` bytes; return when they may be moved."""
        with self._lock:
            return self._schedule.reserve(count, now)

    def give_back(self, count: int) -> None:
        """Return bytes that did not come."""
        with self._lock:
            self._schedule.give_back(count)


class PacedReader:
    """A BlobReader that takes its time. One thread at a time."""

    def __init__(
        self, reader: BlobReader, throttles: tuple[Throttle, ...], stop: threading.Event
    ) -> None:
        """Read ``reader``, which is closed with it, until ``stop``."""
        self._reader = reader
        self._throttles = throttles
        self._piece = min(throttle.piece for throttle in throttles)
        self._stop = stop
        self.start = reader.start

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill some of ``buffer`` when it is its turn."""
        want = min(len(buffer), self._piece)
        count = 0
        now = time.monotonic()
        due = max([throttle.take(want, now) for throttle in self._throttles])
        try:
            if due > now and self._stop.wait(due - now):
                raise Cancelled("cancelled while the bandwidth was used by others")
            count = self._reader.readinto(buffer[:want])
        finally:
            if count < want:
                for throttle in self._throttles:
                    throttle.give_back(want - count)
        return count

    def close(self) -> None:
        """Let go of the connection or file."""
        self._reader.close()


class Bandwidth:
    """What a run may move in a second, all in all and to and from single hosts. Any thread.

    A byte counts where it is read: once, on its way from a source to its destination, for
    the run and for each of the two hosts. What is read again after a loss counts again.
    """

    def __init__(self, config: TransferConfig) -> None:
        """Read the limits; without any nothing is ever wrapped."""
        self._all = None if config.bandwidth is None else Throttle(config.bandwidth)
        self._hosts = {
            host: Throttle(each.bandwidth)
            for host, each in by_server(config.hosts).items()
            if each.bandwidth is not None
        }

    def of(self, host: str) -> int | None:
        """Bytes a second that may go to a host at most; None: no limit."""
        found = [each.rate for each in (self._all, self._hosts.get(host)) if each is not None]
        return min(found, default=None)

    def paced(
        self, reader: BlobReader, hosts: tuple[str, ...], stop: threading.Event
    ) -> BlobReader:
        """Let ``reader`` be read within the limits of the run and of ``hosts``.

        Args:
            hosts: whom the bytes come from and go to; "": this machine.
            stop: ends a wait, by Cancelled.
        """
        throttles = (self._all, *(self._hosts.get(host) for host in dict.fromkeys(hosts)))
        found = tuple(throttle for throttle in throttles if throttle is not None)
        return PacedReader(reader, found, stop) if found else reader
