"""Totals of progress events: what is counted, how fast it is, and when it is known."""

from __future__ import annotations

import pytest

from concil.progress.events import Event, State
from concil.progress.totals import ProgressTotals

MIB = 1024 * 1024


def blob(
    name: str,
    state: State = State.MOVING,
    position: int = 0,
    total: int | None = 10 * MIB,
    detail: str = "",
) -> Event:
    return Event("blob", f"sha256:{name * 64}", "place", state, position, total, detail)


def image(name: str, state: State) -> Event:
    return Event("image", name, f"copy-of-{name}", state, 0, None)


class Clock:
    """Time that passes when a test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr("concil.progress.totals.time.monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_positions_may_decrease_and_failures_do_not_count() -> None:
    totals = ProgressTotals()

    totals.record_event(blob("a", position=8 * MIB))
    totals.record_event(blob("a", State.RETRYING, 2 * MIB))
    totals.record_event(blob("b", State.FAILED, 5 * MIB))
    totals.record_event(blob("c", State.MOUNTED, 10 * MIB))
    totals.record_event(blob("d", State.PRESENT, 3, None))
    found = totals.snapshot()

    assert (found.bytes_done, found.bytes_total) == (12 * MIB + 3, 20 * MIB + 3)


def test_what_an_earlier_process_moved_is_no_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("concil.progress.totals.time.monotonic", lambda: now)
    totals = ProgressTotals()
    totals.record_event(blob("a", State.STARTED))
    totals.record_event(blob("a", State.STARTED, 8 * MIB))
    totals.record_event(blob("a", position=9 * MIB))
    now += 2

    moving = totals.snapshot()
    totals.record_event(blob("a", State.RETRYING, 5 * MIB))
    totals.record_event(blob("a", position=7 * MIB))
    lost = totals.snapshot()
    totals.record_event(blob("a", State.DONE, 10 * MIB))
    result = totals.snapshot()

    assert (moving.bytes_done, moving.rate) == (9 * MIB, MIB / 2)
    assert moving.active_blobs[0].bytes_present == 8 * MIB
    assert (lost.bytes_done, lost.rate) == (7 * MIB, MIB)
    assert (result.bytes_done, result.rate) == (10 * MIB, 5 * MIB / 2)


def test_cancelled_blobs_keep_their_bytes_and_count_as_resumable() -> None:
    totals = ProgressTotals()
    totals.record_event(blob("a", position=4 * MIB))
    totals.record_event(blob("b", State.WAITING))
    before = totals.snapshot()

    totals.record_event(blob("a", State.CANCELLED, 3 * MIB))
    totals.record_event(blob("b", State.CANCELLED))
    totals.record_event(blob("a", position=5 * MIB))  # by a thread that has not noticed yet
    after = totals.snapshot()

    assert (before.bytes_done, before.bytes_total) == (4 * MIB, 20 * MIB)
    assert (after.bytes_done, after.bytes_total) == (3 * MIB, 20 * MIB)
    assert [(b.position, b.total) for b in after.resumable_blobs] == [(3 * MIB, 10 * MIB)]
    assert after.active_blobs == ()


def test_cancelled_images_are_not_done() -> None:
    totals = ProgressTotals()
    totals.set_expected_images(4)
    states = (State.DONE, State.PRESENT, State.FAILED, State.CANCELLED)

    for name, state in zip("xyzu", states, strict=True):
        totals.record_event(image(name, State.STARTED))
        totals.record_event(image(name, state))
    images = totals.snapshot().images

    assert (images.copied, images.up_to_date, images.failed, images.cancelled) == (1, 1, 1, 1)
    assert (images.done, images.ended, images.total) == (2, 4, 4)


def test_the_total_is_known_once_all_blobs_of_all_images_are() -> None:
    totals = ProgressTotals()
    totals.set_expected_images(2)
    known = [totals.snapshot().is_total_known]

    for event in (
        image("x", State.STARTED),
        blob("a", State.WAITING),
        image("x", State.MOVING),
        image("y", State.STARTED),
        blob("b", State.WAITING),
        image("y", State.MOVING),
    ):
        totals.record_event(event)
        known.append(totals.snapshot().is_total_known)

    assert known == [False] * 6 + [True]


def test_the_total_of_tags_that_are_being_listed_is_not_known() -> None:
    totals = ProgressTotals()
    totals.set_expected_images(None)
    for name in "xy":
        totals.record_event(image(name, State.MOVING))
    listing = totals.snapshot()

    totals.set_expected_images(2)
    listed = totals.snapshot()

    assert (listing.is_total_known, listing.images.total) == (False, None)
    assert (listed.is_total_known, listed.images.total) == (True, 2)


@pytest.mark.parametrize(("gap", "stalled"), [(0.2, True), (2.5, False)])
def test_a_stall_is_a_pause_that_is_long_for_its_link(
    clock: Clock, gap: float, stalled: bool
) -> None:
    totals = ProgressTotals()
    totals.record_event(blob("a", State.STARTED))
    for number in range(1, 6):
        clock.now += gap
        totals.record_event(blob("a", position=number * 1000))
    clock.now += 2.9
    [early] = totals.snapshot().active_blobs
    clock.now += 2.1
    [late] = totals.snapshot().active_blobs
    totals.record_event(blob("a", position=9000))
    [moved] = totals.snapshot().active_blobs

    assert early.stalled_seconds == moved.stalled_seconds == 0
    assert (late.stalled_seconds > 4.9) is stalled


def test_nothing_is_stalled_that_waits_for_a_paused_host(clock: Clock) -> None:
    totals = ProgressTotals()
    totals.record_event(blob("a", State.STARTED))
    clock.now += 0.1
    totals.record_event(blob("a", position=1000))
    totals.record_event(
        Event("host", "reg:5000", "", State.PAUSED, 0, None, "too many", seconds=30.0)
    )
    clock.now += 20
    paused = totals.snapshot()
    clock.now += 20
    resumed = totals.snapshot()

    assert paused.active_blobs[0].stalled_seconds == 0
    [pause] = paused.paused_hosts
    assert (pause.host, pause.reason, round(pause.seconds_left)) == ("reg:5000", "too many", 10)
    assert resumed.paused_hosts == ()
    assert resumed.active_blobs[0].stalled_seconds > 0


def test_the_rate_of_a_blob_is_that_of_the_last_seconds(clock: Clock) -> None:
    totals = ProgressTotals()
    totals.record_event(blob("a", State.STARTED, 2 * MIB))
    position = 2 * MIB
    for speed in (MIB, MIB // 10):
        for _ in range(30):
            clock.now += 0.25
            position += speed // 4
            totals.record_event(blob("a", position=position, total=100 * MIB))
    [slow] = totals.snapshot().active_blobs
    totals.record_event(blob("a", State.RESTARTING, 0, 100 * MIB, "session lost"))
    [lost] = totals.snapshot().active_blobs

    assert slow.rate == pytest.approx(MIB / 10, rel=0.1)
    assert slow.resumed_at == 2 * MIB
    assert (lost.rate, lost.position, lost.resumed_at) == (None, 0, 0)
    assert (lost.state, lost.detail) == (State.RESTARTING, "session lost")


def test_a_reason_is_that_of_the_present_trouble() -> None:
    totals = ProgressTotals()
    totals.record_event(blob("a", State.STARTED))
    seen = []

    for event in (
        blob("a", State.RETRYING, 5, detail="the connection was reset"),
        blob("a", State.MOVING, 5),
        blob("a", State.RESTARTING, 0, detail="session lost"),
        blob("a", State.RETRYING, 3, detail="no data"),
        blob("a", State.MOVING, 4),
    ):
        totals.record_event(event)
        [active] = totals.snapshot().active_blobs
        seen.append(active.detail)

    assert seen == ["the connection was reset", "", "session lost", "no data", "session lost"]


def test_the_time_of_a_stall_is_no_part_of_the_rate_after_it(clock: Clock) -> None:
    totals = ProgressTotals()
    totals.record_event(blob("a", State.STARTED))
    position = 0
    for pause in (0.5, 20.0, 0.5):
        clock.now += pause
        for _ in range(4):
            position += 1000
            totals.record_event(blob("a", position=position))
            clock.now += 0.5
    [active] = totals.snapshot().active_blobs

    assert active.rate == pytest.approx(2000, rel=0.5)


@pytest.mark.parametrize(("second", "stalled"), [(State.RETRYING, True), (State.STARTED, False)])
def test_a_run_is_stalled_if_nothing_moves(clock: Clock, second: State, stalled: bool) -> None:
    totals = ProgressTotals()
    totals.record_event(blob("a", State.STARTED))
    clock.now += 0.1
    totals.record_event(blob("a", position=1000))
    clock.now += 10
    totals.record_event(blob("b", second))

    assert totals.snapshot().is_stalled is stalled
    assert not ProgressTotals().snapshot().is_stalled
