"""Bounds the recorded data: the largest items and bucketed curves."""

from __future__ import annotations

import heapq
from typing import Generic, TypeVar

Item = TypeVar("Item")
_MAX_BUCKETS = 1024  # more than a screen shows
_INITIAL_WIDTH = 0.05  # seconds of a bucket at the start


class LargestItems(Generic[Item]):
    """The items of greatest weight, up to a limit. Not thread-safe."""

    def __init__(self, limit: int) -> None:
        """Keep at most ``limit`` items; of items with equal weight, the earlier ones."""
        self._limit = limit
        self._heap: list[tuple[float, int, Item]] = []
        self.total_count = 0

    def add(self, item: Item, weight: float) -> Item | None:
        """Add an item; return the lightest one, which is dropped, if there are too many."""
        self.total_count += 1
        entry = (weight, -self.total_count, item)  # unique, so that items are never compared
        if len(self._heap) < self._limit:
            heapq.heappush(self._heap, entry)
            return None
        return heapq.heappushpop(self._heap, entry)[2]

    @property
    def dropped_count(self) -> int:
        """The number of dropped items."""
        return self.total_count - len(self._heap)

    @property
    def items(self) -> list[Item]:
        """The kept items, in the order in which they were added."""
        return [item for _, _, item in sorted(self._heap, key=lambda entry: -entry[1])]


class Throughput:
    """Bytes over time; buckets grow with the run. Not thread-safe."""

    def __init__(self) -> None:
        """Start with no bytes."""
        self.bucket_width = _INITIAL_WIDTH  # seconds
        self.buckets: list[float] = []  # bytes

    def copy(self) -> Throughput:
        """Return a copy, which does not change."""
        other = Throughput()
        other.bucket_width, other.buckets = self.bucket_width, list(self.buckets)
        return other

    def add(self, start: float, stop: float, count: int) -> None:
        """Spread bytes evenly over an interval.

        Args:
            start, stop: seconds since the start of the run.
        """
        while stop >= self.bucket_width * _MAX_BUCKETS:
            starts = range(0, len(self.buckets), 2)
            self.buckets = [sum(self.buckets[n : n + 2]) for n in starts]
            self.bucket_width *= 2
        first, last = int(start / self.bucket_width), int(stop / self.bucket_width)
        self.buckets += [0.0] * (last + 1 - len(self.buckets))
        if first == last:
            self.buckets[first] += count
            return
        rate = count / (stop - start)
        for n in range(first, last + 1):
            overlap = min(stop, (n + 1) * self.bucket_width) - max(start, n * self.bucket_width)
            self.buckets[n] += rate * overlap


class QueueDepth:
    """A count over time: the maximum in each bucket. Not thread-safe."""

    def __init__(self) -> None:
        """Start at zero."""
        self.bucket_width = _INITIAL_WIDTH  # seconds
        self.buckets: list[int] = [0]
        self._current = 0

    def copy(self) -> QueueDepth:
        """Return a copy, which does not change."""
        other = QueueDepth()
        other.bucket_width, other.buckets = self.bucket_width, list(self.buckets)
        return other

    @property
    def current(self) -> int:
        """The present count."""
        return self._current

    def add(self, time: float, count: int) -> None:
        """Change the current count.

        Args:
            time: seconds since the start of the run; must not decrease.
            count: the change; negative to decrease the count.
        """
        while time >= self.bucket_width * _MAX_BUCKETS:
            starts = range(0, len(self.buckets), 2)
            self.buckets = [max(self.buckets[n : n + 2]) for n in starts]
            self.bucket_width *= 2
        index = int(time / self.bucket_width)
        self.buckets += [self._current] * (index + 1 - len(self.buckets))
        self._current += count
        self.buckets[-1] = max(self.buckets[-1], self._current)
