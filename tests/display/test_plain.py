"""The lines of a log: images, resumed blobs, interrupts, and the totals from time to time."""

from __future__ import annotations

import io
import time

import pytest

from concil.display.display import open_display
from concil.display.output import Output
from concil.display.plain import PlainView
from concil.display.stopping import Stopping
from concil.progress.events import Event, State
from concil.progress.totals import ProgressTotals

MIB = 1024 * 1024
DIGEST = f"sha256:{'a' * 64}"


def blob(state: State, position: int, total: int = 10 * MIB, subject: str = DIGEST) -> Event:
    return Event("blob", subject, "place", state, position, total, image="reg:5000/app:1")


class Clock:
    """Time that passes when a test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_totals_follow_after_ten_seconds_without_a_line(clock: Clock) -> None:
    stream, totals = io.StringIO(), ProgressTotals()
    view = PlainView(Output(stream))
    totals.set_expected_images(2)
    totals.record_event(Event("image", "x", "y", State.DONE, 0, None))
    totals.record_event(blob(State.STARTED, 0))
    for position in range(1, 10):
        clock.now += 1
        totals.record_event(blob(State.MOVING, position * MIB // 2))
        view.show(totals.snapshot())
    early = stream.getvalue()
    clock.now += 1
    totals.record_event(blob(State.RETRYING, 0, subject="b"))
    pause = Event("host", "reg:5000", "", State.PAUSED, 0, None, "too many requests", seconds=9.0)
    totals.record_event(pause)
    view.show(totals.snapshot())
    view.show(totals.snapshot())

    assert early == ""
    [line] = stream.getvalue().splitlines()
    assert line == (
        "1/2 images, 4.5 MiB, 426.7 KiB/s, 2 running, 1 retrying, "
        "reg:5000 paused: too many requests; resuming in 9 s"
    )


def test_an_interrupt_is_one_line(clock: Clock) -> None:
    stream, totals = io.StringIO(), ProgressTotals()
    view = PlainView(Output(stream))
    totals.record_event(blob(State.MOVING, MIB))
    stopping = Stopping(clock.now + 10, "Ctrl-C again quits")

    for _ in range(3):
        view.show(totals.snapshot(), stopping)

    assert stream.getvalue() == ("stopping: 1 chunk to finish (10 s at most); Ctrl-C again quits\n")


def test_a_large_blob_that_is_resumed_has_a_line() -> None:
    stream = io.StringIO()
    display = open_display("plain", stream)
    display(blob(State.STARTED, 0))
    display(blob(State.STARTED, 4 * MIB))
    display(blob(State.STARTED, 400, 900, "sha256:b"))
    display.close()

    assert stream.getvalue() == (f"resuming    reg:5000/app:1 {DIGEST} at 4.0 MiB of 10.0 MiB\n")


def test_each_failed_image_has_a_short_line() -> None:
    stream = io.StringIO()
    display = open_display("plain", stream)
    display.set_expected_images(4)
    for name, reason in (
        ("a:1", "cannot read a:1: the connection was refused"),
        ("b:1", "cannot read b:1: the connection was refused"),
        ("c:1", "cannot read c:1: 404 Not Found: MANIFEST_UNKNOWN: c has no such manifest"),
        ("d:1", "cannot write to/d:1: 503 Service Unavailable: a page of text"),
    ):
        display(Event("image", name, "x", State.FAILED, 0, None, reason))
    display.close()

    assert stream.getvalue().splitlines() == [
        "failed      a:1: the connection was refused",
        "failed      b:1: the connection was refused",
        "failed      c:1: 404 Not Found",
        "failed      d:1: cannot write to/d:1: 503 Service Unavailable",
    ]


def test_images_are_counted_without_a_line_where_results_are_written_elsewhere() -> None:
    stream = io.StringIO()
    display = open_display("plain", stream)
    display.set_expected_images(1, lists_images=False)
    display(Event("image", "a:1", "x", State.PRESENT, 0, None))
    snapshot = display.snapshot()
    display.close()

    assert stream.getvalue() == ""
    assert snapshot is not None
    assert (snapshot.images.done, snapshot.images.total) == (1, 1)
