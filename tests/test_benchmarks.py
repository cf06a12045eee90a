"""The benchmarks end to end at a small size: all cases run, and what they move is checked."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from benchmarks import layouts, plan, tags
from benchmarks.__main__ import CASES, main, run_case, size_of
from benchmarks.cases import Bench
from benchmarks.measure import MIB, Measured, ProgramFailedError, measure
from benchmarks.registry import two_registries
from benchmarks.table import Compared, text

pytestmark = pytest.mark.process

SIZE = 2 * MIB


def _path() -> dict[str, str]:
    return {"PATH": os.environ["PATH"]}


@pytest.mark.real
def test_every_case_runs_both_programs_and_fills_the_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--runs", "1", "--size", str(SIZE), "--memory", str(tmp_path)]) == 0

    lines = capsys.readouterr().out.splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert [row[0] for row in cells[2::2]] == list(CASES)
    assert all(all(row) for row in cells[2::2])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.real
def test_json_tells_every_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--runs", "2", "--size", "1M", "--memory", str(tmp_path), "--only", "copy-8"]

    assert main([*arguments, "--json"]) == 0

    (case,) = json.loads(capsys.readouterr().out)
    assert case["case"] == "copy-8"
    assert case["bytes"] == MIB
    assert [len(program["seconds"]) for program in case["programs"]] == [2, 2]


@pytest.mark.real
@pytest.mark.parametrize("name", ["copy-8", "push"])
def test_wrong_bytes_at_the_destination_stop_the_run(name: str, tmp_path: Path) -> None:
    with two_registries(tmp_path) as (directory, source, destination):
        bench = Bench(directory, source, destination, SIZE)
        case = CASES[name](bench)
        measure(case.theirs, bench.environment())
        case.check("")

        for data in (directory / "destination").rglob("data"):
            data.write_bytes(b"wrong" + data.read_bytes()[5:])

        with pytest.raises(AssertionError, match="arrived instead of"):
            case.check("")


@pytest.mark.real
def test_a_case_leaves_both_registries_empty(tmp_path: Path) -> None:
    with two_registries(tmp_path) as (directory, source, destination):
        run_case("copy-1", Bench(directory, source, destination, SIZE), 1)

        assert list(directory.rglob("data")) == []


def test_a_measured_program_is_charged_for_its_own_memory_only() -> None:
    held = bytearray(64 * MIB)
    held[::4096] = b"x" * len(held[::4096])

    measured, output = measure([sys.executable, "-I", "-S", "-c", "print('said')"], _path())

    assert output == "said\n"
    assert 0 < measured.rss < len(held)
    assert measured.seconds > 0


def test_a_program_that_fails_stops_the_run_with_what_it_said() -> None:
    with pytest.raises(ProgramFailedError, match="exit code 3: no such image"):
        measure(["sh", "-c", "echo no such image >&2; exit 3"], _path())


def test_ratios_are_medians_of_pairs() -> None:
    def runs(*seconds: float) -> tuple[Measured, ...]:
        return tuple(Measured(taken, taken / 2, MIB) for taken in seconds)

    compared = Compared("copy-1", MIB, "skopeo", runs(1, 10, 3), runs(2, 40, 3))

    assert compared.ratio == 0.5
    assert compared.cpu_ratio == 0.5
    assert text([compared]).count("\n") == 3


def test_sizes_are_read_as_people_write_them() -> None:
    assert [size_of(text) for text in ("7", "3K", "512M", "1GiB")] == [7, 3072, 512 * MIB, 2**30]


@pytest.mark.real
def test_a_plan_costs_what_it_must_and_no_more(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--repositories", "6", "--tags", "4", "--memory", str(tmp_path), "--json"]

    assert plan.main(arguments) == 0

    first, again, changed, killed, resumed = json.loads(capsys.readouterr().out)
    assert again == {"run": "again", "tags": 6, "HEAD manifest": 48}
    assert first["GET manifest"] == first["PUT manifest"] == 24
    # Every blob once: of all, of a repository, and two of each image.
    assert first["GET blob"] == 1 + 6 + 2 * 24
    assert first["mount"] == 5
    assert (changed["GET manifest"], changed["GET blob"], changed["PUT manifest"]) == (1, 2, 1)
    assert killed["PUT manifest"] >= 12
    assert resumed["PUT manifest"] < 24
    assert resumed["GET manifest"] == resumed["PUT manifest"]


def test_very_many_tags_are_listed_and_compared(capsys: pytest.CaptureFixture[str]) -> None:
    assert tags.main(["--tags", "1001"]) == 0

    rows = capsys.readouterr().out.splitlines()[2:]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    asked = {row[0]: int(row[2]) for row in cells}
    # Two pages, and what is asked of both sides.
    assert asked == {"immutable, again": 2, "immutable, first": 2004, "two HEADs a tag": 2004}


def test_many_names_are_mirrored_into_a_layout_and_served(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert layouts.main(["--names", "150", "--names", "3", "--memory", str(tmp_path)]) == 0

    rows = capsys.readouterr().out.splitlines()[2:]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    runs = ("mirror, first", "mirror, again", "served, read", "served, pushed")
    assert [row[:2] for row in cells] == [[run, names] for run in runs for names in ("3", "150")]
    assert list(tmp_path.iterdir()) == []
