"""The matrix as text: a row for each registry and pass, a mark for each size."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tests.personalities.matrix_cell import Outcome, Trouble

GREEN, RED, PLAIN = "\x1b[32m", "\x1b[31m", "\x1b[0m"
WIDTH = 14  # of a cell: seven marks and a factor

Row = Mapping[Trouble, Mapping[str, Outcome]]


def heading(sizes: Iterable[str]) -> str:
    """Return the lines above the rows."""
    names = " ".join(f"{trouble:<20}" for trouble in Trouble)
    return (
        f"marks, one a size: {', '.join(sizes)}; + right, - right and the fault had no occasion,"
        f" X wrong\nnumber: bytes of bodies sent over the size, the worst of the last two\n\n"
        f"{'registry':<20}{'digest':<10}{names}"
    )


def row(name: str, *, known: bool, cells: Row, colour: bool) -> str:
    """Return one line."""
    shown = " ".join(_cell(cells[trouble], colour=colour) for trouble in Trouble)
    return f"{name:<20}{'known' if known else 'unknown':<10}{shown}"


def _cell(outcomes: Mapping[str, Outcome], *, colour: bool) -> str:
    each = list(outcomes.values())
    marks = "".join(_mark(outcome) for outcome in each)
    worst = max(outcome.factor for outcome in each[-2:])
    text = f"{marks} {worst:.2f}".ljust(20)
    if not colour:
        return text
    return f"{RED if 'X' in marks else GREEN}{text}{PLAIN}"


def _mark(outcome: Outcome) -> str:
    if outcome.failure:
        return "X"
    return "+" if outcome.has_happened else "-"
