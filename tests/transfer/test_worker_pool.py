"""The pool runs jobs in the right order, within limits, and ends them all."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import CancelledError
from dataclasses import replace
from functools import partial

import pytest

from concil.config import HostLimits
from concil.errors import Cancelled
from concil.transfer.worker_pool import Priority, Slot, WorkerPool, wait_for
from tests.transfer.transfer_setup import CONFIG, WAIT, ClosableGate, create_pool

ONE_PER_HOST = replace(CONFIG, jobs_per_host=1)


@pytest.fixture
def single() -> Iterator[WorkerPool]:
    """Run a pool of one worker."""
    with create_pool(1) as pool:
        yield pool


def busy(pool: WorkerPool, *hosts: str) -> ClosableGate:
    """Occupy one worker until the gate is opened."""
    gate = ClosableGate()
    pool.submit(gate, priority=Priority.REQUEST, hosts=hosts)
    assert gate.entered.wait(WAIT)
    return gate


def test_result_of_a_job_is_its_futures(single: WorkerPool) -> None:
    assert single.submit(lambda: 7).result(WAIT) == 7


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), SystemExit(3)])
def test_exception_of_a_job_is_its_futures_and_the_worker_goes_on(
    single: WorkerPool, error: BaseException
) -> None:
    def fail() -> None:
        raise error

    failed = single.submit(fail)

    assert failed.exception(WAIT) is error
    assert single.submit(lambda: 7).result(WAIT) == 7


def test_jobs_run_by_rank_and_the_largest_first(single: WorkerPool) -> None:
    ran: list[tuple[Priority, int]] = []
    jobs = [(rank, size) for rank in Priority for size in (1, 20, 300)]
    random.Random(1).shuffle(jobs)
    gate = busy(single)

    futures = [
        single.submit(partial(ran.append, job), priority=job[0], size=job[1]) for job in jobs
    ]
    gate.opened.set()
    for future in futures:
        future.result(WAIT)

    assert ran == [(rank, size) for rank in Priority for size in (300, 20, 1)]


def test_jobs_of_one_rank_and_size_run_in_the_order_of_submission(single: WorkerPool) -> None:
    ran: list[int] = []
    gate = busy(single)

    futures = [single.submit(partial(ran.append, number)) for number in range(20)]
    gate.opened.set()
    for future in futures:
        future.result(WAIT)

    assert ran == list(range(20))


def test_job_of_a_host_at_its_limit_waits_and_others_overtake_it() -> None:
    with create_pool(4, replace(CONFIG, jobs_per_host=2)) as pool:
        gates = [ClosableGate() for _ in range(3)]
        ends = [pool.submit(gate, size=9 - n, hosts=("a",)) for n, gate in enumerate(gates)]
        assert gates[0].entered.wait(WAIT)
        assert gates[1].entered.wait(WAIT)

        # Whoever runs this has had the third gate in its hands, and put it aside.
        pool.submit(lambda: None, priority=Priority.HELPER, hosts=("b",)).result(WAIT)
        assert not gates[2].entered.is_set()
        gates[1].opened.set()
        assert gates[2].entered.wait(WAIT)

        for gate in gates:
            gate.opened.set()
        for end in ends:
            end.result(WAIT)


def test_job_of_two_hosts_needs_a_place_at_both() -> None:
    with create_pool(3, ONE_PER_HOST) as pool:
        first, second = busy(pool, "a"), busy(pool, "b")
        both = ClosableGate()
        end = pool.submit(both, hosts=("a", "b"))

        first.opened.set()
        pool.submit(lambda: None, priority=Priority.HELPER, hosts=("c",)).result(WAIT)
        assert not both.entered.is_set()
        second.opened.set()
        assert both.entered.wait(WAIT)

        both.opened.set()
        end.result(WAIT)


def test_host_with_a_limit_of_its_own_is_counted_by_that() -> None:
    own = {"docker.io": HostLimits(jobs=1), "wide": HostLimits(jobs=3), "rate": HostLimits()}
    with create_pool(6, replace(CONFIG, jobs_per_host=2, host_limits=own)) as pool:
        for host, room in (("registry-1.docker.io", 1), ("wide", 3), ("rate", 2), ("other", 2)):
            gates = [busy(pool, host) for _ in range(room)]
            late = ClosableGate()
            end = pool.submit(late, priority=Priority.REQUEST, hosts=(host,))
            pool.submit(lambda: None, priority=Priority.HELPER, hosts=("free",)).result(WAIT)
            assert not late.entered.is_set()

            for gate in (*gates, late):
                gate.opened.set()
            end.result(WAIT)


def test_job_that_waits_for_a_place_keeps_nobody_else_waiting() -> None:
    alone = (Slot("uploads to a", 1),)
    with create_pool(4, replace(CONFIG, jobs_per_host=2)) as pool:
        first, second = ClosableGate(), ClosableGate()
        ends = [pool.submit(gate, hosts=("a",), slots=alone) for gate in (first, second)]
        assert first.entered.wait(WAIT)

        pool.submit(lambda: None, priority=Priority.HELPER, hosts=("a",)).result(WAIT)
        assert not second.entered.is_set()
        first.opened.set()
        assert second.entered.wait(WAIT)

        second.opened.set()
        for end in ends:
            end.result(WAIT)


def test_same_host_twice_takes_one_place_and_no_host_none() -> None:
    with create_pool(1, ONE_PER_HOST) as pool:
        assert pool.submit(lambda: 1, hosts=("a", "a")).result(WAIT) == 1
        assert pool.submit(lambda: 2, hosts=("", "a")).result(WAIT) == 2
        assert pool.submit(lambda: 3, hosts=("", "")).result(WAIT) == 3


def test_waiting_jobs_of_a_host_run_by_rank_too() -> None:
    with create_pool(2, ONE_PER_HOST) as pool:
        ran: list[str] = []
        gate = busy(pool, "a")
        ends = [
            pool.submit(lambda: ran.append("helper"), priority=Priority.HELPER, hosts=("a",)),
            pool.submit(lambda: ran.append("blob"), priority=Priority.BLOB, hosts=("a",)),
            pool.submit(lambda: ran.append("small"), priority=Priority.REQUEST, hosts=("a",)),
        ]
        pool.submit(lambda: None, priority=Priority.HELPER).result(WAIT)

        gate.opened.set()
        for end in ends:
            end.result(WAIT)

        assert ran == ["small", "blob", "helper"]


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_every_job_ends_and_no_host_has_more_than_its_limit(workers: int) -> None:
    generator = random.Random(workers)
    lock = threading.Lock()
    running: Counter[str] = Counter()
    most: Counter[str] = Counter()

    def job(hosts: tuple[str, ...]) -> None:
        with lock:
            running.update(hosts)
            for host in hosts:
                most[host] = max(most[host], running[host])
        time.sleep(0)  # lets other threads in
        with lock:
            running.subtract(hosts)

    with create_pool(workers, replace(CONFIG, jobs_per_host=2)) as pool:
        futures = []
        for _ in range(400):
            hosts = tuple(generator.sample(("a", "b", "c"), generator.randrange(3)))
            rank, size = generator.choice(list(Priority)), generator.randrange(9)
            futures.append(pool.submit(partial(job, hosts), priority=rank, size=size, hosts=hosts))
        for future in futures:
            future.result(WAIT)

    assert max(most.values()) <= 2


def test_closing_drops_what_waits_and_lets_end_what_runs() -> None:
    with create_pool(1, ONE_PER_HOST) as pool:
        gate = busy(pool, "a")
        waiting = [pool.submit(lambda: 1, hosts=("a",)), pool.submit(lambda: 2)]
        ended: list[bool] = []

        closer = threading.Thread(target=lambda: ended.append(pool.close()))
        closer.start()
        for future in waiting:
            with pytest.raises(CancelledError):
                future.result(WAIT)
        assert closer.is_alive()
        gate.opened.set()
        closer.join(WAIT)

        assert ended == [True]


def test_closing_drops_jobs_that_wait_for_their_host() -> None:
    with create_pool(2, ONE_PER_HOST) as pool:
        gate = busy(pool, "a")
        waiting = pool.submit(lambda: 1, hosts=("a",))
        # The second worker has put it aside when it runs this.
        pool.submit(lambda: None, priority=Priority.HELPER).result(WAIT)

        assert not pool.close(timeout=0.01)

        assert waiting.cancelled()
        gate.opened.set()


def test_job_submitted_after_the_end_is_refused(single: WorkerPool) -> None:
    single.close()

    with pytest.raises(Cancelled):
        single.submit(lambda: 1).result(WAIT)


def test_pool_may_be_closed_by_one_of_its_jobs_and_twice() -> None:
    with create_pool(2) as pool:
        assert pool.submit(lambda: pool.close(WAIT)).result(WAIT) is False  # it runs itself
        assert pool.close(WAIT)


def test_without_workers_a_job_runs_inside_submit() -> None:
    here: list[threading.Thread] = []

    with create_pool(0) as pool:
        future = pool.submit(lambda: here.append(threading.current_thread()), hosts=("a",))

        assert future.done()
        assert here == [threading.current_thread()]
        assert isinstance(pool.submit(lambda: 1 / 0).exception(), ZeroDivisionError)


def test_job_whose_owner_lost_interest_is_not_run(single: WorkerPool) -> None:
    ran: list[int] = []
    gate = busy(single)
    future = single.submit(lambda: ran.append(1))

    assert future.cancel()
    gate.opened.set()
    single.submit(lambda: None, priority=Priority.HELPER).result(WAIT)

    assert ran == []


def test_waiting_ends_when_somebody_cancels(single: WorkerPool) -> None:
    gate = busy(single)
    future = single.submit(lambda: 1)
    threading.Timer(0.01, single.cancel.set).start()

    with pytest.raises(Cancelled):
        wait_for(future, single.cancel)

    gate.opened.set()


def test_result_that_is_there_counts_more_than_a_cancel(single: WorkerPool) -> None:
    future = single.submit(lambda: 1)
    future.result(WAIT)
    single.cancel.set()

    assert wait_for(future, single.cancel) == 1


def test_timeout_error_of_a_job_is_not_mistaken_for_the_waits(single: WorkerPool) -> None:
    def fail() -> None:
        raise TimeoutError("the job's own")

    with pytest.raises(TimeoutError, match="the job's own"):
        wait_for(single.submit(fail), single.cancel)


def test_waiting_goes_on_while_a_job_takes_its_time(single: WorkerPool) -> None:
    gate = busy(single)
    future = single.submit(lambda: 1)
    threading.Timer(0.3, gate.opened.set).start()  # longer than one look at the event

    assert wait_for(future, single.cancel) == 1


def test_place_at_a_host_is_not_left_empty_for_a_job_that_waits_for_another_host() -> None:
    with create_pool(3, ONE_PER_HOST) as pool:
        first, second = busy(pool, "a"), busy(pool, "b")
        pool.submit(lambda: None, size=2, hosts=("a", "b"))
        alone = pool.submit(lambda: 1, size=1, hosts=("a",))
        # The third worker has put both aside when it runs this.
        pool.submit(lambda: None, priority=Priority.HELPER).result(WAIT)

        first.opened.set()

        assert alone.result(WAIT / 2) == 1  # the gates give up after WAIT
        assert not second.opened.is_set()
        second.opened.set()


def test_timeout_of_a_close_is_for_all_workers_together() -> None:
    with create_pool(10) as pool:
        gates = [busy(pool) for _ in range(10)]
        began = time.monotonic()

        assert not pool.close(timeout=0.5)

        assert time.monotonic() - began < 4.5  # and not ten times 0.5
        for gate in gates:
            gate.opened.set()


def test_waiting_for_a_dropped_job_is_cancelled(single: WorkerPool) -> None:
    gate = busy(single)
    dropped = single.submit(lambda: 1)
    single.close(timeout=0.01)

    with pytest.raises(Cancelled):
        wait_for(dropped, single.cancel)

    gate.opened.set()


def test_job_submitted_after_the_end_is_refused_without_workers_too() -> None:
    with create_pool(0) as pool:
        pool.close()

        with pytest.raises(Cancelled):
            pool.submit(lambda: 1).result(WAIT)
