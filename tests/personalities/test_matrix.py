"""Every kind of registry gets every size past every fault, and not many bytes twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.personalities.cases import CASES, QUICK, Case
from tests.personalities.matrix_cell import MatrixHarness, Trouble
from tests.support.scale import FULL

LONGEST = 10.0  # seconds of one cell, on a machine that does much else
# What fits into a chunk is hashed first, and then all is as with a known digest.
SINGLE_PASS = ("c+1", "3c", "5c+7") if FULL else ("c+1", "5c+7")
SIZES = ("0", "1", "c-1", "c", *SINGLE_PASS) if FULL else ("0", "1", "c", *SINGLE_PASS)
# An empty blob and one of a byte go in a PUT that nobody can cut in its middle.
WITH_A_MIDDLE = tuple(name for name in SIZES if name not in ("0", "1"))
IN_A_BODY = (Trouble.RESET, Trouble.CLOSED, Trouble.LOST_PATCH)
# Whether a cut is a FIN or an RST matters to the retry, which is the same code in a single pass.
WAYS = [
    pytest.param(known, trouble, id=f"{trouble.value}-{'digest known' if known else 'single pass'}")
    for known in (True, False)
    for trouble in Trouble
    if FULL or known or trouble is not Trouble.CLOSED
]


@pytest.mark.slow
@pytest.mark.parametrize(("known", "trouble"), WAYS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_no_cell_is_red(tmp_path: Path, case: Case, trouble: Trouble, known: bool) -> None:
    assert_green(tmp_path, case, trouble, known=known, workers=4)


@pytest.mark.parametrize("trouble", list(Trouble))
@pytest.mark.parametrize("case", CASES if FULL else CASES[:2], ids=lambda case: case.name)
def test_no_cell_is_red_without_threads(tmp_path: Path, case: Case, trouble: Trouble) -> None:
    assert_green(tmp_path, case, trouble, known=True, workers=0)


def assert_green(
    tmp_path: Path, case: Case, trouble: Trouble, *, known: bool, workers: int
) -> None:
    sizes = QUICK.sizes
    names = WITH_A_MIDDLE if trouble in IN_A_BODY else SIZES
    with MatrixHarness(tmp_path, case, QUICK, workers=workers).open() as bench:
        cells = {
            name: bench.run_case(sizes[name], trouble, known=known)
            for name in (names if known else SINGLE_PASS)
        }

    assert {name: cell.failure for name, cell in cells.items() if cell.failure} == {}
    assert max(cell.seconds for cell in cells.values()) < LONGEST
