"""`python -m benchmarks`: compare concil with the programs people use, on this machine."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from benchmarks.bench import Bench, Case
from benchmarks.cases.instructions import instructions
from benchmarks.cases.mirror import mirror
from benchmarks.cases.replay import replay_copy, replay_mirror
from benchmarks.cases.slopes import Point, slopes
from benchmarks.cases.start import start
from benchmarks.cases.transfer import copy, pull, push
from benchmarks.measure import MIB
from benchmarks.programs import find_programs
from benchmarks.report import Report
from benchmarks.results import Result
from benchmarks.runner import run_case
from benchmarks.servers.registry import memory_directory
from benchmarks.warm_up import warm_up

CASES: Mapping[str, Callable[[Bench], Case]] = {
    "start": start,
    "copy-1": copy,
    "copy-8": partial(copy, layers=8),
    "pull": pull,
    "push": push,
    "copy-1-tls": partial(copy, tls=True),
    "pull-tls": partial(pull, tls=True),
    "push-tls": partial(push, tls=True),
    "mirror": mirror,
    "mirror-tls": partial(mirror, tls=True),
    "mirror-again": partial(mirror, again=True),
    "mirror-20ms": partial(mirror, delay=20),
    "mirror-again-20ms": partial(mirror, delay=20, again=True),
    "copy-1-20ms": partial(copy, delay=20),
    "pull-20ms": partial(pull, delay=20),
    "replay-copy": replay_copy,
    "replay-mirror": replay_mirror,
}
SPECIAL = ("instructions", "slopes")
GROUPS = {"replay": ("replay-copy", "replay-mirror")}
_UNITS = {"": 1, "K": 1024, "M": MIB, "G": 1024 * MIB}


def size_of(written: str) -> int:
    """Read a number of bytes: 1073741824, 512M, 1G."""
    found = re.fullmatch(r"(\d+)([KMG]?)(?:iB)?", written)
    if found is None or not int(found[1]):
        raise argparse.ArgumentTypeError(f"not a size: {written}; write 512M or 1G")
    return int(found[1]) * _UNITS[found[2]]


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    names = (*CASES, *GROUPS, *SPECIAL)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"{', '.join(names)}; all")
    parser.add_argument("--pairs", type=int, default=3, help="rounds: runs of each program")
    parser.add_argument("--size", type=size_of, default=1024 * MIB, help="of a case: 512M, 1G")
    parser.add_argument("--images", type=int, default=200, help="of a mirror")
    parser.add_argument("--memory", type=Path, default=Path("/dev/shm"), help="where all is kept")  # noqa: S108
    parser.add_argument("--json", type=Path, help="write every run to this file")
    parser.add_argument("--chart", type=Path, help="draw the ratios to this PNG; needs matplotlib")
    parser.add_argument("--full", action="store_true", help="slopes up to 8 GiB")
    parser.add_argument(
        "--targets",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="say which targets are reached",
    )
    options = parser.parse_args(arguments)
    unknown = set(options.cases) - set(names)
    if unknown:
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    if options.pairs < 1 or options.images < 2:
        parser.error("--pairs is 1 or more, --images 2 or more")
    return options


def chosen(cases: Sequence[str]) -> list[str]:
    """The names of the cases to run: all, or those that were named, groups by their members."""
    every = (*CASES, *SPECIAL)
    return [name for case in cases or every for name in GROUPS.get(case, (case,))]


def run(names: Sequence[str], bench: Bench, options: argparse.Namespace) -> Report:
    """Run the cases one after the other; what is measured so far is kept in the JSON file."""
    results: list[Result] = []
    points: list[Point] = []
    report = Report(bench.programs.lines(), results, points)
    for name in names:
        if name == "slopes":
            points += slopes(bench, full=options.full)
        elif name == "instructions":
            results.append(instructions(bench))
        else:
            results.append(run_case(name, CASES[name](bench), bench, options.pairs))
        if options.json:
            options.json.write_text(json.dumps(report.document(), indent=2) + "\n")
    return report


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    programs = find_programs()
    print("\n".join(programs.lines()), file=sys.stderr)
    with (
        memory_directory(options.memory) as directory,
        Bench(directory, programs, size=options.size, images=options.images) as bench,
    ):
        warm_up(directory, 8 * options.size)
        report = run(chosen(options.cases), bench, options)
    if options.chart:
        from benchmarks.chart import write_chart  # noqa: PLC0415 - matplotlib is an option

        write_chart(report.results, options.chart)
    print(report.text(with_targets=options.targets))
    return 0


if __name__ == "__main__":
    sys.exit(main())
