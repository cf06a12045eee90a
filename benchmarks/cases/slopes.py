"""What one more image and one more GiB cost concil, in CPU time and memory."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from benchmarks.bench import Bench, Case
from benchmarks.cases.replay import replay_copy, replay_mirror
from benchmarks.measure import MIB, Measured, measure
from benchmarks.table import markdown

IMAGES = (1, 10, 100, 1000)
FULL_IMAGES = 3000  # the server keeps each of their blobs open
SIZES = tuple(size * MIB for size in (64, 256, 1024, 4096))
FULL_SIZE = 8192 * MIB


@dataclass(frozen=True, slots=True)
class Point:
    """One run."""

    task: str  # mirror or copy
    amount: int  # images or bytes
    measured: Measured

    def document(self) -> dict[str, object]:
        """Everything, for JSON."""
        return {
            "task": self.task,
            "amount": self.amount,
            "seconds": self.measured.seconds,
            "cpu_seconds": self.measured.cpu,
            "peak_rss_bytes": self.measured.rss,
        }


def slopes(bench: Bench, *, full: bool = False) -> Iterator[Point]:
    """Mirror more and more images, and copy larger and larger layers, against canned answers."""
    images, size = bench.images, bench.size
    try:
        for bench.images in IMAGES + ((FULL_IMAGES,) if full else ()):
            yield _run("mirror", bench.images, replay_mirror, bench)
        for bench.size in SIZES + ((FULL_SIZE,) if full else ()):
            yield _run("copy", bench.size, replay_copy, bench)
    finally:
        bench.images, bench.size = images, size


def _run(task: str, amount: int, create: Callable[[Bench], Case], bench: Bench) -> Point:
    case = create(bench)
    try:
        case.reset()
        bench.forget()
        command = case.commands(case.hosts)["concil"]
        measured, output = measure(command, bench.environment(), timeout=1800)
        case.check("concil", output)
    finally:
        case.close()
    print(f"slopes {task} {amount}: {measured.cpu:.2f} CPU s", file=sys.stderr)
    return Point(task, amount, measured)


def text(points: Sequence[Point]) -> str:
    """A Markdown table; each slope is that from the row above."""
    headings = ("task", "amount", "seconds", "CPU s", "RSS MiB", "CPU ms for one more", "RSS KiB")
    rows = []
    before: Point | None = None
    for point in points:
        is_copy = point.task == "copy"
        unit = MIB if is_copy else 1
        more = ("", "")
        if before and before.task == point.task:
            step = (point.amount - before.amount) / unit
            cpu = (point.measured.cpu - before.measured.cpu) * 1000 / step
            rss = (point.measured.rss - before.measured.rss) / 1024 / step
            more = (f"{cpu:.2f}", f"{rss:.1f}")
        rows.append(
            (
                point.task,
                f"{point.amount // unit} {'MiB' if is_copy else 'images'}",
                f"{point.measured.seconds:.2f}",
                f"{point.measured.cpu:.2f}",
                f"{point.measured.rss / MIB:.0f}",
                *more,
            )
        )
        before = point
    return markdown(headings, rows, left=1)
