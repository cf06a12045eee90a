"""Prints tables with aligned columns."""

from __future__ import annotations

from collections.abc import Sequence

from concil.cli.output import results

_GAP = "  "


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]], right: str = "") -> None:
    """Print rows below a header; the last column is not padded.

    Args:
        right: the header of the column that is aligned to the right; "" for none.
    """
    lines = [list(header), *(list(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    for line in lines:
        cells = [
            cell.rjust(width) if name == right else cell.ljust(width)
            for cell, width, name in zip(line, widths, header, strict=True)
        ]
        results.print_line(_GAP.join(cells).rstrip())
