"""What the numbers have to be, and whether they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from benchmarks.cases.instructions import REQUESTS
from benchmarks.cases.mirror import CRANE, MANY_JOBS, REGSYNC
from benchmarks.cases.start import DIGEST, IMPORT_REQUESTS, PASS, VERSION
from benchmarks.measure import MIB
from benchmarks.results import Result
from benchmarks.table import markdown

Measure = Literal["seconds", "cpu", "rss", "instructions"]
_UNITS: Mapping[Measure, str] = {
    "seconds": "s",
    "cpu": "CPU s",
    "rss": "MiB",
    "instructions": "instructions",
}


@dataclass(frozen=True, slots=True)
class Target:
    """An upper bound of one value of one case.

    Args:
        case: Its name.
        measure: Which value.
        factor: Times the value of the best of the programs in ``of``; with none of them, of one.
        of: Programs of the same case; ("peers",): all of them.
        plus: Added to the bound, in the unit of the value.
        plus_start: Whether the time of `concil --version` is added too.
        program: Whose value it is.
    """

    case: str
    measure: Measure
    factor: float
    of: tuple[str, ...] = ()
    plus: float = 0
    plus_start: bool = False
    program: str = "concil"


PEERS = ("peers",)
VERIFYING = ("crane", "regctl")


def _rss(mib: int, cases: Sequence[str], program: str = "concil") -> Iterator[Target]:
    return (Target(case, "rss", 0, plus=mib, program=program) for case in cases)


TARGETS = (
    Target("start", "seconds", 3, (PASS,), program=VERSION),
    Target("start", "seconds", 1.25, (IMPORT_REQUESTS,), program=DIGEST),
    Target("copy-1", "seconds", 1.0, VERIFYING),
    Target("copy-1", "seconds", 1.15, ("oras",)),  # it does not verify
    Target("copy-8", "seconds", 1.0, VERIFYING),
    Target("copy-8", "seconds", 1.15, ("oras",)),
    Target("pull", "seconds", 1.0, PEERS),
    Target("push", "seconds", 1.0, PEERS),
    Target("copy-1-tls", "seconds", 0.95, PEERS),
    Target("pull-tls", "seconds", 0.95, PEERS),
    Target("push-tls", "seconds", 0.95, PEERS),
    Target("mirror", "seconds", 1.0, (REGSYNC,)),
    Target("mirror", "cpu", 2.0, (REGSYNC,)),
    Target("mirror-tls", "seconds", 1.0, (REGSYNC,)),
    Target("mirror-tls", "cpu", 2.0, (REGSYNC,)),
    Target("mirror-again", "seconds", 0, plus=0.5, plus_start=True),
    Target("mirror-again-20ms", "seconds", 0.5, (REGSYNC,), program=MANY_JOBS),
    Target("mirror-20ms", "seconds", 0.25, (CRANE,), program=MANY_JOBS),
    Target("copy-1-20ms", "seconds", 0.8, PEERS),
    Target("pull-20ms", "seconds", 0.8, PEERS),
    *_rss(64, ("copy-1", "pull", "push", "copy-1-tls", "pull-tls", "push-tls")),
    *_rss(128, ("mirror", "mirror-tls"), MANY_JOBS),
    Target("instructions", "instructions", 0.45, (REQUESTS,)),
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """One target beside what was measured."""

    target: Target
    value: float
    bound: float
    other: str  # the program that sets the bound; "": none

    @property
    def is_reached(self) -> bool:
        return self.value <= self.bound

    def document(self) -> dict[str, object]:
        """Everything, for JSON."""
        return {
            "case": self.target.case,
            "program": self.target.program,
            "measure": self.target.measure,
            "value": self.value,
            "bound": self.bound,
            "is_reached": self.is_reached,
        }

    def row(self) -> tuple[str, ...]:
        """Its line of the table."""
        target, unit = self.target, _UNITS[self.target.measure]
        parts = [f"{target.factor:g} x {self.other}"] if self.other else []
        parts += [f"{target.plus:g}"] if target.plus else []
        parts += ["start-up"] if target.plus_start else []
        digits = 0 if target.measure in ("rss", "instructions") else 2
        return (
            target.case,
            target.program,
            f"<= {' + '.join(parts)} {unit}",
            f"{self.value:.{digits}f}",
            f"{self.bound:.{digits}f}",
            "reached" if self.is_reached else f"missed, x {self.value / self.bound:.2f}",
        )


def judge(results: Sequence[Result], targets: Sequence[Target] = TARGETS) -> Iterator[Verdict]:
    """Compare the targets of the cases that were run; peers that are missing set no bound."""
    by_case = {result.case: result for result in results}
    for target in targets:
        result = by_case.get(target.case)
        if result is None or target.program not in result.runs:
            continue
        others = [name for name in _others(result, target) if name in result.runs]
        if target.of and not others:
            continue
        best = min(others, key=lambda name: _value(result, name, target.measure), default="")
        bound = target.plus
        if best:
            bound += target.factor * _value(result, best, target.measure)
        if target.plus_start:
            if "start" not in by_case:
                continue
            bound += by_case["start"].seconds(VERSION)
        yield Verdict(target, _value(result, target.program, target.measure), bound, best)


def text(verdicts: Sequence[Verdict]) -> str:
    """A Markdown table, and one line that sums it up."""
    headings = ("case", "program", "target", "value", "bound", "")
    table = markdown(headings, [verdict.row() for verdict in verdicts], left=3)
    reached = sum(verdict.is_reached for verdict in verdicts)
    return f"{table}\n\n{reached} of {len(verdicts)} targets reached"


def _others(result: Result, target: Target) -> Sequence[str]:
    return result.peers() if target.of == PEERS else target.of


def _value(result: Result, program: str, measure: Measure) -> float:
    if measure == "rss":
        return result.rss(program) / MIB
    if measure == "cpu":
        return result.cpu(program)
    if measure == "instructions":
        return result.instructions[program]
    return result.seconds(program)
