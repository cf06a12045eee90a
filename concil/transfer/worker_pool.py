"""Worker threads over one priority queue of jobs."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, TypeVar

from concil.errors import Cancelled
from concil.oci.reference import limits_by_api_host
from concil.runtime.cancellation import CancelScope, current_scope, run_in_scope
from concil.runtime.limits import start_thread
from concil.transfer.context import TransferContext

Result = TypeVar("Result")
_THREAD_RETRY_INTERVAL = (
    1.0  # seconds until the next attempt after the system refused to start a thread
)
_CANCEL_POLL_INTERVAL = 0.2  # seconds between checks of the cancel event while waiting for a future


class Priority(IntEnum):
    """Order in which jobs run."""

    REQUEST = 0  # checks, manifests
    BLOB = 1
    HELPER = 2  # further ranges of a blob that is already being downloaded


@dataclass(frozen=True, slots=True)
class Slot:
    """A limited resource that a running job occupies, in addition to one slot per host."""

    name: str
    limit: int


@dataclass(order=True, slots=True)
class _Job:
    priority: int
    negative_size: (
        int  # minus the bytes: the largest runs first, so that none runs alone at the end
    )
    sequence_number: int
    function: Callable[[], Any] = field(compare=False)
    slots: tuple[str, ...] = field(compare=False)
    future: Future[Any] = field(compare=False)
    scope: CancelScope | None = field(compare=False)  # of the call that submitted it
    result: Any = field(default=None, compare=False)  # of the function

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Complete the future when the block, which calls the function, ends in any way.

        What the future's callbacks do belongs to the call as well: they emit progress events.
        """
        with run_in_scope(self.scope):
            try:
                yield
                self.future.set_result(self.result)
            except BaseException as error:  # noqa: BLE001 - the future's owner gets it
                self.future.set_exception(error)


class WorkerPool:
    """Threads that run jobs by priority, then size, within a limit for each host.

    Any thread may submit; a job must not wait for another job. Threads are started on demand.
    With 0 workers, or if no thread can be started, a job runs inside `submit`. A job is
    cancelled together with the call in whose scope it was submitted.
    """

    def __init__(self, context: TransferContext, workers: int | None = None) -> None:
        """Start threads on demand; `close` ends them.

        Args:
            workers: maximum number of threads; None: ``context.config.workers``.
        """
        self.context = context
        self.workers = context.config.workers if workers is None else workers
        self.cancel = context.cancel
        self._jobs_per_host = context.config.jobs_per_host
        limits = limits_by_api_host(context.config.host_limits)
        self._limits = {
            host: limit.jobs for host, limit in limits.items() if limit.jobs is not None
        }
        self._heap: list[_Job] = []
        self._blocked_jobs: dict[str, list[_Job]] = defaultdict(list)  # heaps, by the full slot
        self._running_count: dict[str, int] = defaultdict(int)  # jobs, by slot
        self._is_closed = False
        self._condition = threading.Condition()
        self._sequence_numbers = itertools.count()
        self._threads: list[threading.Thread] = []
        self._idle_count = 0  # threads that wait for a job
        self._thread_failure_time = 0.0  # monotonic seconds: when a thread could not be started

    def submit(
        self,
        job: Callable[[], Result],
        *,
        priority: Priority = Priority.BLOB,
        size: int = 0,
        hosts: tuple[str, ...] = (),
        slots: tuple[Slot, ...] = (),
    ) -> Future[Result]:
        """Queue ``job``; the returned future gets its result or exception.

        Args:
            hosts: hosts that it sends requests to; "" is ignored.
        """
        future: Future[Result] = Future()
        names = _distinct((*hosts, *(slot.name for slot in slots)))
        entry = _Job(
            priority, -size, next(self._sequence_numbers), job, names, future, current_scope()
        )
        with self._condition:
            if self._is_closed:
                future.set_exception(Cancelled("the transfer was ended"))
                return future
            if self._ensure_thread():
                self._limits |= {slot.name: slot.limit for slot in slots}
                heapq.heappush(self._heap, entry)
                self._condition.notify()
                return future
        if future.set_running_or_notify_cancel():
            with entry.running():
                entry.result = job()
        return future

    def submit_helper(self, job: Callable[[], None], *, size: int, hosts: tuple[str, ...]) -> None:
        """Queue a job that helps another one; dropped if there are no worker threads.

        Args:
            size: bytes of the blob.
        """
        if self.workers:
            self.submit(job, priority=Priority.HELPER, size=size, hosts=hosts)

    def _ensure_thread(self) -> bool:
        """Start a thread if all are busy; return whether there is any. The lock is held."""
        needs_thread = self._idle_count <= len(self._heap) and len(self._threads) < self.workers
        may_retry = (
            not self._thread_failure_time
            or time.monotonic() - self._thread_failure_time >= _THREAD_RETRY_INTERVAL
        )
        if needs_thread and may_retry:
            number = len(self._threads)
            thread = threading.Thread(
                target=self._run_jobs, name=f"concil-worker-{number}", daemon=True
            )
            # Log the first failure only.
            consequence = (
                ""
                if self._thread_failure_time
                else f"continuing with {number} of {self.workers} workers"
            )
            if start_thread(thread, consequence):
                self._threads.append(thread)
            else:
                self._thread_failure_time = time.monotonic()
        return bool(self._threads)

    def run_all(
        self, calls: Iterable[Callable[[], Result]], hosts: tuple[str, ...]
    ) -> list[Result]:
        """Make short calls concurrently and wait for them; not to be called by a worker."""
        futures = [self.submit(call, priority=Priority.REQUEST, hosts=hosts) for call in calls]
        return [wait_for(future, self.cancel) for future in futures]

    def close(self, timeout: float | None = None) -> bool:
        """Cancel queued jobs and end the threads.

        Args:
            timeout: seconds to wait for all running jobs together; None: without limit.
        Returns:
            Whether every thread has ended.
        """
        with self._condition:
            self._is_closed = True
            queued = self._heap + [job for jobs in self._blocked_jobs.values() for job in jobs]
            self._heap, self._blocked_jobs = [], defaultdict(list)
            self._condition.notify_all()
        for job in queued:
            job.future.cancel()
        deadline = None if timeout is None else time.monotonic() + timeout
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(None if deadline is None else max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def after_fork(self) -> None:
        """Close the pool in a forked child, which has none of the threads."""
        self._condition = threading.Condition()
        self._heap, self._blocked_jobs, self._threads = [], defaultdict(list), []
        self._is_closed = True

    def _run_jobs(self) -> None:
        while True:
            with self._condition:
                job = self._next_job()
                while job is None and not self._is_closed:
                    self._idle_count += 1
                    self._condition.wait()
                    self._idle_count -= 1
                    job = self._next_job()
            if job is None:
                return
            try:
                if job.future.set_running_or_notify_cancel():
                    with job.running():
                        job.result = job.function()
            finally:
                self._release_slots(job)
            job = None  # releases its memory while this thread waits

    def _next_job(self) -> _Job | None:
        """Pop the first job whose slots are all free; None: there is none. The lock is held."""
        while self._heap:
            job = heapq.heappop(self._heap)
            full_slot = next((name for name in job.slots if not self._has_free_slot(name)), None)
            if full_slot is None:
                for name in job.slots:
                    self._running_count[name] += 1
                return job
            heapq.heappush(self._blocked_jobs[full_slot], job)
            # Another job may use the free slots that this one cannot.
            for name in job.slots:
                if self._has_free_slot(name):
                    self._unblock_job(name)
        return None

    def _has_free_slot(self, name: str) -> bool:
        """Whether one more job may occupy the slot. The caller holds the lock."""
        return self._running_count[name] < self._limits.get(name, self._jobs_per_host)

    def _release_slots(self, job: _Job) -> None:
        """Free the slots of a job, and unblock one waiting job for each."""
        with self._condition:
            for name in job.slots:
                self._running_count[name] -= 1
                self._unblock_job(name)

    def _unblock_job(self, name: str) -> None:
        """Requeue the first job that waits for a slot. The caller holds the lock."""
        if self._blocked_jobs[name]:
            heapq.heappush(self._heap, heapq.heappop(self._blocked_jobs[name]))
            self._condition.notify()


def _distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for name in names if name))


def wait_for(future: Future[Result], cancel: threading.Event) -> Result:
    """Return the result of a future; raise Cancelled soon after ``cancel`` is set."""
    while not future.done():
        with contextlib.suppress(TimeoutError, CancelledError):
            future.exception(timeout=_CANCEL_POLL_INTERVAL)
        if cancel.is_set() and not future.done():
            raise Cancelled("cancelled")
    if future.cancelled():
        raise Cancelled("the transfer was cancelled before it started")
    return future.result()
