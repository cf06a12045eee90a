"""`python -m benchmarks`: compare concil with skopeo and curl on this machine."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from benchmarks.cases import Bench, Case, copy_eight, copy_floor, copy_one, pull, push
from benchmarks.measure import MIB, Measured, measure
from benchmarks.registry import two_registries
from benchmarks.sync import sync
from benchmarks.table import Compared, text

CASES: dict[str, Callable[[Bench], Case]] = {
    "copy-1": copy_one,
    "copy-8": copy_eight,
    "copy-floor": copy_floor,
    "pull": pull,
    "push": push,
    "sync": sync,
    "sync-again": partial(sync, again=True),
    "sync-20ms": partial(sync, delay=20),
    "sync-20ms-again": partial(sync, delay=20, again=True),
}
_UNITS = {"": 1, "K": 1024, "M": MIB, "G": 1024 * MIB}


def size_of(written: str) -> int:
    """Read a number of bytes: 1073741824, 512M, 1G."""
    found = re.fullmatch(r"(\d+)([KMG]?)(?:iB)?", written)
    if found is None or not int(found[1]):
        raise argparse.ArgumentTypeError(f"not a size: {written}; write 512M or 1G")
    return int(found[1]) * _UNITS[found[2]]


def run_case(name: str, bench: Bench, runs: int) -> Compared:
    """Run both programs in turns, each time to an empty target."""
    case = CASES[name](bench)
    taken: tuple[list[Measured], list[Measured]] = ([], [])
    runs = min(runs, case.most or runs)
    for number in range(runs):
        # Who goes first changes: neither always meets the warmer machine.
        for which in (0, 1) if number % 2 == 0 else (1, 0):
            case.reset()
            before = bench.served()
            measured, output = measure((case.ours, case.theirs)[which], bench.environment())
            measured = replace(measured, served=bench.served() - before)
            case.check(output)
            taken[which].append(measured)
            said = f"{name} {number + 1}/{runs} {('concil', case.rival)[which]}"
            print(f"{said}: {measured.seconds:.2f} s", file=sys.stderr)
    case.close()
    bench.destination.empty()
    bench.source.empty()
    return Compared(name, case.size, case.rival, tuple(taken[0]), tuple(taken[1]))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--runs", type=int, default=5, help="pairs of runs of each case")
    parser.add_argument(
        "--only", action="extend", nargs="+", choices=list(CASES), help="these cases only"
    )
    parser.add_argument("--size", type=size_of, default=1024 * MIB, help="of a case: 512M, 1G")
    parser.add_argument("--memory", type=Path, default=Path("/dev/shm"), help="where all is kept")  # noqa: S108
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args(arguments)
    if options.runs < 1:
        parser.error("--runs is 1 or more")
    with two_registries(options.memory) as (directory, source, destination):
        bench = Bench(directory, source, destination, options.size)
        compared = [run_case(name, bench, options.runs) for name in options.only or CASES]
    if options.json:
        print(json.dumps([one.document() for one in compared], indent=2))
    else:
        print(text(compared))
    return 0


if __name__ == "__main__":
    sys.exit(main())
