"""What is shown while it works: bars on a terminal, lines and JSON elsewhere."""

from __future__ import annotations

import io
import json
import threading
from dataclasses import replace
from datetime import datetime

import pytest

from concil.cli.main import main
from concil.display import plain
from concil.display.display import MODES, open_display
from concil.display.output import format_size
from concil.errors import UsageError
from concil.progress.events import Event, State
from concil.progress.totals import ProgressTotals
from concil.server import EmbeddedRegistry
from tests.cli.terminal import Terminal
from tests.support.images import make_image, write_layout

MIB = 1024 * 1024


def blob(
    name: str, state: State = State.MOVING, position: int = 0, total: int | None = 10 * MIB
) -> Event:
    return Event("blob", f"sha256:{name * 64}", "place", state, position, total)


def image(name: str, state: State) -> Event:
    return Event("image", name, f"copy-of-{name}", state, 0, None)


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate()}


@pytest.fixture
def terminal() -> Terminal:
    return Terminal()


def test_bars_show_the_total_and_what_is_running(terminal: Terminal) -> None:
    with terminal:
        display = open_display("auto", terminal.stream)
        display(blob("a", position=5 * MIB))
        display(blob("b", position=1 * MIB))
        display(blob("c", State.WAITING))
        terminal.wait_for("b" * 12)
        shown = terminal.screen().text.splitlines()
        display.close()

    assert [line.split()[0] for line in shown] == ["total", "a" * 12, "b" * 12]
    assert "20%" in shown[0]
    assert "6.00M/30.0M" in shown[0]
    assert "50%" in shown[1]
    assert all(len(line) < 80 for line in shown)


def test_what_has_ended_vanishes_and_counts(terminal: Terminal) -> None:
    with terminal:
        display = open_display("bar", terminal.stream)
        display(blob("a", position=5 * MIB))
        display(blob("b", position=5 * MIB))
        seen = terminal.wait_for("b" * 12)
        display(blob("a", State.DONE, 10 * MIB))
        terminal.wait_for("15.0M/20.0M", seen)
        seen = terminal.wait_for("b" * 12, seen)
        terminal.wait_for("total", seen)
        shown = terminal.screen().text
        display.close()

    assert "a" * 12 not in shown
    assert "b" * 12 in shown


def test_closing_wipes_everything_and_ends_the_thread(terminal: Terminal) -> None:
    with terminal:
        display = open_display("bar", terminal.stream)
        display(blob("a"))
        terminal.wait_for("a" * 12)
        display.close()
        display.write("after")
        terminal.wait_for("after")
        shown = terminal.screen().text

    assert shown == "after"
    assert not threads() & {"concil-display", "tqdm_monitor"}


def test_what_is_typed_leaves_nothing_behind(terminal: Terminal) -> None:
    with terminal:
        display = open_display("bar", terminal.stream)
        display(blob("a"))
        terminal.wait_for("a" * 12)
        terminal.type("\x03")
        terminal.wait_for("^C")
        display.close()
        display.write("interrupted")
        terminal.wait_for("interrupted")
        shown = terminal.screen().text

    assert shown == "interrupted"


def test_lines_are_written_above_the_bars(terminal: Terminal) -> None:
    with terminal:
        display = open_display("bar", terminal.stream)
        display(blob("a"))
        terminal.wait_for("a" * 12)
        display.write("first")
        display.write("second")
        seen = terminal.wait_for("second")
        terminal.wait_for("a" * 12, seen)
        shown = terminal.screen().text.splitlines()
        display.close()

    assert shown[:2] == ["first", "second"]
    assert [line.split()[0] for line in shown[2:]] == ["total", "a" * 12]


@pytest.mark.parametrize("rows", [1, 2, 3, 5])
def test_no_more_bars_than_fit(rows: int) -> None:
    with Terminal(40, rows) as terminal:
        display = open_display("bar", terminal.stream)
        for name in "abcdef":
            display(blob(name, position=MIB))
        seen = terminal.wait_for("6.00M/60.0M")
        terminal.wait_for("6.00M/60.0M", seen)
        shown = terminal.screen().text.splitlines()
        display.close()

    assert len(shown) == max(1, rows - 1)
    if rows > 2:
        assert shown[-1] == f"and {6 - (rows - 3)} more"


def test_the_bars_follow_the_size_of_the_terminal() -> None:
    with Terminal(100, 24) as terminal:
        display = open_display("bar", terminal.stream)
        display(blob("a"))
        seen = terminal.wait_for("a" * 12)
        terminal.resize(50, 10)
        # The lines of 99 columns take two rows each there: from the fourth back to the first.
        seen = terminal.wait_for("\x1b[3A", seen)
        seen = terminal.wait_for("\x1b[1A", seen)
        frame = terminal.written[seen:].partition("\x1b[J")[0]
        display.close()

    assert all(len(line) < 60 for line in frame.replace("\x1b[K", "").split("\n"))


def test_a_terminal_without_a_size_is_taken_for_a_usual_one() -> None:
    with Terminal(0, 0) as terminal:
        display = open_display("bar", terminal.stream)
        display(blob("a"))
        terminal.wait_for("a" * 12)
        display.close()


def test_images_are_counted_and_no_end_is_promised_before_all_have_begun(
    terminal: Terminal,
) -> None:
    with terminal:
        display = open_display("bar", terminal.stream)
        display.set_expected_images(3)
        display(image("x", State.DONE))
        display(image("y", State.STARTED))
        display(blob("a", position=MIB))
        seen = terminal.wait_for("1/3 images")
        terminal.wait_for("<?, ", seen)
        display(image("z", State.PRESENT))
        terminal.wait_for("2/3 images", seen)
        display.close()


def test_a_blob_that_is_tried_again_is_marked(terminal: Terminal) -> None:
    with terminal:
        display = open_display("bar", terminal.stream)
        display(blob("a", State.RETRYING, MIB))
        terminal.wait_for(f"{'a' * 12} !")
        display.close()


def test_a_stream_that_breaks_ends_nothing() -> None:
    read, stream = io.StringIO(), io.StringIO()
    stream.close()
    for mode in ("bar", "plain", "json", "none"):
        display = open_display(mode, stream)
        display(blob("a"))
        display.write("line")
        display.close()
    for mode in MODES:
        open_display(mode, None).write("line")

    assert read.getvalue() == ""


def test_without_a_terminal_plain_lines_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain.PlainView, "interval", 0.3)
    wrote = threading.Event()

    class Stream(io.StringIO):
        def write(self, text: str) -> int:
            if "running" in text:
                wrote.set()
            return super().write(text)

    stream = Stream()
    display = open_display("auto", stream)
    display.set_expected_images(2)
    display(image("x", State.DONE))
    display(image("y", State.STARTED))
    display(blob("a", position=5 * MIB))
    display(blob("b", State.RETRYING, 0))
    assert wrote.wait(30)
    display.write("a line")
    display.close()

    lines = stream.getvalue().splitlines()
    assert lines[-1] == "a line"
    assert lines[0].startswith("1/2 images, 5.0 MiB of 20.0 MiB (25 %), ")
    assert lines[0].endswith("left, 2 running, 1 retrying")


def test_json_is_an_object_a_line() -> None:
    stream = io.StringIO()

    display = open_display("json", stream)
    display(blob("a", State.DONE, 5, 5))
    display.write("words", "warning")
    display.close()

    event, log = map(json.loads, stream.getvalue().splitlines())
    assert datetime.fromisoformat(event.pop("time")) <= datetime.fromisoformat(log.pop("time"))
    assert event == {
        "kind": "blob",
        "subject": f"sha256:{'a' * 64}",
        "target": "place",
        "state": "done",
        "position": 5,
        "total": 5,
        "detail": "",
    }
    assert log == {"kind": "log", "level": "warning", "message": "words"}


def test_json_names_the_worker_of_a_cluster() -> None:
    stream = io.StringIO()

    display = open_display("json", stream)
    display(replace(blob("a"), worker="tcp://10.0.0.5:4000 concil-1"))
    display.close()

    assert json.loads(stream.getvalue())["worker"] == "tcp://10.0.0.5:4000 concil-1"


def test_none_is_lines_only() -> None:
    stream = io.StringIO()

    display = open_display("none", stream)
    display(blob("a"))
    display.write("words")
    display.set_expected_images(3)
    display.close()

    assert stream.getvalue() == "words\n"


def test_unknown_mode_is_an_error() -> None:
    with pytest.raises(UsageError, match="loud"):
        open_display("loud", None)


def test_a_dumb_terminal_gets_no_bars(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    with terminal:
        display = open_display("auto", terminal.stream)
        display(blob("a"))
        display.write("words")
        display.close()
        terminal.wait_for("words")

    assert terminal.written == "words\n"


def test_positions_may_decrease_and_failures_do_not_count() -> None:
    tally = ProgressTotals()

    tally.record_event(blob("a", position=8 * MIB))
    tally.record_event(blob("a", State.RETRYING, 2 * MIB))
    tally.record_event(blob("b", State.FAILED, 5 * MIB))
    tally.record_event(blob("c", State.MOUNTED, 10 * MIB))
    tally.record_event(blob("d", State.PRESENT, 3, None))
    found = tally.snapshot()

    assert (found.bytes_done, found.bytes_total) == (12 * MIB + 3, 20 * MIB + 3)


def test_what_an_earlier_process_moved_is_no_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("concil.progress.totals.time.monotonic", lambda: now)
    tally = ProgressTotals()
    tally.record_event(blob("a", State.STARTED))
    tally.record_event(blob("a", State.STARTED, 8 * MIB))
    tally.record_event(blob("a", position=9 * MIB))
    now += 2

    moving = tally.snapshot()
    tally.record_event(blob("a", State.RETRYING, 5 * MIB))
    tally.record_event(blob("a", position=7 * MIB))
    lost = tally.snapshot()
    tally.record_event(blob("a", State.DONE, 10 * MIB))
    result = tally.snapshot()

    assert (moving.bytes_done, moving.rate) == (9 * MIB, MIB / 2)
    assert moving.active_blobs[0].bytes_present == 8 * MIB
    assert (lost.bytes_done, lost.rate) == (7 * MIB, MIB)
    assert (result.bytes_done, result.rate) == (10 * MIB, 5 * MIB / 2)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (96 * MIB, "96.0 MiB"),
        (2**50, "1024.0 TiB"),
    ],
)
def test_bytes_as_people_read_them(count: int, text: str) -> None:
    assert format_size(count) == text


def test_a_copy_on_a_terminal_leaves_its_message_alone(
    registry: EmbeddedRegistry,
    terminal: Terminal,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: object,
    jobs: str,
) -> None:
    write_layout(registry._layout.path.parent / "made", {"app:v1": make_image(1, (3_000_000,))})
    made = registry._layout.path.parent / "made"
    with terminal:
        monkeypatch.setattr("sys.stderr", terminal.stream)
        code = main(["copy", jobs, f"oci:{made}:app:v1", f"{registry.host}/app:v1"])
        terminal.wait_for(" s")
        shown = terminal.screen().text

    assert code == 0
    assert shown.startswith("copied ")
    assert "\n" not in shown
