"""What a mirror deletes, and what a dry run would do, in lines for people."""

from __future__ import annotations

from collections.abc import Callable

from concil.bars import sized
from concil.cli import results
from concil.cli.command import Command
from concil.cli.failures import cleaned, told
from concil.cli.reports import Reports
from concil.engine import Engine
from concil.errors import ConcilError
from concil.plan.prune import Ledger
from concil.progress import State
from concil.reference import parse_address
from concil.transfer.mirror import MirrorReport, Outcome
from concil.transfer.prune import Pruned, Pruning

_MOST = 5  # failures to prune that are told one by one


def put_outlook(outcome: Outcome) -> None:
    """Print what a dry run found out about one image; failures are told in the end."""
    result, item = outcome.result, outcome.item
    if result is None:
        return
    names = f"{parse_address(item.source)} -> {parse_address(item.destination)}"
    if result.state is State.PRESENT:
        results.put_line(cleaned(f"present {names}"))
        return
    size = f"{len(result.blobs)} blobs, {sized(result.missing)}"
    results.put_line(cleaned(f"copy {names} ({size})"))


def outlook(report: MirrorReport, pruned: int) -> str:
    """One line that sums up a dry run."""
    return (
        f"{report.images} images: {report.brought} to copy ({sized(report.missing)} at most), "
        f"{report.up_to_date} up to date, {len(report.failed)} failed; {pruned} to prune; "
        "nothing was changed"
    )


def prune(command: Command, engine: Engine, ledger: Ledger, reports: Reports) -> Tally:
    """Prune what a plan writes to, once all of it has been listed; tell what became of it."""
    arguments, tally = command.arguments, Tally()
    for target in ledger.targets():
        done = Pruned(str(parse_address(target.address)), error=target.problem)
        if target.problem is None:
            pruning = Pruning(target.judge, target.pinned, arguments.prune_all, arguments.dry_run)
            done = engine.prune(target.address, pruning)
        reports.add_pruned(done, dry_run=arguments.dry_run)
        put = results.put_line if arguments.dry_run else command.tell
        _tell(done, put, dry_run=arguments.dry_run)
        tally.add(done)
    return tally


class Tally:
    """What became of everything that was to be pruned."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.removed = 0
        self.errors: list[ConcilError] = []  # each once: of a host that deletes nothing one

    def add(self, done: Pruned) -> None:
        """Count a repository."""
        self.removed += len(done.removed)
        if done.error is not None and done.error not in self.errors:
            self.errors.append(done.error)

    def lines(self) -> list[str]:
        """The failures, one line each."""
        lines = [f"concil: prune failed: {told(error)}" for error in self.errors[:_MOST]]
        if self.errors[_MOST:]:
            lines.append(
                f"concil: prune failed: {len(self.errors) - _MOST} more, see --report FILE"
            )
        return [cleaned(line) for line in lines]


def _tell(done: Pruned, put: Callable[[str], object], *, dry_run: bool) -> None:
    for one in done.removals:
        name = f"{done.name}:{one.tag}"
        if one.kept:
            put(cleaned(f"kept {name}: {one.kept}"))
        else:
            put(cleaned(f"{'prune' if dry_run else 'pruned'} {name} ({one.digest})"))
