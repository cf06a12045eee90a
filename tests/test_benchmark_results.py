"""What the benchmarks make of their measurements."""

from __future__ import annotations

import pytest

from benchmarks.__main__ import CASES, SPECIAL
from benchmarks.measure import MIB, Measured
from benchmarks.results import Result
from benchmarks.table import HEADINGS, text
from benchmarks.targets import TARGETS, Target, judge


def _runs(*seconds: float, rss: int = MIB) -> tuple[Measured, ...]:
    return tuple(Measured(value, value / 2, rss) for value in seconds)


def _result(**runs: tuple[Measured, ...]) -> Result:
    return Result("copy-1", MIB, runs)


def test_a_ratio_is_the_median_of_the_rounds() -> None:
    result = _result(concil=_runs(1, 10, 3), skopeo=_runs(2, 40, 3))

    assert result.ratio("concil", "skopeo") == 0.5


def test_the_best_peer_is_the_fastest_and_never_a_floor() -> None:
    result = _result(concil=_runs(1), crane=_runs(4), oras=_runs(2), curl=_runs(0.5))

    assert result.best_peer() == "oras"
    assert result.best_peer(("crane", "regctl")) == "crane"


def test_the_floor_is_the_slower_one() -> None:
    result = _result(concil=_runs(4), curl=_runs(1), openssl=_runs(2))

    assert result.floor_ratio("concil") == 2
    assert _result(concil=_runs(4)).floor_ratio("concil") is None


def test_a_table_has_a_row_for_each_program() -> None:
    lines = text([_result(concil=_runs(1), skopeo=_runs(2))]).splitlines()

    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert tuple(cells[0]) == HEADINGS
    assert [row[:5] for row in cells[2:]] == [
        ["copy-1", "concil", "1.00", "1", "0.50"],
        ["", "skopeo", "2.00", "0", ""],
    ]


@pytest.mark.parametrize(
    ("target", "bound", "is_reached"),
    [
        (Target("copy-1", "seconds", 1.0, ("crane", "regctl")), 4.0, True),
        (Target("copy-1", "seconds", 1.0, ("peers",)), 2.0, False),
        (Target("copy-1", "cpu", 2.0, ("oras",)), 2.0, True),
        (Target("copy-1", "rss", 0, plus=64), 64.0, True),
        (Target("copy-1", "seconds", 0, plus=2.5, plus_start=True), 2.75, False),
    ],
)
def test_a_target_is_judged(target: Target, bound: float, is_reached: bool) -> None:
    runs = {"concil": _runs(3, rss=64 * MIB), "crane": _runs(4), "oras": _runs(2), "curl": _runs(1)}
    start = Result("start", 0, {"concil --version": _runs(0.25)})

    (verdict,) = judge([_result(**runs), start], [target])

    assert verdict.bound == bound
    assert verdict.is_reached is is_reached


@pytest.mark.parametrize(
    "target",
    [
        Target("pull", "seconds", 1.0, ("peers",)),  # not run
        Target("copy-1", "seconds", 1.0, ("regctl",)),  # not there
        Target("copy-1", "seconds", 0, plus=1, plus_start=True),  # the start was not measured
        Target("copy-1", "rss", 0, plus=1, program="concil -j32"),
    ],
)
def test_a_target_without_measurements_is_not_judged(target: Target) -> None:
    assert list(judge([_result(concil=_runs(1), oras=_runs(1))], [target])) == []


def test_every_target_is_of_a_case() -> None:
    assert {target.case for target in TARGETS} <= {*CASES, *SPECIAL}
