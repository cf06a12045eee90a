"""Composes the rows of running blobs: columns that are aligned at any width."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tqdm import tqdm

from concil.display.style import Color, Field, Segment, Style, display_width, fit, pad, printable
from concil.progress.events import State
from concil.progress.snapshot import BlobProgress
from concil.runtime.dataclass import dataclass
from concil.runtime.quantities import format_rate, format_size, format_time_left

_NOTE_FROM, _LONG_DIGEST_FROM = 119, 99  # columns of a row
_MAX_NAME, _MAX_BAR = 40, 40  # columns
_AMOUNT, _PERCENT, _RATE, _TIME, _NOTE = 17, 4, 12, 7, 26  # columns: "1023.9/1023.9 MiB" and so on
_FILES = ("oci:", "oci-archive:", "docker-archive:")  # addresses of layouts and archives
_MIN_AMOUNT = 13  # columns: "12.0/60.0 MiB"
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


@dataclass(frozen=True, slots=True)
class _Row:
    """What a row shows; widths are columns, and 0 leaves a part out."""

    min_bar: int
    amount: int
    rate: int
    time: int
    min_name: int
    has_digest: bool = False


_ROWS = (  # from the widest one to the narrowest
    _Row(8, _AMOUNT, _RATE, _TIME, 16, has_digest=True),
    _Row(8, _AMOUNT, _RATE, _TIME, 16),
    _Row(8, _PERCENT, _RATE, _TIME, 16),
    _Row(0, _PERCENT, _RATE, _TIME, 10),
    _Row(0, _PERCENT, _RATE, 0, 8),
    _Row(0, _PERCENT, 0, 0, 0),
)


@dataclass(frozen=True, slots=True)
class _Columns:
    """Widths of the columns; 0: the column is left out."""

    name: int
    digest: int
    bar: int
    amount: int
    rate: int
    time: int
    note: int

    @property
    def has_amount(self) -> bool:
        """Whether there is room for bytes, and not only for a percentage."""
        return self.amount > _PERCENT


def compose_rows(blobs: Sequence[BlobProgress], width: int, style: Style) -> list[list[Segment]]:
    """Return a row for each blob, in at most ``width`` columns each."""
    longest = max((display_width(_name(blob)) for blob in blobs), default=0)
    columns = _fit_columns(longest, width, has_digests=any(_digest(blob) for blob in blobs))
    if columns.has_amount:  # what it leaves of its column is room for a note at the end
        amount = max([_MIN_AMOUNT, *(len(_amount(blob)) for blob in blobs)])
        columns = replace(columns, amount=amount)
    return [_compose_row(blob, columns, width, style) for blob in blobs]


def describe_blob(blob: BlobProgress) -> tuple[str, str]:
    """Return the texts on both sides of the bar of a blob."""
    notes, is_problem = _notes(blob)
    rate = "" if blob.rate is None or is_problem else format_rate(blob.rate)
    parts = [_amount(blob), rate, *notes[:1]]
    return f"{_name(blob)} {_digest(blob)[:12]}".strip(), "  ".join(filter(None, parts))


def _fit_columns(longest_name: int, width: int, *, has_digests: bool) -> _Columns:
    """Choose columns: a name that can be recognised is worth more than all others."""
    note = _NOTE if width >= _NOTE_FROM else 0
    digest = (12 if width >= _LONG_DIGEST_FROM else 8) if has_digests else 0

    def free_columns(row: _Row) -> int:
        sizes = (digest * row.has_digest, row.amount, row.rate, row.time, note)
        return width - sum(size + 1 for size in sizes if size) - bool(row.min_bar)

    fitting = (
        row for row in _ROWS if free_columns(row) - row.min_bar >= min(longest_name, row.min_name)
    )
    row = next(fitting, _ROWS[-1])
    free = free_columns(row)
    shared = max(row.min_name, free * 2 // 3) if row.min_bar else free
    name = max(1, min(longest_name, _MAX_NAME, shared))
    bar = min(_MAX_BAR, free - name) if row.min_bar else 0
    return _Columns(name, digest * row.has_digest, bar, row.amount, row.rate, row.time, note)


def _compose_row(blob: BlobProgress, columns: _Columns, width: int, style: Style) -> list[Segment]:
    name = style.shorten_name(_name(blob), columns.name)
    cells = [Segment(pad(name, columns.name), Color.CYAN)]
    if columns.digest:
        cells.append(Segment(_digest(blob)[: columns.digest].ljust(columns.digest), Color.DIM))
    if columns.bar:
        cells.append(Segment(_draw_bar(blob, columns.bar, style), Color.GREEN))
    amount = _amount(blob) if columns.has_amount else _percentage(blob)
    cells.append(Segment(amount.rjust(columns.amount)))
    notes, is_problem = _notes(blob)
    color = Color.YELLOW if is_problem else Color.DIM
    # A problem takes the place of the rate, which says nothing now.
    if not (notes and (is_problem or (blob.rate is None and not columns.note))):
        cells += [Segment(text) for text in _speed(blob, columns)]
        notes = notes if columns.note else ()
    room = width - sum(display_width(cell.text) + 1 for cell in cells)
    cells += fit([Field((*notes, ""), color)], room)
    row = [part for cell in cells for part in (Segment(" "), cell)][1:]
    return row if sum(display_width(part.text) for part in row) <= width else cells[:1]


def _draw_bar(blob: BlobProgress, width: int, style: Style) -> str:
    position, total = min(blob.position, blob.total or blob.position), blob.total or 0
    if not total:
        return " " * width
    bar = tqdm.format_meter(
        position, total, blob.elapsed, ncols=width, ascii=style.is_ascii, bar_format="|{bar}|"
    )
    return bar.ljust(width)[:width]


def _speed(blob: BlobProgress, columns: _Columns) -> list[str]:
    """Return the rate and the time left, as far as there are columns for them."""
    cells = []
    if columns.rate:
        rate = "" if blob.rate is None else format_rate(blob.rate)
        cells.append(rate.rjust(columns.rate))
    if columns.time:
        left = ""
        if blob.rate and blob.total and blob.position < blob.total:
            left = format_time_left((blob.total - blob.position) / blob.rate)
        cells.append(left.rjust(columns.time) if len(left) <= columns.time else " " * columns.time)
    return cells


def _notes(blob: BlobProgress) -> tuple[tuple[str, ...], bool]:
    """Return the variants of the note of a blob, and whether it is about a problem."""
    detail = printable(blob.detail)
    if blob.state in (State.RETRYING, State.RESTARTING):
        return _reasons(blob.state, detail), True
    if blob.stalled_seconds:
        return (f"stalled {blob.stalled_seconds:.0f} s",), True
    if blob.total and blob.position >= blob.total:
        return ("finishing",), False
    if detail:
        return _reasons("restarted", detail), False
    at = format_size(blob.resumed_at)
    return (f"resumed at {at}", "resumed") if blob.resumed_at else (), False


def _reasons(word: str, detail: str) -> tuple[str, ...]:
    """Return a word with its reason: the last clause of a message is the cause."""
    return f"{word}: {detail.rpartition(': ')[2]}", word


def _name(blob: BlobProgress) -> str:
    """Return the name of the image without its host or directory, or that of the file."""
    if not blob.image:
        is_digest = bool(_digest(blob))
        return printable((blob.target if is_digest else blob.subject).rpartition("/")[2])
    image = printable(blob.image)
    if image.startswith(_FILES):
        return image.partition(":")[2].rpartition("/")[2]
    host, slash, path = image.rpartition("://")[2].partition("/")
    is_host = slash and (":" in host or "." in host or host == "localhost")
    return path if is_host else image


def _digest(blob: BlobProgress) -> str:
    """Return the hexadecimal part of a digest; "" for a file."""
    algorithm, colon, value = blob.subject.partition(":")
    return value if colon and algorithm in ("sha256", "sha512") else ""


def _amount(blob: BlobProgress) -> str:
    """Return position and size in one unit: ``12.0/60.0 MiB``."""
    if not blob.total:
        return format_size(blob.position)
    size, unit = format_size(blob.total).split()
    position = blob.position / 1024 ** _UNITS.index(unit)
    return f"{position:.{0 if unit == 'B' else 1}f}/{size} {unit}"


def _percentage(blob: BlobProgress) -> str:
    return f"{100 * min(blob.position, blob.total) // blob.total}%" if blob.total else ""
