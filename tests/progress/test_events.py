"""Progress: positions, not changes; a broken callback breaks nothing."""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from concil.progress.events import Event, Meter, State, emit


class Clock:
    """Time that passes when a test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


class Recorder:
    """Keeps every event."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def __call__(self, event: Event) -> None:
        self.events.append(event)

    @property
    def told(self) -> list[tuple[str, int]]:
        """States and positions."""
        return [(event.state.value, event.position) for event in self.events]


def meter(sink: Recorder | None, total: int | None = 100) -> Meter:
    return Meter(sink, kind="blob", subject="sha256:x", target="host/app", total=total)


def test_an_event_says_all_there_is_to_know(clock: Clock) -> None:
    recorder = Recorder()

    meter(recorder).set_state(State.RETRYING, position=7, detail="the connection was reset")

    assert recorder.events == [
        Event("blob", "sha256:x", "host/app", State.RETRYING, 7, 100, "the connection was reset")
    ]


def test_moves_are_thinned_to_ten_a_second(clock: Clock) -> None:
    recorder = Recorder()
    one = meter(recorder)

    for position in range(100):
        one.set_position(position)
        clock.now += 0.01

    assert 9 <= len(recorder.events) <= 11
    assert {event.state for event in recorder.events} == {State.MOVING}
    assert one.position == 99


def test_a_change_of_state_is_told_at_once(clock: Clock) -> None:
    recorder = Recorder()
    one = meter(recorder)

    one.set_state(State.STARTED, position=0)
    one.set_position(10)
    one.set_position(20)
    one.set_state(State.DONE)

    assert recorder.told == [("started", 0), ("moving", 10), ("done", 20)]


def test_positions_may_go_back(clock: Clock) -> None:
    recorder = Recorder()
    one = meter(recorder)

    one.set_position(50)
    one.set_state(State.RETRYING, position=30)

    assert one.position == 30


def test_pieces_in_any_order_add_up(clock: Clock) -> None:
    recorder = Recorder()
    one = meter(recorder)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one.advance, [1] * 1000))
    one.set_state(State.DONE)

    assert recorder.told[-1] == ("done", 1000)


def test_added_pieces_are_told_when_they_are_due(clock: Clock) -> None:
    recorder = Recorder()
    one = meter(recorder)

    one.advance(5)
    one.advance(5)
    clock.now += 1
    one.advance(5)

    assert recorder.told == [("moving", 5), ("moving", 15)]


def test_nobody_need_listen() -> None:
    one = meter(None)

    one.set_position(5)
    one.advance(5)
    one.set_state(State.DONE)

    assert one.position == 10


def test_a_broken_callback_is_logged_and_breaks_nothing(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(event: Event) -> None:
        raise ZeroDivisionError("the caller's")

    with caplog.at_level(logging.ERROR):
        emit(broken, Event("blob", "s", "t", State.DONE, 1, 1))

    assert "progress callback failed" in caplog.text
    assert "ZeroDivisionError" in caplog.text


def test_a_callback_may_ask_the_meter(clock: Clock) -> None:
    """No lock is held while it runs."""
    seen: list[int] = []
    done = threading.Event()

    def sink(event: Event) -> None:
        seen.append(one.position)
        done.set()

    one = Meter(sink, kind="blob", subject="s", target="t", total=None)
    thread = threading.Thread(target=one.set_position, args=(5,), daemon=True)
    thread.start()

    assert done.wait(10)
    thread.join()
    assert seen == [5]


@pytest.mark.parametrize("state", list(State))
def test_after_some_states_nothing_follows(state: State) -> None:
    final = {State.DONE, State.PRESENT, State.MOUNTED, State.FAILED, State.CANCELLED}

    assert state.is_final is (state in final)
