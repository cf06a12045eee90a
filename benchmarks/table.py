"""Markdown tables of results."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from benchmarks.measure import MIB
from benchmarks.results import Result, is_ours

HEADINGS = (
    *("case", "program", "seconds", "MiB/s", "x best peer", "x floor", "CPU s"),
    *("RSS MiB", "requests", "requests/s", "servers CPU s"),
)


def text(results: Sequence[Result]) -> str:
    """One row for each program of each case."""
    return markdown(HEADINGS, [row for result in results for row in rows(result)], left=2)


def rows(result: Result) -> Iterator[tuple[str, ...]]:
    """The rows of a case; the ratios stand in the rows of concil."""
    best = result.best_peer()
    for number, program in enumerate(result.runs):
        seconds, requests = result.seconds(program), result.requests.get(program)
        floor = result.floor_ratio(program)
        yield (
            "" if number else result.case,
            program,
            f"{seconds:.2f}",
            f"{result.rate(program):.0f}" if result.size else "",
            f"{result.ratio(program, best):.2f}" if best and is_ours(program) else "",
            f"{floor:.2f}" if floor and is_ours(program) else "",
            f"{result.cpu(program):.2f}",
            f"{result.rss(program) / MIB:.0f}",
            "" if requests is None else f"{requests}",
            "" if requests is None else f"{requests / seconds:.0f}",
            f"{result.served(program):.2f}",
        )


def instructions_text(result: Result) -> str:
    """The instructions of one exchange of each client, and what they are of the first peer's."""
    rows = [(name, f"{count:,}") for name, count in result.instructions.items()]
    return markdown(("client", "instructions of an exchange"), rows, left=1)


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
