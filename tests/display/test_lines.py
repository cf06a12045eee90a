"""The lines of the display: aligned at any width, no field is cut, and what is said when."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest

from concil.display.blob_rows import compose_rows
from concil.display.lines import compose_header, compose_image, compose_pause, compose_stopping
from concil.display.style import Segment, Style, display_width, wrap_words
from concil.progress.events import Event, State
from concil.progress.snapshot import BlobProgress, ImageCounts, PausedHost, ProgressSnapshot

MIB = 1 << 20
WIDTHS = [*range(1, 130), 199, 300]
UTF8 = Style()
ASCII = Style(is_ascii=True)
MOVING = BlobProgress(
    "http://localhost:5000/team/app:1.4",
    f"sha256:{'4f2a91bc3d5e' * 5}abcd",
    "registry.example:5000/team/app",
    State.MOVING,
    12 * MIB,
    60 * MIB,
    24 * MIB,
    4.0,
)
BLOBS = (
    MOVING,
    replace(MOVING, image="quay.io/other/long-name-of-an-image:2026-01-02", position=59 * MIB),
    replace(MOVING, resumed_at=4 * MIB),
    replace(MOVING, resumed_at=4 * MIB, rate=None),
    replace(MOVING, stalled_seconds=3.4),
    replace(MOVING, state=State.RETRYING, detail="PATCH http://x/y: the connection was reset"),
    replace(MOVING, state=State.RESTARTING, position=0, detail="session lost", rate=None),
    replace(MOVING, total=None),
    replace(MOVING, position=60 * MIB),
    replace(MOVING, image="", subject="/data/model.bin"),
)
COUNTS = ImageCounts(copied=9, up_to_date=3, failed=1, total=60)
SNAPSHOT = ProgressSnapshot(345 * MIB, 1200 * MIB, 24 * MIB, 20.0, COUNTS, False, BLOBS, (), ())


def text(line: list[Segment]) -> str:
    return "".join(segment.text for segment in line)


def rows(width: int, *blobs: BlobProgress, style: Style = UTF8) -> list[str]:
    return [text(row) for row in compose_rows(blobs, width, style)]


@pytest.mark.parametrize("style", [UTF8, ASCII])
def test_no_line_is_wider_than_the_terminal(style: Style) -> None:
    pause = PausedHost("registry.example:5000", "too many requests", 28.0)
    for width in WIDTHS:
        lines = [
            *rows(width, *BLOBS, style=style),
            text(compose_header(replace(SNAPSHOT, is_total_known=True), width)),
            text(compose_pause(pause, width)),
            text(compose_stopping(SNAPSHOT, 9.5, "Ctrl-C again quits", width)),
        ]
        # The number of images and the shortest words are always there.
        assert all(len(line) <= max(width, 12) for line in lines), width
        assert all(line for line in lines)


def test_columns_are_aligned() -> None:
    for width in WIDTHS:
        shown = rows(width, *BLOBS[:2])
        assert len({len(row) for row in shown}) == 1, shown
    for width in range(79, 200):
        shown = rows(width, *BLOBS[:7])
        assert len({row.index("4f2a91bc") for row in shown}) == 1
        assert len({row.index("MiB") for row in shown}) == 1, shown


@pytest.mark.parametrize(
    ("width", "line"),
    [
        (39, "team/app:1.4  20%   24.0 MiB/s   00:02"),
        (
            79,
            "team/app:1.4 4f2a91bc |███▏            | 12.0/60.0 MiB   24.0 MiB/s   00:02",
        ),
    ],
)
def test_a_blob_at_usual_widths(width: int, line: str) -> None:
    [shown] = rows(width, MOVING)

    assert shown == line
    assert len(shown) <= width


@pytest.mark.parametrize(
    ("number", "note"),
    [
        (3, "resumed at 4.0 MiB"),
        (4, "stalled 3 s"),
        (5, "retrying: the connection was reset"),
        (6, "restarting: session lost"),
    ],
)
def test_a_note_takes_the_place_of_the_rate(number: int, note: str) -> None:
    wide, usual, narrow = (rows(width, BLOBS[number])[0] for width in (199, 79, 39))
    word, _, reason = note.partition(":")

    assert wide.endswith(reason)
    assert word in wide
    assert usual.endswith((note, word))
    assert narrow.endswith((note, word))
    assert "MiB/s" not in usual


def test_what_was_resumed_is_said_for_good_where_there_is_room() -> None:
    [wide] = rows(139, BLOBS[2])

    assert wide.rstrip().endswith("00:02 resumed at 4.0 MiB")


def test_names_are_those_of_images_and_files() -> None:
    names = [row.split()[0] for row in rows(199, *BLOBS)]

    assert names[0] == "team/app:1.4"
    assert names[1] == "other/long-name-of-an-image:2026-01-02"
    assert names[-1] == "model.bin"
    layout = replace(MOVING, image="oci:/srv/layout:app:v1")
    pulled = replace(MOVING, image="", target="/tmp/blob.bin")
    assert [row.split()[0] for row in rows(120, layout, pulled)] == ["layout:app:v1", "blob.bin"]


def test_wide_characters_and_control_characters_do_not_move_the_columns() -> None:
    files = [replace(MOVING, image="", subject=name) for name in ("模型.bin", "a\x1b[2Jb", "plain")]
    shown = rows(79, *files)

    assert not any("\x1b" in row for row in shown)
    assert len({display_width(row[: row.index("12.0/60.0")]) for row in shown}) == 1


def test_no_percentage_before_the_total_is_known() -> None:
    early = text(compose_header(SNAPSHOT, 79))
    late = text(compose_header(replace(SNAPSHOT, is_total_known=True), 89))

    assert early == "12/60 images  3 up to date  1 failed  345.0 MiB  24.0 MiB/s"
    assert late == (
        "12/60 images  3 up to date  1 failed  345.0 MiB of 1.2 GiB  28%  24.0 MiB/s  00:36 left"
    )


def test_no_rate_and_no_end_while_nothing_moves() -> None:
    known = replace(SNAPSHOT, is_total_known=True)
    stalled = text(compose_header(replace(known, active_blobs=BLOBS[4:6]), 99))
    pause = PausedHost("reg:5000", "too many requests", 9.0)
    paused = text(compose_header(replace(known, paused_hosts=(pause,)), 99))

    assert stalled.endswith("28%  stalled")
    assert paused.endswith("28%  24.0 MiB/s")


@pytest.mark.parametrize(
    ("width", "line"),
    [
        (79, "12/60 images  3 up to date  1 failed  345.0 MiB  28%  24.0 MiB/s  00:36"),
        (59, "12/60 images  1 failed  345.0 MiB  28%  24.0 MiB/s  00:36"),
        (39, "12/60  1 failed  28%  24.0 MiB/s  00:36"),
        (20, "12/60  1 failed  28%"),
        (3, "12/60"),
    ],
)
def test_a_narrow_header_leaves_out_what_matters_least(width: int, line: str) -> None:
    shown = text(compose_header(replace(SNAPSHOT, is_total_known=True), width))

    assert shown == line


def test_an_image_that_has_ended() -> None:
    event = Event("image", "quay.io/a/b:1", "reg:5000/b:1", State.DONE, 24 * MIB, None)
    failed = replace(event, state=State.FAILED, detail="quay.io/a/b:1: 404\x1b[31m not found")

    assert text(compose_image(event, UTF8, 79)) == (
        "copied      quay.io/a/b:1 → reg:5000/b:1 (24.0 MiB)"
    )
    assert text(compose_image(event, ASCII, 79)) == (
        "copied      quay.io/a/b:1 -> reg:5000/b:1 (24.0 MiB)"
    )
    assert text(compose_image(event, UTF8, 39)) == "copied      quay.io/a/b:1 (24.0 MiB)"
    assert text(compose_image(event, UTF8, 34)) == "copied      …y.io/a/b:1 (24.0 MiB)"
    assert text(compose_image(failed, UTF8, 20)) == (
        "failed      quay.io/a/b:1: 404 [31m not found"
    )
    assert compose_image(replace(event, state=State.CANCELLED), UTF8, 79) == []


@pytest.mark.parametrize(
    ("retrying", "words"),
    [
        (0, "stopping: 2 chunks to finish (10 s at most); again"),
        (1, "stopping: 1 chunk to finish (10 s at most); again"),
        (2, "stopping: waiting for the last requests (10 s at most); again"),
    ],
)
def test_the_answer_to_an_interrupt_counts_what_moves(retrying: int, words: str) -> None:
    blobs = [MOVING] * (2 - retrying) + [BLOBS[5]] * retrying
    snapshot = replace(SNAPSHOT, active_blobs=tuple(blobs))

    assert text(compose_stopping(snapshot, 9.5, "again")) == words


@pytest.mark.parametrize(
    ("encoding", "locale", "is_ascii"),
    [
        ("utf-8", "UTF-8", False),
        ("utf-8", "ANSI_X3.4-1968", True),  # Python writes UTF-8 in the C locale
        ("iso-8859-1", "UTF-8", True),
    ],
)
def test_ascii_where_the_locale_is_not_utf_8(
    monkeypatch: pytest.MonkeyPatch, encoding: str, locale: str, is_ascii: bool
) -> None:
    monkeypatch.setattr("locale.getencoding", lambda: locale)
    style = Style.of_stream(io.TextIOWrapper(io.BytesIO(), encoding=encoding))
    shown = rows(79, *BLOBS, style=style)

    assert style.is_ascii is is_ascii
    assert all(row.isascii() for row in shown) is is_ascii


def test_destinations_of_one_image_are_told_apart_at_any_width() -> None:
    other = replace(MOVING, target="http://127.0.0.1:5000/copy/of/app")
    single = replace(MOVING, image="quay.io/single:1")
    for width in range(40, 200):
        first, second, third = rows(width, MOVING, other, single)
        assert "example:5000" in first
        assert "0.1:5000" in second
        assert "→" not in third
    assert rows(150, MOVING, other)[0].startswith("team/app:1.4 → registry.example:5000 4f2a91bc")
    assert rows(150, other, style=ASCII)[0].startswith("team/app:1.4 4f2a91bc")
    assert rows(150, MOVING, other, style=ASCII)[1].startswith("team/app:1.4 -> 127.0.0.1:5000 ")


@pytest.mark.parametrize("columns", [20, 40, 80, 200])
def test_words_are_not_cut(columns: int) -> None:
    line = f"failed      \x1b[31mquay.io/a/b\x1b[0m: {'the registry said no ' * 9}{'x' * 300} why"

    rows = wrap_words(line, columns).split("\n")

    assert " ".join(row.strip() for row in rows).split() == line.split()
    plain = [row.replace("\x1b[31m", "").replace("\x1b[0m", "") for row in rows]
    assert all(len(row) <= columns or "x" * 300 in row for row in plain)


def test_a_number_stays_with_its_unit() -> None:
    line = "retrying at 20.0 MiB in 0.3 s"

    assert wrap_words(line, 17) == "retrying at\n  20.0 MiB in\n  0.3 s"


def test_a_line_that_fits_and_its_spaces_stay() -> None:
    assert wrap_words("copied      a → b\n  next", 80) == "copied      a → b\n  next"
