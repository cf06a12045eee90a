"""A claim has one owner at a time."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from functools import partial

from concil.transfer.single_flight import SingleFlight
from tests.transfer.transfer_setup import WAIT, run_concurrently


def test_first_to_come_is_the_owner_and_all_share_its_future() -> None:
    claims: SingleFlight[int] = SingleFlight()

    mine, future = claims.claim("a")
    other, same = claims.claim("a")
    elsewhere, another = claims.claim("b")

    assert (mine, other, elsewhere) == (True, False, True)
    assert same is future
    assert another is not future


def test_released_claim_has_a_new_owner_and_a_finished_one_has_not() -> None:
    claims: SingleFlight[int] = SingleFlight()
    _, failed = claims.claim("a")
    _, done = claims.claim("b")
    done.set_result(1)

    claims.release("a", failed)

    mine, again = claims.claim("a")
    assert mine
    assert again is not failed
    assert claims.claim("b") == (False, done)


def test_release_of_an_older_claim_leaves_the_newer_one() -> None:
    claims: SingleFlight[int] = SingleFlight()
    _, first = claims.claim("a")
    claims.release("a", first)
    _, second = claims.claim("a")

    claims.release("a", first)
    claims.release("never taken", first)

    assert claims.claim("a") == (False, second)


def test_of_many_threads_one_owns_each_key_and_the_others_get_its_result() -> None:
    claims: SingleFlight[int] = SingleFlight()
    start = threading.Barrier(8)
    owners: list[int] = []
    results: list[int] = []

    def take_part(number: int) -> None:
        start.wait(WAIT)
        for key in range(200):
            mine, future = claims.claim(key)
            if mine:
                owners.append(key)
                future.set_result(number)
            results.append(future.result(WAIT))

    run_concurrently(*(partial(take_part, number) for number in range(8)))

    assert sorted(owners) == list(range(200))
    assert len(results) == 8 * 200


def test_failing_owners_follow_each_other_until_one_succeeds() -> None:
    claims: SingleFlight[str] = SingleFlight()
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
            mine, future = claims.claim("blob")
            if mine:
                own(future)
            if future.exception(WAIT) is None:
                return

    run_concurrently(*[follow] * 6)

    assert claims.claim("blob")[1].result() == "there"


def test_completed_claim_has_its_result_for_whoever_waits_and_whoever_comes_later() -> None:
    claims: SingleFlight[int] = SingleFlight()
    _, future = claims.claim("a")
    _, waiting = claims.claim("a")

    claims.complete("a", future, 7)

    mine, later = claims.claim("a")
    assert not mine
    assert waiting.result(0) == later.result(0) == 7
    claims.forget("a")
    assert claims.claim("a")[0]


def test_claim_that_was_forgotten_is_not_settled_by_its_old_owner() -> None:
    claims: SingleFlight[int] = SingleFlight()
    _, first = claims.claim("a")
    claims.release("a", first)
    _, second = claims.claim("a")

    claims.complete("a", first, 1)

    assert first.result(0) == 1
    assert claims.claim("a") == (False, second)


def test_results_that_nobody_has_asked_for_lately_are_let_go() -> None:
    claims: SingleFlight[int] = SingleFlight(max_results=2)
    for number, key in enumerate("abc"):
        _, future = claims.claim(key)
        claims.complete(key, future, number)
        claims.claim("a")

    shared, old = claims.claim("a")
    again, _ = claims.claim("b")

    assert (shared, old.result(WAIT)) == (False, 0)
    assert again
    assert not claims.claim("c")[0]
