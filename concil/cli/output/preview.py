"""Prints dry runs and deletions of a mirror."""

from __future__ import annotations

from collections.abc import Callable

from concil.cli.context import CommandContext
from concil.cli.output import results
from concil.cli.output.errors import describe_error, single_line
from concil.cli.output.reports import Reports
from concil.engine.engine import Engine
from concil.errors import ConcilError
from concil.oci.address import parse_address
from concil.plan.prune_ledger import PruneLedger
from concil.progress.events import State
from concil.runtime.quantities import count_of, format_size
from concil.transfer.mirror.prune import PruneOptions, PruneResult
from concil.transfer.mirror.report import MirrorReport, Outcome

_MAX_FAILURES = 5  # failed prunes that are printed one by one


def print_preview(outcome: Outcome) -> None:
    """Print the preview of one image; failures are printed at the end."""
    result, item = outcome.result, outcome.item
    if result is None:
        return
    names = f"{parse_address(item.source)} -> {parse_address(item.destination)}"
    if result.state is State.PRESENT:
        results.print_line(single_line(f"present {names}"))
        return
    size = f"{count_of(len(result.blobs), 'blob')}, {format_size(result.missing_bytes)}"
    results.print_line(single_line(f"copy {names} ({size})"))


def preview_summary(report: MirrorReport, pruned: int) -> str:
    """Return the summary line of a dry run."""
    return (
        f"{count_of(report.image_count, 'image')}: {report.copied_count} to copy "
        f"({format_size(report.missing_bytes)} at most), "
        f"{report.up_to_date_count} up to date, {len(report.failed)} failed; {pruned} to prune; "
        "nothing was changed"
    )


def prune_destinations(
    command: CommandContext, engine: Engine, ledger: PruneLedger, reports: Reports
) -> PruneTotals:
    """Prune the destinations of a plan, print what was removed, and return the totals."""
    arguments, totals = command.arguments, PruneTotals()
    for target in ledger.destinations():
        result = PruneResult(str(parse_address(target.address)), error=target.error)
        if target.error is None:
            options = PruneOptions(
                target.find_sources, target.pinned_digests, arguments.prune_all, arguments.dry_run
            )
            result = engine.prune(target.address, options)
        reports.add_pruned(result, dry_run=arguments.dry_run)
        print_line = results.print_line if arguments.dry_run else command.print_message
        _print_removals(result, print_line, dry_run=arguments.dry_run)
        totals.add(result)
    return totals


class PruneTotals:
    """Totals of all pruned repositories."""

    def __init__(self) -> None:
        """Start at zero."""
        self.removed_count = 0
        self.errors: list[ConcilError] = []  # without duplicates

    def add(self, result: PruneResult) -> None:
        """Add the result of a repository."""
        self.removed_count += len(result.removed)
        if result.error is not None and result.error not in self.errors:
            self.errors.append(result.error)

    def failure_lines(self) -> list[str]:
        """Return one line for each failure."""
        lines = [
            f"concil: prune failed: {describe_error(error)}"
            for error in self.errors[:_MAX_FAILURES]
        ]
        if self.errors[_MAX_FAILURES:]:
            lines.append(
                f"concil: prune failed: {len(self.errors) - _MAX_FAILURES} more, see --report FILE"
            )
        return [single_line(line) for line in lines]


def _print_removals(
    result: PruneResult, print_line: Callable[[str], object], *, dry_run: bool
) -> None:
    for removal in result.removals:
        name = f"{result.name}:{removal.tag}"
        if removal.kept_reason:
            print_line(single_line(f"kept {name}: {removal.kept_reason}"))
        else:
            print_line(single_line(f"{'prune' if dry_run else 'pruned'} {name} ({removal.digest})"))
