"""A cluster whose machines, network and clock are simulated, under the real driver of a mirror."""

from __future__ import annotations

import heapq
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from benchmarks.scale.costs import Cluster, ImageCost
from concil.cluster.worker import CopyTask
from concil.oci.digest import Digest
from concil.progress.events import State
from concil.transfer.image.result import ImageResult
from concil.transfer.mirror.report import Outcome

_DIGEST = Digest.from_bytes(b"")


class Resource:
    """Something that does one thing at a time, such as a core. One thread."""

    def __init__(self) -> None:
        """Start idle at the time 0."""
        self._free_at = 0.0
        self.busy = 0.0  # seconds

    def use(self, now: float, seconds: float) -> float:
        """Use it after everything that came before; return when that has ended."""
        self._free_at = max(self._free_at, now) + seconds
        self.busy += seconds
        return self._free_at


@dataclass(slots=True, eq=False)
class SimulatedFuture:
    """The future of a task: as much of distributed's as the driver uses."""

    task: CopyTask
    status: str = "pending"
    callbacks: list[Callable[[SimulatedFuture], object]] = field(default_factory=list)

    def add_done_callback(self, callback: Callable[[SimulatedFuture], object]) -> None:
        """Call it when the task has ended."""
        self.callbacks.append(callback)

    def result(self) -> tuple[Outcome, ...]:
        """Return the outcome of a copied image."""
        item = self.task.item
        return (Outcome(item, ImageResult(item.source, item.destination, State.DONE, _DIGEST)),)


class SimulatedCluster:
    """Workers, a scheduler and two registries: as much of a Dask client as the driver uses.

    It is the queue of finished tasks as well: while the driver waits for one, the clock goes on.
    """

    def __init__(self, workers: int, cost: ImageCost, cluster: Cluster) -> None:
        """Start ``workers`` idle workers at the time 0."""
        self._cost = cost
        self._cluster = cluster
        self.driver, self.scheduler, self.registries = Resource(), Resource(), Resource()
        self.workers = [Resource() for _ in range(workers)]
        self.now = 0.0  # seconds, at the driver
        # When a thread of a worker is free, and the number of the worker.
        self._threads = [(0.0, n) for n in range(workers) for _ in range(cluster.threads)]
        self._running: list[tuple[float, int, SimulatedFuture]] = []  # a heap, by end
        self._finished: list[SimulatedFuture] = []
        self._last_call = time.process_time()  # when the driver was given control
        self.requests = 0.0
        self.largest: Counter[str] = Counter()  # the longest queues

    # What the driver calls --------------------------------------------------------------

    def nthreads(self) -> dict[str, int]:
        """Return the threads of each worker."""
        return {str(number): self._cluster.threads for number in range(len(self.workers))}

    def submit(self, _function: object, task: CopyTask, *, key: str, pure: bool) -> SimulatedFuture:
        """Give a task to the scheduler, and by it to the first thread that is free."""
        assert not pure, key
        self._charge_driver(self._cluster.submit_cpu)
        future = SimulatedFuture(task)
        scheduled = self.scheduler.use(self.now, self._cluster.scheduler_cpu)
        free_at, worker = heapq.heappop(self._threads)
        begin = max(free_at, scheduled)
        end = self._run_image(worker, begin)
        heapq.heappush(self._threads, (end, worker))
        heapq.heappush(self._running, (end, task.number, future))
        self._note("tasks", len(self._running))
        self._resume_driver()
        return future

    def cancel(self, futures: list[SimulatedFuture]) -> None:
        """Cancel tasks; at the end of a mirror there are none."""
        assert not futures

    def put(self, future: SimulatedFuture) -> None:
        """Add a finished task to the queue."""
        self._finished.append(future)

    def get(self, timeout: float) -> SimulatedFuture:
        """Return the next finished task; the clock goes on until then."""
        del timeout  # of a real clock
        self._charge_driver(0.0)
        end, _, future = heapq.heappop(self._running)
        self.now = max(self.now, end)
        self._note("outcomes", sum(1 for each in self._running[:64] if each[0] <= self.now) + 1)
        future.status = "finished"
        for callback in future.callbacks:
            callback(future)
        self._resume_driver()
        return self._finished.pop()

    def list_pages(self, names: list[str]) -> Iterator[str]:
        """Yield names that a registry lists page by page."""
        for start in range(0, len(names), self._cluster.page):
            self._charge_driver(0.0)
            # Not after the requests that the workers will send later.
            self.registries.busy += 1 / self._cluster.registry_rate
            self.now += self._cluster.round_trip
            self.requests += 1
            self._resume_driver()
            yield from names[start : start + self._cluster.page]

    # -------------------------------------------------------------------------------------

    def _run_image(self, worker: int, begin: float) -> float:
        """Return when a worker that begins an image has ended it."""
        cost, cluster = self._cost, self._cluster
        self.requests += cost.requests
        waited = begin + cost.round_trips * cluster.round_trip
        computed = self.workers[worker].use(begin, cost.cpu)
        answered = self.registries.use(begin, cost.requests / cluster.registry_rate)
        self._note("requests", round((answered - begin) * cluster.registry_rate))
        return max(waited, computed, answered)

    def _charge_driver(self, seconds: float) -> None:
        """Charge the driver for what it has computed since it was given control."""
        seconds += time.process_time() - self._last_call
        self.now = self.driver.use(self.now, seconds)

    def _resume_driver(self) -> None:
        self._last_call = time.process_time()

    def _note(self, queue: str, length: int) -> None:
        self.largest[queue] = max(self.largest[queue], length)
