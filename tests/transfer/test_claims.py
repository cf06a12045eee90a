"""A claim has one owner at a time."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from functools import partial

from concil.transfer.pool import Claims
from tests.transfer.world import WAIT, at_once


def test_first_to_come_is_the_owner_and_all_share_its_future() -> None:
    claims: Claims[int] = Claims()

    mine, future = claims.take("a")
    other, same = claims.take("a")
    elsewhere, another = claims.take("b")

    assert (mine, other, elsewhere) == (True, False, True)
    assert same is future
    assert another is not future


def test_released_claim_has_a_new_owner_and_a_finished_one_has_not() -> None:
    claims: Claims[int] = Claims()
    _, failed = claims.take("a")
    _, done = claims.take("b")
    done.set_result(1)

    claims.release("a", failed)

    mine, again = claims.take("a")
    assert mine
    assert again is not failed
    assert claims.take("b") == (False, done)


def test_release_of_an_older_claim_leaves_the_newer_one() -> None:
    claims: Claims[int] = Claims()
    _, first = claims.take("a")
    claims.release("a", first)
    _, second = claims.take("a")

    claims.release("a", first)
    claims.release("never taken", first)

    assert claims.take("a") == (False, second)


def test_of_many_threads_one_owns_each_key_and_the_others_get_its_result() -> None:
    claims: Claims[int] = Claims()
    start = threading.Barrier(8)
    owners: list[int] = []
    results: list[int] = []

    def take_part(number: int) -> None:
        start.wait(WAIT)
        for key in range(200):
            mine, future = claims.take(key)
            if mine:
                owners.append(key)
                future.set_result(number)
            results.append(future.result(WAIT))

    at_once(*(partial(take_part, number) for number in range(8)))

    assert sorted(owners) == list(range(200))
    assert len(results) == 8 * 200


def test_failing_owners_follow_each_other_until_one_succeeds() -> None:
    claims: Claims[str] = Claims()
    lock = threading.Lock()
    failures = 5

    def own(future: Future[str]) -> None:
        nonlocal failures
        with lock:
            failures -= 1
            failed = failures >= 0
        if failed:
            claims.release("blob", future)
            future.set_exception(ConnectionError())
        else:
            future.set_result("there")

    def follow() -> None:
        while True:
            mine, future = claims.take("blob")
            if mine:
                own(future)
            if future.exception(WAIT) is None:
                return

    at_once(*[follow] * 6)

    assert claims.take("blob")[1].result() == "there"


def test_completed_claim_has_its_result_for_whoever_waits_and_whoever_comes_later() -> None:
    claims: Claims[int] = Claims()
    _, future = claims.take("a")
    _, waiting = claims.take("a")

    claims.complete("a", future, 7)

    mine, later = claims.take("a")
    assert not mine
    assert waiting.result(0) == later.result(0) == 7
    claims.forget("a")
    assert claims.take("a")[0]


def test_claim_that_was_forgotten_is_not_settled_by_its_old_owner() -> None:
    claims: Claims[int] = Claims()
    _, first = claims.take("a")
    claims.release("a", first)
    _, second = claims.take("a")

    claims.complete("a", first, 1)

    assert first.result(0) == 1
    assert claims.take("a") == (False, second)


def test_results_that_nobody_has_asked_for_lately_are_let_go() -> None:
    claims: Claims[int] = Claims(most=2)
    for number, key in enumerate("abc"):
        _, future = claims.take(key)
        claims.complete(key, future, number)
        claims.take("a")

    shared, old = claims.take("a")
    again, _ = claims.take("b")

    assert (shared, old.result(WAIT)) == (False, 0)
    assert again
    assert not claims.take("c")[0]
