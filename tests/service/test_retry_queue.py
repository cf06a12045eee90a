"""Which images are retried when."""

from __future__ import annotations

from concil.errors import ConnectionLost
from concil.service.retry_queue import FIRST_DELAY, MAX_DELAY, FailedImageQueue
from concil.transfer.mirror.report import MirrorItem, Outcome
from tests.service.conftest import FakeClock

A, B = (MirrorItem(f"r.example/{name}:1", f"oci:out:{name}") for name in "ab")


def failed(item: MirrorItem) -> Outcome:
    return Outcome(item, error=ConnectionLost("gone"))


def left(queue: FailedImageQueue) -> float:
    seconds = queue.seconds_left()
    assert seconds is not None
    return seconds


def test_nothing_is_due_without_failures(clock: FakeClock) -> None:
    queue = FailedImageQueue(clock)
    queue.record([Outcome(A)], is_complete=True)

    assert (len(queue), queue.seconds_left(), bool(queue.take_due())) == (0, None, False)


def test_the_delay_doubles_up_to_a_maximum(clock: FakeClock) -> None:
    queue = FailedImageQueue(clock)
    delays = []
    for _ in range(40):
        queue.record([failed(A)], is_complete=False)
        delays.append(left(queue))

    for number, delay in enumerate(delays):
        expected = min(FIRST_DELAY * 2**number, MAX_DELAY)
        assert expected <= delay <= expected * 1.1


def test_an_image_is_due_after_its_delay(clock: FakeClock) -> None:
    queue = FailedImageQueue(clock)
    queue.record([failed(A)], is_complete=True)
    clock.advance(FIRST_DELAY)
    queue.record([failed(B)], is_complete=False)
    assert len(queue) == 2

    clock.advance(FIRST_DELAY * 0.1)
    due = queue.take_due()

    assert due.images == {("r.example/a:1", "oci:out:a")}
    assert due.is_failed(A)
    assert not due.is_failed(B)


def test_an_image_that_was_copied_is_forgotten(clock: FakeClock) -> None:
    queue = FailedImageQueue(clock)
    queue.record([failed(A), failed(B)], is_complete=True)
    queue.record([Outcome(A)], is_complete=False)

    assert len(queue) == 1


def test_a_complete_run_forgets_what_did_not_fail_in_it(clock: FakeClock) -> None:
    queue = FailedImageQueue(clock)
    queue.record([failed(A), failed(B)], is_complete=True)
    queue.record([failed(B)], is_complete=True)
    clock.advance(FIRST_DELAY * 2 * 1.1)

    assert queue.take_due().images == {("r.example/b:1", "oci:out:b")}


def test_an_image_that_was_taken_is_not_due_at_once(clock: FakeClock) -> None:
    queue = FailedImageQueue(clock)
    queue.record([failed(A)], is_complete=True)
    clock.advance(FIRST_DELAY * 1.1)

    assert queue.take_due()
    assert not queue.take_due()  # as after a retry that could not even begin
    assert left(queue) >= FIRST_DELAY * 2
    queue.record([failed(A)], is_complete=False)
    assert FIRST_DELAY * 2 <= left(queue) <= FIRST_DELAY * 2.2


def test_a_retry_without_an_outcome_forgets_the_image(clock: FakeClock) -> None:
    queue = FailedImageQueue(clock)
    queue.record([failed(A), failed(B)], is_complete=True)
    clock.advance(FIRST_DELAY * 1.1)
    tried = queue.take_due()

    queue.record([failed(A)], is_complete=False, tried=tried)

    assert len(queue) == 1
