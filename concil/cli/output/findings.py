"""Formats the results of checks: findings, and the summary."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from concil.cli.output.errors import single_line
from concil.runtime.quantities import format_size
from concil.transfer.findings import Condition, Finding
from concil.transfer.mirror.report import MirrorReport


def finding_lines(name: str, findings: Iterable[Finding]) -> Iterator[str]:
    """Yield a line for each finding of an image."""
    for finding in findings:
        outcome = f"repaired ({finding.condition})" if finding.is_repaired else finding.condition
        subject = f"{finding.subject}: " if finding.subject else ""
        remedy = f"; {finding.remedy}" if finding.remedy else ""
        yield single_line(f"{outcome} {name}: {subject}{finding.detail}{remedy}")


def check_summary(report: MirrorReport, seconds: float) -> str:
    """Return the summary line of a check."""
    counts = report.count_by_condition
    parts = [f"{counts[Condition.OK]} ok"]
    parts += [f"{counts[name]} {name}" for name in Condition if name is not Condition.OK]
    parts.append(f"{len(report.failed) - len(report.skipped)} failed")
    parts += [f"{len(report.skipped)} not tried"] if report.skipped else []
    noun = "image" if report.image_count == 1 else "images"
    line = f"{report.image_count} {noun}: {', '.join(parts)}"
    repaired_count = counts[Condition.OK] - report.up_to_date_count
    if repaired_count:
        line += f"; {repaired_count} repaired"
    if report.bytes_verified or report.bytes_verified_before:
        line += f"; {format_size(report.bytes_verified)} read and verified"
    if report.bytes_verified_before:
        line += f", {format_size(report.bytes_verified_before)} before the check was interrupted"
    return f"{line}; {seconds:.1f} s"
