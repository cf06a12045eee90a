"""What the runs of a case come to: medians, the best peer, ratios; JSON for programs."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from benchmarks.measure import MIB, Measured
from benchmarks.programs import CONCIL, FLOORS


def is_ours(program: str) -> bool:
    return program.split(maxsplit=1)[0] == CONCIL


def is_floor(program: str) -> bool:
    """Whether a program only sends or hashes bytes, or is a bare interpreter."""
    return program.split(maxsplit=1)[0] in (*FLOORS, "python")


@dataclass(frozen=True, slots=True)
class Result:
    """The runs of one case, in rounds: the runs of a round share their disturbances."""

    case: str
    size: int  # bytes
    runs: Mapping[str, tuple[Measured, ...]]  # by program, one of each round
    requests: Mapping[str, int] = field(default_factory=dict)  # by program, where counted
    instructions: Mapping[str, int] = field(default_factory=dict)  # likewise, an exchange

    def seconds(self, program: str) -> float:
        return statistics.median(run.seconds for run in self.runs[program])

    def cpu(self, program: str) -> float:
        """CPU seconds of the client."""
        return statistics.median(run.cpu for run in self.runs[program])

    def served(self, program: str) -> float:
        """CPU seconds of the servers meanwhile."""
        return statistics.median(run.served for run in self.runs[program])

    def rss(self, program: str) -> int:
        """Bytes, the highest peak."""
        return max(run.rss for run in self.runs[program])

    def rate(self, program: str) -> float:
        """MiB a second."""
        return self.size / MIB / self.seconds(program)

    def peers(self, among: Collection[str] = ()) -> list[str]:
        """The peers that were measured, or those of them that are in ``among``."""
        names = (name for name in self.runs if not is_ours(name) and not is_floor(name))
        return [name for name in names if not among or name in among]

    def best_peer(self, among: Collection[str] = ()) -> str | None:
        """The fastest of the peers."""
        return min(self.peers(among), key=self.seconds, default=None)

    def ratio(self, program: str, other: str) -> float:
        """One program's time over another's: the median over the rounds."""
        pairs = zip(self.runs[program], self.runs[other], strict=True)
        return statistics.median(ours.seconds / theirs.seconds for ours, theirs in pairs)

    def floor_ratio(self, program: str) -> float | None:
        """A program's time over the slower of the floors: none of them can be left out."""
        floors = [name for name in self.runs if name in FLOORS]
        slowest = max(floors, key=self.seconds, default=None)
        return self.ratio(program, slowest) if slowest else None

    def document(self) -> dict[str, object]:
        """Everything, for JSON."""
        best = self.best_peer()
        return {
            "case": self.case,
            "bytes": self.size,
            "best_peer": best,
            "programs": [
                {
                    "program": program,
                    "seconds": [run.seconds for run in runs],
                    "cpu_seconds": [run.cpu for run in runs],
                    "peak_rss_bytes": [run.rss for run in runs],
                    "servers_cpu_seconds": [run.served for run in runs],
                    "requests": self.requests.get(program),
                    "instructions": self.instructions.get(program),
                    "ratio_to_best_peer": self.ratio(program, best) if best else None,
                    "ratio_to_floor": self.floor_ratio(program),
                }
                for program, runs in self.runs.items()
            ],
        }
