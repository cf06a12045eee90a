"""All that one run has measured, as text and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks import table, targets
from benchmarks.cases import slopes
from benchmarks.results import Result


@dataclass(frozen=True, slots=True)
class Report:
    """The cases, the slopes, and the programs that were measured."""

    programs: Sequence[str]  # a line each
    results: Sequence[Result]
    points: Sequence[slopes.Point] = ()

    def text(self, *, with_targets: bool = True) -> str:
        """Tables in Markdown."""
        parts = ["\n".join(self.programs)]
        if self.results:
            parts.append(table.text(self.results))
        counted = [result for result in self.results if result.instructions]
        parts += [table.instructions_text(result) for result in counted]
        if self.points:
            parts.append(slopes.text(self.points))
        verdicts = list(targets.judge(self.results))
        if verdicts and with_targets:
            parts.append(targets.text(verdicts))
        return "\n\n".join(parts)

    def document(self) -> dict[str, object]:
        """Everything, for JSON."""
        return {
            "programs": list(self.programs),
            "cases": [result.document() for result in self.results],
            "slopes": [point.document() for point in self.points],
            "targets": [verdict.document() for verdict in targets.judge(self.results)],
        }
