"""A chart of the times of every program, beside concil's; needs matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from benchmarks.results import Result, is_floor, is_ours

OURS, OTHERS = "#1f6feb", ("#8c959f", "#b0b7bf", "#cfd4d9", "#6e7781", "#a8b3bd")
ROW = 0.22  # inches
LONGEST = 4.0  # times the best peer; a longer bar is cut, its label is not


def write_chart(results: Sequence[Result], path: Path) -> None:
    """Draw a bar for each program of each case: its time over that of the best peer."""
    results = [result for result in results if result.best_peer()]
    bars = [(result, program) for result in results for program in _programs(result)]
    figure = Figure(figsize=(8, 1 + ROW * (len(bars) + len(results))), layout="constrained")
    axes = figure.add_subplot()
    at, marks, labels = 0.0, [], []
    for result in results:
        best = result.best_peer()
        assert best
        for number, program in enumerate(_programs(result)):
            length = min(result.ratio(program, best), LONGEST)
            seconds = f"{result.seconds(program):.2f} s"
            color = OURS if is_ours(program) else OTHERS[number % len(OTHERS)]
            axes.barh(at, length, color=color)
            axes.text(length + 0.03, at, seconds, va="center", size=7)
            marks.append(at)
            labels.append(f"{result.case}  {program}" if not number else program)
            at += 1
        at += 1
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xlim(0, LONGEST + 0.4)
    axes.margins(y=0.01)
    axes.set_yticks(marks, labels, size=7)
    axes.invert_yaxis()
    axes.set_xlabel("time over that of the best peer; shorter is faster")
    figure.savefig(path, dpi=120)


def _programs(result: Result) -> list[str]:
    return [program for program in result.runs if not is_floor(program)]
