# ruff: noqa: INP001  # a script, not a package
"""Draws the charts of docs/benchmarks.md from its first table of results.

    python docs/images/charts.py

writes `times-large.svg` and `times-many.svg`. Standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

IMAGES = Path(__file__).parent
PAGE = IMAGES.parent / "benchmarks.md"
# By file: the cases that it shows, and what each is for people.
CHARTS: dict[str, dict[str, str]] = {
    "times-large.svg": {
        "copy-1": "copy an image of one layer, 1 GiB",
        "copy-8": "copy an image of eight layers, 1 GiB",
        "pull": "pull 1 GiB",
        "push": "push 1 GiB",
    },
    "times-many.svg": {
        "mirror": "mirror 200 small images",
        "mirror-20ms": "the same at a round trip of 20 ms",
        "mirror-again": "mirror them again, all up to date",
    },
}
FLOORS = {"curl", "openssl"}  # no programs of this kind

WIDTH, LABELS, AMOUNTS, ROW, TITLE, GAP = 760, 130, 70, 20, 30, 16  # pixels
OURS, OTHERS, INK, PAPER = "#1f6feb", "#b0b7bf", "#1f2328", "#ffffff"
FONT = "font-family='system-ui, sans-serif' font-size='13'"

Case = Mapping[str, float]  # seconds by program


def read_cases(text: str) -> dict[str, dict[str, float]]:
    """Return the seconds of each program in each case of the first table of results."""
    table = re.split(r"^\| case +\| program +\| seconds ", text, flags=re.MULTILINE)[1]
    table = table.partition("\n\n")[0]
    cases: dict[str, dict[str, float]] = {}
    case = ""
    for row in re.findall(r"^\| *([^|]*?) *\| *([^|]+?) *\| *([\d.]+) *\|", table, re.MULTILINE):
        case = row[0] or case
        if row[1] not in FLOORS:
            cases.setdefault(case, {})[row[1]] = float(row[2])
    return cases


def draw(titles: Mapping[str, str], cases: Mapping[str, Case]) -> str:
    """Return a chart: a bar for each program of each case, each case with a scale of its own."""
    height = GAP + sum(TITLE + ROW * len(cases[name]) + GAP for name in titles)
    size = f"width='{WIDTH}' height='{height}' viewBox='0 0 {WIDTH} {height}'"
    lines = [
        f"<svg xmlns='http://www.w3.org/2000/svg' {size} {FONT} fill='{INK}'>",
        f"<rect width='{WIDTH}' height='{height}' rx='6' fill='{PAPER}'/>",
    ]
    top = GAP
    for name, title in titles.items():
        lines.append(f"<text x='{GAP}' y='{top + 16}' font-weight='600'>{escape(title)}</text>")
        top += TITLE
        lines += _bars(cases[name], top)
        top += ROW * len(cases[name]) + GAP
    return "\n".join([*lines, "</svg>", ""])


def _bars(case: Case, top: int) -> Iterator[str]:
    room = WIDTH - LABELS - AMOUNTS - GAP
    slowest = max(case.values())
    for number, (program, seconds) in enumerate(case.items()):
        y = top + ROW * number
        length = max(1, round(room * seconds / slowest))
        color = OURS if program.startswith("concil") else OTHERS
        middle = y + ROW - 6
        yield f"<text x='{LABELS - 8}' y='{middle}' text-anchor='end'>{escape(program)}</text>"
        yield f"<rect x='{LABELS}' y='{y + 3}' width='{length}' height='{ROW - 6}' fill='{color}'/>"
        yield f"<text x='{LABELS + length + 6}' y='{middle}'>{seconds:.2f} s</text>"


def charts(text: str) -> Iterator[tuple[str, str]]:
    """Yield the name and the content of each chart of a page."""
    cases = read_cases(text)
    for name, titles in CHARTS.items():
        yield name, draw(titles, cases)


def write(pairs: Sequence[tuple[str, str]]) -> None:
    """Write the charts."""
    for name, content in pairs:
        (IMAGES / name).write_text(content)


if __name__ == "__main__":
    write(list(charts(PAGE.read_text())))
