"""Formats the outcome of copies and mirrors: summary, failures and exit code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from concil.cli.output.errors import (
    DONE,
    FAILED,
    PARTIAL_FAILURE,
    describe_error,
    exit_code,
    single_line,
)
from concil.errors import ConcilError, NotTried
from concil.oci.address import (
    parse_address,
)
from concil.plan.expand import PlanExpansion
from concil.progress.events import State
from concil.runtime.quantities import count_of, format_size
from concil.transfer.mirror.report import BlobTotals, MirrorItem, MirrorReport, Outcome

__all__ = [
    "describe_blobs",
    "failure_line",
    "failure_lines",
    "listing_failure_lines",
    "mirror_exit_code",
    "summary",
]


def failure_lines(report: MirrorReport, probes: Sequence[MirrorItem]) -> Iterator[str]:
    """Yield a line for each failed image, in the order of the plan as far as it is known."""
    order = {item: position for position, item in enumerate(probes)}
    for outcome in sorted(report.failed, key=lambda o: order.get(o.item, len(order))):
        if not isinstance(outcome.error, NotTried):
            yield failure_line(outcome)
    for error, count in Counter(o.error for o in report.skipped if o.error).items():
        yield single_line(
            f"concil: failed: {_were(count, 'more image')} not tried: {describe_error(error)}"
        )


def listing_failure_lines(expansion: PlanExpansion) -> Iterator[str]:
    """Yield a line for each repository that could not be listed."""
    for rule, error in expansion.failures:
        if not isinstance(error, NotTried):
            yield single_line(f"concil: failed: {rule.location}: {describe_error(error)}")
    untried = Counter(error for _, error in expansion.failures if isinstance(error, NotTried))
    for error, count in untried.items():
        yield single_line(
            f"concil: failed: {_were(count, 'more repository')} not tried: {describe_error(error)}"
        )


def summary(report: MirrorReport, seconds: float, pruned: int = 0) -> str:
    """Return the summary line of a mirror."""
    untried = f", {len(report.skipped)} not tried" if report.skipped else ""
    return (
        f"{count_of(report.image_count, 'image')}: {report.copied_count} copied, "
        f"{report.up_to_date_count} up to date, "
        f"{len(report.failed) - len(report.skipped)} failed{untried}; "
        f"{describe_blobs(report.blob_totals)}; "
        f"{f'{pruned} pruned; ' if pruned else ''}{seconds:.1f} s"
    )


def _were(count: int, noun: str) -> str:
    """Return a count with its noun and verb: ``1 more image was``."""
    return f"{count_of(count, noun)} {'was' if count == 1 else 'were'}"


def failure_line(outcome: Outcome) -> str:
    """Return the line of one failed image."""
    item = outcome.item
    names = f"{parse_address(item.source)} -> {parse_address(item.destination)}"
    if item.source == item.destination:  # of a check without a source
        names = str(parse_address(item.source))
    cause = describe_error(outcome.error) if outcome.error else ""
    return single_line(f"concil: failed: {names}: {cause}")


def mirror_exit_code(report: MirrorReport, listing_errors: Sequence[ConcilError]) -> int:
    """Return DONE, PARTIAL_FAILURE, or the code that all errors share if every image failed.

    Args:
        listing_errors: errors of repositories that could not be listed.
    """
    errors = [*(o.error for o in report.failed if o.error is not None), *listing_errors]
    if not errors:
        return DONE
    if len(report.failed) < report.image_count:
        return PARTIAL_FAILURE
    codes = {exit_code(error) for error in errors}
    return codes.pop() if len(codes) == 1 else FAILED


def describe_blobs(totals: BlobTotals) -> str:
    """Return how many blobs were sent, mounted or present, in words."""
    count = totals.count_by_state()
    parts = [f"{count_of(count[State.DONE], 'blob')} sent ({format_size(totals.bytes_sent)})"]
    if count[State.MOUNTED]:
        parts.append(f"{count[State.MOUNTED]} mounted")
    if count[State.PRESENT]:
        parts.append(f"{count[State.PRESENT]} already present")
    return ", ".join(parts)
