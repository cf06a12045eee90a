"""MetricValues: the values of all metrics of one process."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable

from concil.metrics.blob_counts import BlobCounts
from concil.metrics.plan_images import PlanImages


class MetricValues:
    """The values of all metrics. Their collector holds a lock."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        """Start with nothing.

        Args:
            clock: seconds since the epoch.
        """
        self.images = PlanImages(clock)
        self.blobs = BlobCounts()
        self.outcomes: Counter[tuple[str, str]] = Counter()  # by entry and state
        self.running_images: set[tuple[str, str]] = set()
        self.requests: Counter[tuple[str, str]] = Counter()  # by host and status
        self.request_seconds: defaultdict[str, float] = defaultdict(float)  # by host
        self.request_retries: Counter[str] = Counter()  # by host
        self.tokens: Counter[str] = Counter()  # by host
        self.pauses: Counter[str] = Counter()  # by host
        self.pause_seconds: defaultdict[str, float] = defaultdict(float)  # by host
        self.quotas: dict[str, tuple[int, int | None]] = {}  # left and limit, by host
        self.runs: Counter[str] = Counter()  # of the whole plan, by result
        self.retry_runs = 0  # of failed images
        self.notifications: Counter[tuple[str, str]] = Counter()  # by event and result
        self.run_began: float | None = None  # seconds since the epoch; None: between runs
        self.last_run_ended = 0.0  # seconds since the epoch; 0: none has ended
        self.last_run_seconds = 0.0
