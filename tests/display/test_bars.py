"""What is shown while it works: bars on a terminal, lines and JSON elsewhere."""

from __future__ import annotations

import io
import json
import re
import threading
import time
from dataclasses import replace
from datetime import datetime

import pytest

from concil.cli.main import main
from concil.display.display import MODES, open_display
from concil.display.stopping import Stopping
from concil.errors import UsageError
from concil.progress.events import Event, State
from concil.server import EmbeddedRegistry
from tests.cli.terminal import Terminal
from tests.support.images import make_image, write_layout

MIB = 1024 * 1024
CODES = re.compile(r"\x1b\[\d*[A-Za-z]")


def blob(
    name: str, state: State = State.MOVING, position: int = 0, total: int | None = 10 * MIB
) -> Event:
    digest = f"sha256:{name * 64}"
    return Event("blob", digest, "place", state, position, total, image=f"quay.io/team/{name}:1")


def image(name: str, state: State, position: int = 0) -> Event:
    return Event("image", name, f"copy-of-{name}", state, position, None)


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate()}


@pytest.fixture
def terminal() -> Terminal:
    return Terminal()


def test_a_header_and_a_line_for_each_large_blob(terminal: Terminal) -> None:
    with terminal:
        display = open_display("auto", terminal.stream)
        display(blob("a", position=5 * MIB))
        display(blob("b", position=1 * MIB))
        display(blob("c", State.WAITING))
        display(blob("d", position=563, total=564))
        terminal.wait_for("b" * 8)
        shown = terminal.screen().text.splitlines()
        display.close()

    assert shown[0].startswith("6.0 MiB of 30.0 MiB  20%")
    assert [line.split()[:2] for line in shown[1:]] == [
        ["team/a:1", "a" * 8],
        ["team/b:1", "b" * 8],
    ]
    assert " 5.0/10.0 MiB" in shown[1]
    assert all(len(line) < 80 for line in shown)


def test_what_has_ended_vanishes_and_counts(terminal: Terminal) -> None:
    with terminal:
        display = open_display("bar", terminal.stream)
        display.set_expected_images(2)
        display(blob("a", position=5 * MIB))
        display(blob("b", position=5 * MIB))
        seen = terminal.wait_for("b" * 8)
        display(blob("a", State.DONE, 10 * MIB))
        seen = terminal.wait_for("15.0 MiB", seen)
        terminal.wait_for("b" * 8, seen)
        shown = terminal.screen().text
        display.close()

    assert "a" * 8 not in shown
    assert "b" * 8 in shown


def test_closing_wipes_everything_and_ends_the_thread(terminal: Terminal) -> None:
    with terminal:
        display = open_display("bar", terminal.stream)
        display(blob("a"))
        terminal.wait_for("a" * 8)
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
        terminal.wait_for("a" * 8)
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
        terminal.wait_for("a" * 8)
        display.write("first")
        display.write("second")
        seen = terminal.wait_for("second")
        terminal.wait_for("a" * 8, seen)
        shown = terminal.screen().text.splitlines()
        display.close()

    assert shown[:2] == ["first", "second"]
    assert [line.split()[0] for line in shown[2:]] == ["team/a:1"]


@pytest.mark.parametrize("rows", [1, 2, 3, 5])
def test_no_more_bars_than_fit(rows: int) -> None:
    with Terminal(40, rows) as terminal:
        display = open_display("bar", terminal.stream)
        for name in "abcdef":
            display(blob(name, position=MIB))
        seen = terminal.wait_for("6.0 MiB")
        terminal.wait_for("6.0 MiB", seen)
        shown = terminal.screen().text.splitlines()
        display.close()

    assert len(shown) == max(1, rows - 1)
    if rows > 2:
        assert shown[-1] == f"and {6 - (rows - 3)} more"


def test_the_bars_follow_the_size_of_the_terminal() -> None:
    with Terminal(100, 24) as terminal:
        display = open_display("bar", terminal.stream)
        display(blob("a", position=MIB))
        display(blob("b", position=MIB))
        seen = terminal.wait_for("b" * 12)
        terminal.resize(40, 10)
        # The lines of blobs take three rows each there, the header takes one.
        seen = terminal.wait_for("\x1b[6A", seen)
        seen = terminal.wait_for("\x1b[2A", seen)
        terminal.wait_for("\x1b[2A", seen)
        frame = terminal.written[seen:].partition("\x1b[J")[0]
        display.close()

    lines = CODES.sub("", frame).split("\n")
    assert len(lines) == 3
    assert all(len(line) < 40 for line in lines)


def test_a_terminal_without_a_size_is_taken_for_a_usual_one() -> None:
    with Terminal(0, 0) as terminal:
        display = open_display("bar", terminal.stream)
        display(blob("a"))
        terminal.wait_for("a" * 8)
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
        terminal.wait_for("1/3 images")
        early = terminal.screen().text
        display(image("y", State.MOVING))
        display(image("z", State.PRESENT))
        terminal.wait_for("of 10.0 MiB")
        late = terminal.screen().text
        display.close()

    assert "%" not in early.splitlines()[1]
    assert "left" not in early
    assert late.splitlines()[2].startswith("2/3 images  1 up to date  1.0 MiB of 10.0 MiB  10%")


def test_an_image_has_a_line_above_the_bars(terminal: Terminal) -> None:
    with terminal:
        display = open_display("bar", terminal.stream)
        display.set_expected_images(4)
        display(blob("a", position=MIB))
        display(image("x", State.DONE, 3 * MIB))
        display(image("y", State.PRESENT))
        display(replace(image("z", State.FAILED), detail="404 no such tag"))
        display(image("u", State.CANCELLED))
        seen = terminal.wait_for("404 no such tag")
        terminal.wait_for("team/a:1", seen)
        shown = terminal.screen().text.splitlines()
        display.close()

    assert shown[:3] == [
        "copied      x → copy-of-x (3.0 MiB)",
        "up to date  y → copy-of-y",
        "failed      z: 404 no such tag",
    ]
    assert shown[3].startswith("2/4 images  1 up to date  1 failed")


def test_a_host_that_is_paused_has_a_line(terminal: Terminal) -> None:
    with terminal:
        display = open_display("bar", terminal.stream)
        display(blob("a", position=MIB))
        event = Event("host", "reg:5000", "", State.PAUSED, 0, None, "too many requests")
        display(replace(event, seconds=60.0))
        terminal.wait_for("reg:5000 paused: too many requests; resuming in 60 s")
        terminal.wait_for("resuming in 59 s")
        display.close()


def test_an_interrupt_is_answered_at_once(terminal: Terminal) -> None:
    with terminal:
        display = open_display("bar", terminal.stream)
        display.set_expected_images(2)
        display(blob("a", position=MIB))
        display(blob("b", State.RETRYING, MIB))
        terminal.wait_for("0/2 images")
        display.show_stopping(Stopping(time.monotonic() + 60, "Ctrl-C again quits"))
        terminal.wait_for("stopping: 1 chunk to finish (60 s at most); Ctrl-C again quits")
        shown = terminal.screen().text.splitlines()
        display.close()

    assert shown[0].startswith("stopping: 1 chunk to finish (")
    assert len(shown) == 3


def test_no_color_without_a_terminal_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    for name, value, has_color in (
        ("NO_COLOR", "", True),
        ("NO_COLOR", "1", False),
        ("TERM", "dumb", False),
    ):
        with monkeypatch.context() as patch, Terminal() as terminal:
            patch.setenv(name, value)
            display = open_display("bar", terminal.stream)
            display.set_expected_images(2)
            display(image("x", State.DONE))
            terminal.wait_for("1/2 images")
            display.close()
            assert ("\x1b[32m" in terminal.written) is has_color


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
        "image": "quay.io/team/a:1",
        "seconds": None,
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
