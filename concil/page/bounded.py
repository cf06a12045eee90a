"""What is kept of a run of any length: the most telling records, and curves over time."""

from __future__ import annotations

import heapq
from typing import Generic, TypeVar

Item = TypeVar("Item")
_POINTS = 1024  # of a curve, at most; a screen shows no more
_FINEST = 0.05  # seconds of the first buckets


class Kept(Generic[Item]):
    """The items of most weight, up to a number of them. One thread at a time."""

    def __init__(self, most: int) -> None:
        """Keep ``most`` items; of those of equal weight the first."""
        self._most = most
        self._heap: list[tuple[float, int, Item]] = []
        self.seen = 0

    def add(self, item: Item, weight: float) -> None:
        """Keep an item, and give up the lightest if there are too many."""
        self.seen += 1
        entry = (weight, -self.seen, item)  # no two are equal: items are never compared
        if len(self._heap) < self._most:
            heapq.heappush(self._heap, entry)
        else:
            heapq.heappushpop(self._heap, entry)

    @property
    def left_out(self) -> int:
        """How many were given up."""
        return self.seen - len(self._heap)

    @property
    def items(self) -> list[Item]:
        """Those that are kept, in the order in which they came."""
        return [item for _, _, item in sorted(self._heap, key=lambda entry: -entry[1])]


class Throughput:
    """Bytes by time. Buckets become wider as the run goes on. One thread at a time."""

    def __init__(self) -> None:
        """Begin with nothing moved."""
        self.width = _FINEST  # seconds of a bucket
        self.buckets: list[float] = []  # bytes

    def add(self, start: float, stop: float, count: int) -> None:
        """Spread bytes evenly over a time.

        Args:
            start, stop: seconds since the run began.
        """
        while stop >= self.width * _POINTS:
            pairs = range(0, len(self.buckets), 2)
            self.buckets = [sum(self.buckets[n : n + 2]) for n in pairs]
            self.width *= 2
        first, last = int(start / self.width), int(stop / self.width)
        self.buckets += [0.0] * (last + 1 - len(self.buckets))
        if first == last:
            self.buckets[first] += count
            return
        rate = count / (stop - start)
        for n in range(first, last + 1):
            within = min(stop, (n + 1) * self.width) - max(start, n * self.width)
            self.buckets[n] += rate * within


class Depth:
    """How many of something there were, by time: the most in each bucket. One thread."""

    def __init__(self) -> None:
        """Begin with none."""
        self.width = _FINEST  # seconds of a bucket
        self.buckets: list[int] = [0]
        self._now = 0

    def change(self, at: float, by: int) -> None:
        """Take note that there are more or fewer.

        Args:
            at: seconds since the run began; never less than before.
        """
        while at >= self.width * _POINTS:
            pairs = range(0, len(self.buckets), 2)
            self.buckets = [max(self.buckets[n : n + 2]) for n in pairs]
            self.width *= 2
        place = int(at / self.width)
        self.buckets += [self._now] * (place + 1 - len(self.buckets))
        self._now += by
        self.buckets[-1] = max(self.buckets[-1], self._now)
