"""Formats the outcome of copies and mirrors: summary and exit code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from concil.cli.output.errors import (
    DONE,
    FAILED,
    PARTIAL_FAILURE,
    exit_code,
)
from concil.errors import ConcilError
from concil.progress.events import State
from concil.runtime.quantities import count_of, format_size
from concil.transfer.mirror.report import BlobTotals, MirrorReport

__all__ = [
    "describe_blobs",
    "destination_lines",
    "mirror_exit_code",
    "summary",
]


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


def destination_lines(report: MirrorReport) -> list[str]:
    """Return a line for each destination, if there are several."""
    if not report.destination_totals.are_several:
        return []
    return [f"  {name}: {_describe_outcomes(count)}" for name, count in report.destinations.items()]


def _describe_outcomes(count: Counter[str]) -> str:
    parts = [f"{count['copied']} copied"]
    if count["would_copy"]:
        parts = [f"{count['would_copy']} to copy"]
    parts.append(f"{count['present']} up to date")
    parts.append(f"{count['failed']} failed")
    if count["not_tried"]:
        parts.append(f"{count['not_tried']} not tried")
    return f"{', '.join(parts)}; {format_size(count['bytes_sent'])} sent"


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
