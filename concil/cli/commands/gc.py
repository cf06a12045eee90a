"""`concil gc`: removes from a layout what no image needs."""

from __future__ import annotations

from concil.cli.context import CommandContext
from concil.cli.output import results
from concil.cli.output.errors import DONE
from concil.runtime.quantities import format_size
from concil.store.layout.garbage import GarbageReport, collect_garbage, open_layout


def run(command: CommandContext) -> int:
    """List the garbage, and remove it with ``--yes``."""
    arguments = command.arguments
    layout = open_layout(arguments.address)
    min_age = 60.0 * arguments.min_age
    report = collect_garbage(layout, dry_run=not arguments.yes, min_age=min_age)
    if arguments.format == "json":
        results.print_json(_document(report))
        return DONE
    verb = "would remove" if report.is_dry_run else "removed"
    for each in report.garbage:
        results.print_line(f"{verb} {each.digest} ({format_size(each.size)})")
    if not arguments.quiet:
        results.print_line(_summary(report, arguments.min_age))
    return DONE


def _summary(report: GarbageReport, minutes: int) -> str:
    verb = "would be removed" if report.is_dry_run else "removed"
    line = f"{_count(len(report.garbage))} ({format_size(report.size)}) {verb}"
    line += f", {_count(report.needed_count)} needed"
    if report.recent:
        line += (
            f"; {_count(len(report.recent))} ({format_size(report.recent_size)}) kept, written "
            f"within {minutes} minutes (--min-age)"
        )
    if report.is_dry_run:
        line += "; nothing was changed" + ("; remove with --yes" if report.garbage else "")
    return line


def _count(number: int) -> str:
    return "1 file" if number == 1 else f"{number} files"


def _document(report: GarbageReport) -> dict[str, object]:
    return {
        "layout": report.layout,
        "removed": not report.is_dry_run,
        "garbage": [{"digest": str(each.digest), "size": each.size} for each in report.garbage],
        "size": report.size,
        "needed": report.needed_count,
        "recent": [{"digest": str(each.digest), "size": each.size} for each in report.recent],
    }
