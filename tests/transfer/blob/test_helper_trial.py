"""Helpers are tried one by one, and stay only where they make a download faster."""

from __future__ import annotations

import pytest

from concil.transfer.blob.helper_trial import HelperTrial

STEP = 0.125  # seconds between two blocks; exact in binary


class TrialClock:
    """Feeds a trial with bytes at a rate."""

    def __init__(self, helpers: int) -> None:
        self.trial = HelperTrial(helpers)
        self.now = 0.0
        self.cpu_time = 0.0
        self.requests = 0  # helpers that were requested

    def receive(self, seconds: float, *, rate: float, busy: float = 0.1) -> None:
        for _ in range(round(seconds / STEP)):
            self.now += STEP
            self.cpu_time += STEP * busy
            self.requests += self.trial.record(round(rate * STEP), self.now, self.cpu_time)


def test_a_thread_that_waits_for_bytes_gets_one_helper() -> None:
    clock = TrialClock(3)

    clock.receive(10, rate=1000)

    assert clock.requests == 1
    assert not clock.trial.is_settled


@pytest.mark.parametrize(("busy", "requests"), [(0.9, 0), (0.2, 1)])
def test_a_thread_that_rarely_waits_gets_none(busy: float, requests: int) -> None:
    clock = TrialClock(3)

    clock.receive(10, rate=1000, busy=busy)

    assert clock.requests == requests
    assert clock.trial.is_settled is (requests == 0)


def test_no_helper_is_requested_while_the_rate_grows() -> None:
    clock = TrialClock(3)

    for rate in (1000, 2000, 4000, 8000):
        clock.receive(0.25, rate=rate)

    assert clock.requests == 0


def test_helpers_that_add_speed_stay() -> None:
    clock = TrialClock(3)
    clock.receive(2, rate=1000)
    for total in (2000, 3000, 4000):
        clock.trial.record_helper_start()
        clock.receive(2, rate=total)

    assert clock.requests == 3
    assert clock.trial.helpers == 3
    assert clock.trial.is_settled
    assert not clock.trial.stop_helper()


def test_a_helper_that_adds_no_speed_stops_and_is_the_last() -> None:
    clock = TrialClock(3)
    clock.receive(2, rate=1000)
    clock.trial.record_helper_start()
    clock.receive(2, rate=2000)
    clock.trial.record_helper_start()
    clock.receive(10, rate=2100)

    assert clock.requests == 2
    assert clock.trial.helpers == 1
    assert clock.trial.stop_helper()
    assert not clock.trial.stop_helper()  # the others go on


def test_a_blob_of_one_range_needs_no_trial() -> None:
    assert HelperTrial(0).is_settled
