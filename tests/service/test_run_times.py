"""When a mirror runs: intervals, cron lines, and clocks that are set."""

from __future__ import annotations

import sys
import time

import pytest

from concil.errors import UsageError
from concil.runtime.durations import parse_duration
from concil.service.run_times import (
    CronSchedule,
    IntervalSchedule,
    create_schedule,
)
from tests.service.conftest import FakeClock

MINUTE = 60.0
DAY = 24 * 60 * MINUTE


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()


def test_the_first_run_of_an_interval_is_due_at_once(clock: FakeClock) -> None:
    schedule = IntervalSchedule(10 * MINUTE, 0, clock)
    schedule.plan_next()

    assert schedule.seconds_left() == 0


def test_an_interval_is_from_begin_to_begin(clock: FakeClock) -> None:
    schedule = IntervalSchedule(10 * MINUTE, 0, clock)
    schedule.plan_next()
    schedule.plan_next()
    clock.advance(4 * MINUTE)

    assert schedule.seconds_left() == 6 * MINUTE


def test_runs_that_take_longer_than_the_interval_do_not_pile_up(clock: FakeClock) -> None:
    schedule = IntervalSchedule(10 * MINUTE, 0, clock)
    schedule.plan_next()
    schedule.plan_next()
    clock.advance(45 * MINUTE)
    assert schedule.seconds_left() < 0

    schedule.plan_next()

    assert schedule.seconds_left() == 10 * MINUTE


def test_an_interval_does_not_depend_on_the_clock_that_is_set(clock: FakeClock) -> None:
    schedule = IntervalSchedule(10 * MINUTE, 0, clock)
    schedule.plan_next()
    schedule.plan_next()
    clock.wall -= DAY

    assert schedule.seconds_left() == 10 * MINUTE


@pytest.mark.parametrize(("jitter", "most"), [(None, 60.0), (5.0, 5.0), (0.0, 0.0)])
def test_jitter_is_added_to_an_interval(
    clock: FakeClock, jitter: float | None, most: float
) -> None:
    schedule = IntervalSchedule(20 * MINUTE, jitter, clock)
    schedule.plan_next()
    waits = set()
    for _ in range(50):
        schedule.plan_next()
        waits.add(schedule.seconds_left() - 20 * MINUTE)

    assert all(0 <= wait <= most for wait in waits)
    assert len(waits) > 1 or most == 0


def test_a_cron_line_waits_for_its_time(clock: FakeClock) -> None:
    clock.advance(3 * MINUTE)
    schedule = CronSchedule("*/10 * * * *", 0, clock)
    schedule.plan_next()

    assert schedule.seconds_left() == 7 * MINUTE
    clock.advance(7 * MINUTE)
    assert schedule.seconds_left() == 0
    schedule.plan_next()
    assert schedule.seconds_left() == 10 * MINUTE


def test_times_that_pass_during_a_run_are_left_out(clock: FakeClock) -> None:
    schedule = CronSchedule("*/10 * * * *", 0, clock)
    schedule.plan_next()
    clock.advance(10 * MINUTE)
    schedule.plan_next()
    clock.advance(35 * MINUTE)  # the run
    assert schedule.seconds_left() < 0  # it is due: once
    schedule.plan_next()

    assert schedule.seconds_left() == 5 * MINUTE


def test_a_clock_that_is_set_back_is_noticed(clock: FakeClock) -> None:
    schedule = CronSchedule("*/10 * * * *", 0, clock)
    schedule.plan_next()
    clock.wall -= DAY + 4 * MINUTE

    assert schedule.seconds_left() == 4 * MINUTE


def test_a_clock_that_is_set_forward_makes_one_run(clock: FakeClock) -> None:
    schedule = CronSchedule("*/10 * * * *", 0, clock)
    schedule.plan_next()
    clock.wall += DAY + 3 * MINUTE
    assert schedule.seconds_left() < 0

    schedule.plan_next()

    assert schedule.seconds_left() == 7 * MINUTE


def test_a_cron_line_is_in_local_time(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC-2")  # POSIX: two hours east
    time.tzset()
    schedule = CronSchedule("30 2 * * *", 0, clock)
    schedule.plan_next()

    assert schedule.seconds_left() == 30 * MINUTE


@pytest.mark.parametrize("line", ["", "x", "* * *", "61 * * * *", "0 0 31 2 *", "@never"])
def test_what_is_no_cron_line_is_refused(line: str) -> None:
    with pytest.raises(UsageError, match="not a cron line"):
        CronSchedule(line)


def test_without_cronsim_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cronsim", None)

    with pytest.raises(UsageError, match="cron lines need the package cronsim") as caught:
        CronSchedule("* * * * *")

    assert "concil[service]" in (caught.value.remedy or "")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("10m", 600), ("1h30m", 5400), ("1.5h", 5400), ("7d", 7 * DAY), ("1w", 7 * DAY)],
)
def test_a_duration_is_a_number_and_a_unit(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "10", "m", "-1m", "1 m", "1M", "1e3s", "\u0661s", "1m1"])
def test_other_durations_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="not a duration"):
        parse_duration(text)


@pytest.mark.parametrize("every", ["0s", "0.5s", "400d"])
def test_an_interval_has_limits(every: str) -> None:
    with pytest.raises(UsageError, match="not between 1 second and 366 days"):
        create_schedule(every, None, None)
