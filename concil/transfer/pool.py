"""Worker threads over one heap of jobs, and claims that give each blob one owner."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import threading
import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Generic, TypeVar

from concil.cancellation import current_scope, working_for
from concil.errors import Cancelled
from concil.limits import start_thread
from concil.reference import by_server
from concil.transfer.run import Run

Result = TypeVar("Result")
_SETTLED = 16_384  # results of claims that are kept: some 20 MiB of blobs
_AGAIN = 1.0  # seconds until another thread is asked for where there was none to be had
_TICK = 0.2  # seconds between two looks at the cancel event while waiting for a future


class Rank(IntEnum):
    """What goes first."""

    SMALL = 0  # checks, manifests
    BLOB = 1
    HELPER = 2  # more ranges of a blob that somebody is already at


@dataclass(frozen=True, slots=True)
class Place:
    """What a job takes while it runs, beside a place at its hosts, of so many that there are."""

    name: str
    limit: int


@dataclass(order=True, slots=True)
class _Job:
    rank: int
    weight: int  # minus the bytes: the largest first, so that none is last alone
    number: int
    run: Callable[[], None] = field(compare=False)
    places: tuple[str, ...] = field(compare=False)
    drop: Callable[[], object] = field(compare=False)


class WorkerPool:
    """Threads that run jobs by rank, then size, within a limit for each host.

    Any thread may submit; a job must not wait for another job. A thread is started when there is
    a job for it. With 0 workers, or where no thread can be had, a job runs inside `submit`.
    A job belongs to the call that its submitter works for: it is cancelled with it.
    """

    def __init__(self, run: Run) -> None:
        """Have up to ``run.config.workers`` threads; `close` ends them."""
        self.run = run
        self.workers = run.config.workers
        self.cancel = run.cancel
        self._per_host = run.config.per_host
        own = by_server(run.config.hosts)
        self._limits = {host: each.jobs for host, each in own.items() if each.jobs is not None}
        self._heap: list[_Job] = []
        self._blocked: dict[str, list[_Job]] = defaultdict(list)  # heaps, by the full place
        self._running: dict[str, int] = defaultdict(int)  # jobs, by place
        self._closed = False
        self._wake = threading.Condition()
        self._numbers = itertools.count()
        self._threads: list[threading.Thread] = []
        self._idle = 0  # threads that wait for a job
        self._refused = 0.0  # monotonic seconds: when the system gave no further thread

    def submit(
        self,
        job: Callable[[], Result],
        *,
        rank: Rank = Rank.BLOB,
        size: int = 0,
        hosts: tuple[str, ...] = (),
        places: tuple[Place, ...] = (),
    ) -> Future[Result]:
        """Run ``job`` when its turn comes; its result or exception is the future's.

        Args:
            hosts: whom it talks to; "": nobody.
        """
        future: Future[Result] = Future()
        scope = current_scope()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                with working_for(scope):
                    result = job()
                future.set_result(result)
            except BaseException as error:  # noqa: BLE001 - the future's owner gets it
                future.set_exception(error)

        with self._wake:
            if self._closed:
                future.set_exception(Cancelled("the transfer was ended"))
                return future
            if self._has_thread():
                self._limits |= {place.name: place.limit for place in places}
                names = _distinct((*hosts, *(place.name for place in places)))
                entry = _Job(rank, -size, next(self._numbers), run, names, future.cancel)
                heapq.heappush(self._heap, entry)
                self._wake.notify()
                return future
        run()
        return future

    def _has_thread(self) -> bool:
        """Whether a thread will come by; one is started if all are busy. The lock is held."""
        missing = self._idle <= len(self._heap) and len(self._threads) < self.workers
        again = not self._refused or time.monotonic() - self._refused >= _AGAIN
        if missing and again:
            number = len(self._threads)
            thread = threading.Thread(
                target=self._work, name=f"concil-worker-{number}", daemon=True
            )
            # Once is enough to tell it.
            what = "" if self._refused else f"going on with {number} of {self.workers} workers"
            if start_thread(thread, what):
                self._threads.append(thread)
            else:
                self._refused = time.monotonic()
        return bool(self._threads)

    def at_once(
        self, calls: Iterable[Callable[[], Result]], hosts: tuple[str, ...]
    ) -> list[Result]:
        """Make small calls to hosts at once, and wait for them: no worker of the pool may."""
        futures = [self.submit(call, rank=Rank.SMALL, hosts=hosts) for call in calls]
        return [wait(future, self.cancel) for future in futures]

    def close(self, timeout: float | None = None) -> bool:
        """Drop what has not begun and end the threads.

        Args:
            timeout: seconds to wait for running jobs, all together; None: until they end.
        Returns:
            Whether every thread has ended.
        """
        with self._wake:
            self._closed = True
            waiting = self._heap + [job for jobs in self._blocked.values() for job in jobs]
            self._heap, self._blocked = [], defaultdict(list)
            self._wake.notify_all()
        for job in waiting:
            job.drop()
        until = None if timeout is None else time.monotonic() + timeout
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(None if until is None else max(0.0, until - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def after_fork(self) -> None:
        """Run nothing in a forked child: its threads are the parent's."""
        self._wake = threading.Condition()
        self._heap, self._blocked, self._threads = [], defaultdict(list), []
        self._closed = True

    def _work(self) -> None:
        while True:
            with self._wake:
                job = self._next()
                while job is None and not self._closed:
                    self._idle += 1
                    self._wake.wait()
                    self._idle -= 1
                    job = self._next()
            if job is None:
                return
            try:
                job.run()
            finally:
                self._finished(job)
            job = None  # what it holds may go while this thread waits

    def _next(self) -> _Job | None:
        """Take the first job whose places are below their limits. The caller holds the lock."""
        while self._heap:
            job = heapq.heappop(self._heap)
            full = next((name for name in job.places if not self._has_room(name)), None)
            if full is None:
                for name in job.places:
                    self._running[name] += 1
                return job
            heapq.heappush(self._blocked[full], job)
            # It cannot use the place at its other host: somebody else may.
            for name in job.places:
                if self._has_room(name):
                    self._look_again(name)
        return None

    def _has_room(self, name: str) -> bool:
        """Whether one more job may run there. The caller holds the lock."""
        return self._running[name] < self._limits.get(name, self._per_host)

    def _finished(self, job: _Job) -> None:
        """Give its places back, and one waiting job of each another look."""
        with self._wake:
            for name in job.places:
                self._running[name] -= 1
                self._look_again(name)

    def _look_again(self, name: str) -> None:
        """Put the first job that waits for a place among the others. The caller holds the lock."""
        if self._blocked[name]:
            heapq.heappush(self._heap, heapq.heappop(self._blocked[name]))
            self._wake.notify()


def _distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for name in names if name))


def wait(future: Future[Result], cancel: threading.Event) -> Result:
    """Wait for a future, or raise Cancelled soon after somebody cancels."""
    while not future.done():
        with contextlib.suppress(TimeoutError, CancelledError):
            future.exception(timeout=_TICK)
        if cancel.is_set() and not future.done():
            raise Cancelled("cancelled")
    if future.cancelled():
        raise Cancelled("the transfer was ended before its turn came")
    return future.result()


class Claims(Generic[Result]):
    """Gives each key one owner at a time, whose result everybody shares. Any thread.

    Of the results those are kept that were asked for last: whoever comes later than that for
    a blob finds it at the destination, by a request.
    """

    def __init__(self, most: int = _SETTLED) -> None:
        """Begin with nothing claimed, and keep ``most`` results."""
        self._most = most
        self._held: dict[Hashable, Future[Result]] = {}
        # What owners have left: a future is a thousand bytes, and a mirror has many.
        self._settled: OrderedDict[Hashable, Result] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, key: Hashable) -> tuple[bool, Future[Result]]:
        """Return whether the caller is the owner now, and the future the owner completes."""
        future: Future[Result] = Future()
        with self._lock:
            if key in self._settled:
                self._settled.move_to_end(key)
                future.set_result(self._settled[key])
                return False, future
            held = self._held.setdefault(key, future)
            return held is future, held

    def complete(self, key: Hashable, future: Future[Result], result: Result) -> None:
        """Complete the future of a key, and keep no more than the result."""
        with self._lock:
            if self._held.get(key) is future:
                del self._held[key]
                self._settled[key] = result
                if len(self._settled) > self._most:
                    self._settled.popitem(last=False)
        future.set_result(result)

    def release(self, key: Hashable, future: Future[Result]) -> None:
        """Let somebody else try: the owner failed. Call it before the future is completed."""
        with self._lock:
            if self._held.get(key) is future:
                del self._held[key]

    def forget(self, key: Hashable) -> None:
        """Let somebody else try although the owner succeeded, unless one is still at it."""
        with self._lock:
            self._settled.pop(key, None)
            held = self._held.get(key)
            if held is not None and held.done():
                del self._held[key]

    def forget_settled(self, is_doubtful: Callable[[Hashable], bool]) -> None:
        """Let somebody else try for keys whose owners have succeeded."""
        with self._lock:
            for key in [key for key in self._settled if is_doubtful(key)]:
                del self._settled[key]


@contextlib.contextmanager
def turn(claims: Claims[None], key: Hashable, cancel: threading.Event) -> Iterator[None]:
    """Let the first coordinator that comes go ahead; others go when it has ended, all at once."""
    first, ended = claims.take(key)
    if not first:
        wait(ended, cancel)
        yield
        return
    try:
        yield
    finally:
        claims.release(key, ended)
        ended.set_result(None)
