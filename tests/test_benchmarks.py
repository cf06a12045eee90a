"""The benchmarks end to end at a small size: all cases run, and what they move is checked."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from pathlib import Path

import pytest

from benchmarks import layouts, plan, tags
from benchmarks.__main__ import CASES, main, size_of
from benchmarks.bench import Bench
from benchmarks.measure import MIB, ProgramFailedError, measure
from benchmarks.programs import find_programs
from benchmarks.runner import run_case
from benchmarks.servers.registry import memory_directory
from benchmarks.table import HEADINGS
from tests.support.scale import FULL

pytestmark = pytest.mark.process

SIZE = 2 * MIB
IMAGES = 3
SMALL = ("--pairs", "1", "--size", str(SIZE), "--images", str(IMAGES), "--memory")


def _path() -> dict[str, str]:
    return {"PATH": os.environ["PATH"]}


def _bench(directory: Path) -> Bench:
    return Bench(directory, find_programs(), size=SIZE, images=IMAGES)


def _compared(printed: str) -> set[str]:
    """Return the programs in the table, and the heading of their column."""
    lines = [line for line in printed.splitlines() if line.startswith("| ")]
    rows = [line.strip("|").split("|") for line in lines]
    return {row[1].strip().split()[0] for row in rows if len(row) == len(HEADINGS)}


@pytest.mark.real
@pytest.mark.parametrize("name", ["pull-20ms", "mirror-tls", *(["mirror-again"] if FULL else [])])
def test_a_case_runs_concil_and_its_peers(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([name, *SMALL, str(tmp_path)]) == 0

    assert _compared(capsys.readouterr().out) > {"program", "concil"}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.real
def test_the_targets_are_printed_unless_they_are_not_wanted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["start", *SMALL, str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert _compared(printed) > {"program", "concil"}
    assert " of 2 targets reached" in printed

    assert main(["start", *SMALL, str(tmp_path), "--no-targets"]) == 0
    assert "targets" not in capsys.readouterr().out


@pytest.mark.real
def test_json_has_every_run_and_the_requests(tmp_path: Path) -> None:
    file = tmp_path / "results.json"

    assert main(["copy-8", *SMALL, str(tmp_path), "--pairs", "2", "--json", str(file)]) == 0

    document = json.loads(file.read_text())
    (case,) = document["cases"]
    programs = {program["program"]: program for program in case["programs"]}
    assert (case["case"], case["bytes"]) == ("copy-8", SIZE)
    assert programs.keys() >= {"concil", "skopeo", "curl", "openssl"}
    assert {len(program["seconds"]) for program in programs.values()} == {2}
    # 9 blobs and a manifest: each at least once from the source and once to the destination.
    assert programs["concil"]["requests"] >= 20
    assert programs["skopeo"]["requests"] >= 20


@pytest.mark.real
@pytest.mark.parametrize("name", ["copy-8", "push"])
def test_wrong_bytes_at_the_destination_stop_the_run(name: str, tmp_path: Path) -> None:
    with memory_directory(tmp_path) as directory, _bench(directory) as bench:
        case = CASES[name](bench)
        measure(case.commands(case.hosts)["skopeo"], bench.environment())
        case.check("skopeo", "")

        for data in (directory / "destination").rglob("data"):
            data.write_bytes(b"wrong" + data.read_bytes()[5:])

        with pytest.raises(AssertionError, match="arrived instead of"):
            case.check("skopeo", "")


@pytest.mark.real
def test_a_case_leaves_both_registries_empty(tmp_path: Path) -> None:
    with memory_directory(tmp_path) as directory, _bench(directory) as bench:
        run_case("copy-1", CASES["copy-1"](bench), bench, 1)

        assert list(directory.rglob("data")) == []


@pytest.mark.real
def test_a_program_that_is_missing_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = find_programs()
    versions = {name: version for name, version in found.versions.items() if name != "skopeo"}
    fewer = dataclasses.replace(found, versions=versions, missing=("skopeo",))
    monkeypatch.setattr("benchmarks.__main__.find_programs", lambda: fewer)

    assert main(["pull", *SMALL, str(tmp_path)]) == 0

    output = capsys.readouterr().out
    assert "not on PATH, left out: skopeo" in output
    assert "| skopeo" not in output
    assert "| curl" in output


def test_an_unknown_case_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["pul"])

    assert "no such case: pul" in capsys.readouterr().err


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
