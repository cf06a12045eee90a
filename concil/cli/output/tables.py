"""Prints tables with aligned columns."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from concil.cli.output import results

_GAP = "  "
_BUFFERED_ROWS = 20  # rows from which the widths of the columns are known
_BUFFERED_SECONDS = 1.0  # after which the rows that are known are printed


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]], right: str = "") -> None:
    """Print rows below a header; the last column is not padded.

    Args:
        right: the header of the column that is aligned to the right; "" for none.
    """
    _TablePrinter(header, right).print_rows([header, *rows])


def stream_table(header: Sequence[str], rows: Iterable[Sequence[str]], right: str = "") -> None:
    """Print rows while they are iterated; the first ones together, to align the columns.

    A column becomes wider where a later row needs that. Arguments as for `print_table`.
    """
    printer, start_time = _TablePrinter(header, right), time.monotonic()
    buffer: list[Sequence[str]] | None = [header]
    for row in rows:
        if buffer is None:
            printer.print_rows([row])
            continue
        buffer.append(row)
        is_late = time.monotonic() - start_time >= _BUFFERED_SECONDS
        if is_late or len(buffer) > _BUFFERED_ROWS:
            printer.print_rows(buffer)
            buffer = None
    if buffer is not None:
        printer.print_rows(buffer)


class _TablePrinter:
    """Prints rows in columns that only become wider."""

    def __init__(self, header: Sequence[str], right: str) -> None:
        self._header = header
        self._right = right
        self._widths = [0] * len(header)

    def print_rows(self, rows: Sequence[Sequence[str]]) -> None:
        for row in rows:
            self._widths = [max(w, len(c)) for w, c in zip(self._widths, row, strict=True)]
        for row in rows:
            cells = [
                cell.rjust(width) if name == self._right else cell.ljust(width)
                for cell, width, name in zip(row, self._widths, self._header, strict=True)
            ]
            results.print_line(_GAP.join(cells).rstrip())
