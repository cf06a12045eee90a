"""What the runs of a case come to: medians, ratios, one table for people, JSON for programs."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.measure import MIB, Measured

HEADINGS = (
    *("case", "program", "seconds", "MiB/s", "ratio", "CPU s", "CPU ratio"),
    *("RSS MiB", "registries CPU s"),
)


@dataclass(frozen=True, slots=True)
class Compared:
    """The runs of one case, pair by pair."""

    case: str
    size: int  # bytes
    rival: str
    ours: tuple[Measured, ...]
    theirs: tuple[Measured, ...]

    @property
    def ratio(self) -> float:
        """Our time over theirs: the median of the pairs, which share their disturbances."""
        return statistics.median(
            a.seconds / b.seconds for a, b in zip(self.ours, self.theirs, strict=True)
        )

    @property
    def cpu_ratio(self) -> float:
        """Our CPU seconds over theirs, as `ratio`."""
        return statistics.median(
            a.cpu / max(b.cpu, 0.01) for a, b in zip(self.ours, self.theirs, strict=True)
        )

    def document(self) -> dict[str, object]:
        """Everything, for JSON."""
        return {
            "case": self.case,
            "bytes": self.size,
            "ratio": self.ratio,
            "cpu_ratio": self.cpu_ratio,
            "programs": [
                {
                    "program": program,
                    "seconds": [run.seconds for run in runs],
                    "cpu_seconds": [run.cpu for run in runs],
                    "peak_rss_bytes": [run.rss for run in runs],
                    "registries_cpu_seconds": [run.served for run in runs],
                }
                for program, runs in (("concil", self.ours), (self.rival, self.theirs))
            ],
        }

    def rows(self) -> list[tuple[str, ...]]:
        """Our row with the ratios, and theirs."""
        ours = _row(self.case, "concil", self.size, self.ours)
        theirs = _row("", self.rival, self.size, self.theirs)
        return [
            (*ours[:4], f"{self.ratio:.2f}", ours[5], f"{self.cpu_ratio:.2f}", *ours[7:]),
            theirs,
        ]


def _row(case: str, program: str, size: int, runs: Sequence[Measured]) -> tuple[str, ...]:
    seconds = statistics.median(run.seconds for run in runs)
    cpu = statistics.median(run.cpu for run in runs)
    rss = max(run.rss for run in runs)
    served = statistics.median(run.served for run in runs)
    rate = f"{size / MIB / seconds:.0f}"
    numbers = (f"{seconds:.2f}", rate, "", f"{cpu:.2f}", "", f"{rss / MIB:.0f}", f"{served:.2f}")
    return case, program, *numbers


def text(compared: Sequence[Compared]) -> str:
    """A Markdown table; the first two columns to the left, numbers to the right."""
    return markdown(HEADINGS, [row for one in compared for row in one.rows()], left=2)


def markdown(headings: Sequence[str], rows: Sequence[Sequence[str]], *, left: int) -> str:
    """A Markdown table; the first ``left`` columns to the left, the others to the right."""
    rows = [headings, *rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(headings))]
    lines = [
        "| "
        + " | ".join(
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        + " |"
        for row in rows
    ]
    marks = [
        "-" * (width + 2) if column < left else "-" * (width + 1) + ":"
        for column, width in enumerate(widths)
    ]
    lines.insert(1, "|" + "|".join(marks) + "|")
    return "\n".join(lines)
