"""Prints the matrix of registries, sizes and faults; fails where a cell is red."""
# ruff: noqa: T201  # a command that prints a table

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
from pathlib import Path

from tests.personalities.cases import CASES, FULL, QUICK, Case, Scale
from tests.personalities.matrix_cell import MatrixHarness, Trouble
from tests.personalities.matrix_table import heading, row

SLOW = 20.0  # seconds that a cell may take


def main(arguments: list[str] | None = None) -> int:
    """Run the cells that are asked for; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.personalities", description=__doc__)
    parser.add_argument("--full", action="store_true", help="chunks of 10 MiB, 50 MiB + 7")
    parser.add_argument("--only", default="", metavar="NAME", help="registries with NAME in theirs")
    parser.add_argument("--verbose", action="store_true", help="show what concil logs")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO if options.verbose else logging.CRITICAL)
    scale = FULL if options.full else QUICK
    began = time.monotonic()
    print(heading(scale.sizes))
    red: list[str] = []
    count = 0
    for case in CASES:
        if options.only.lower() in case.name.lower():
            for known in (True, False):
                found, cells = _run(case, scale, known=known)
                red += found
                count += cells
    print("", *red, sep="\n")
    print(f"{count} cells, {len(red)} red, {time.monotonic() - began:.0f} s")
    return 1 if red else 0


def _run(case: Case, scale: Scale, *, known: bool) -> tuple[list[str], int]:
    """Run and print one row; return its red cells and how many cells it has."""
    cells = {}
    with (
        tempfile.TemporaryDirectory() as directory,
        MatrixHarness(Path(directory), case, scale).open() as bench,
    ):
        for trouble in Trouble:
            cells[trouble] = {
                name: bench.run_case(size, trouble, known=known)
                for name, size in scale.sizes.items()
            }
    print(row(case.name, known=known, cells=cells, colour=sys.stdout.isatty()), flush=True)
    flat = [(trouble, name, one) for trouble, many in cells.items() for name, one in many.items()]
    red = [
        f"{case.name}, digest {'known' if known else 'unknown'}, {trouble}, {name}: "
        + (one.failure or f"took {one.seconds:.0f} s")
        for trouble, name, one in flat
        if one.failure or one.seconds > SLOW
    ]
    return red, len(flat)


if __name__ == "__main__":
    sys.exit(main())
