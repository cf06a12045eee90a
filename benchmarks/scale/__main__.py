"""`python -m benchmarks.scale`: a million images on clusters of 1 to 64 workers, simulated.

The plan is expanded and its images are submitted by the code that does this in a real mirror; its
CPU time is measured and charged to the simulated clock. What the workers, the scheduler and the
registries do is calculated from the costs of an image that the other benchmarks have measured.
Each run is a process of its own, whose peak memory is that of the driver.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.scale.costs import AGAIN, FIRST, Cluster
from benchmarks.scale.simulation import SimulatedCluster
from benchmarks.table import markdown
from concil.cluster import driver
from concil.plan.expand import PlanExpansion
from concil.plan.rule import NameFilter, Rule
from concil.plan.tag_filter import TagFilter
from concil.plan.target_names import DestinationPrefix
from concil.transfer.mirror.report import MirrorItem, MirrorReport, Outcome

WORKERS = (1, 4, 16, 64)
_COSTS = {"first": FIRST, "again": AGAIN}


@dataclass(frozen=True, slots=True)
class Result:
    """One simulated mirror."""

    kind: str  # first or again
    workers: int
    images: int
    seconds: float  # of the simulated clock
    requests: float
    rss: int  # bytes, the peak of the driver
    largest_queues: dict[str, int]
    busy: dict[str, float]  # share of the time that each part was busy

    def row(self) -> tuple[str, ...]:
        """Return the columns of the table."""
        queue, length = max(self.largest_queues.items(), key=lambda item: item[1])
        bottleneck, share = max(self.busy.items(), key=lambda item: item[1])
        if share < 0.5:
            bottleneck = "round trips"
        return (
            self.kind,
            str(self.workers),
            f"{self.seconds / 60:.1f}",
            f"{self.images / self.seconds:,.0f}",
            f"{self.requests / 1e6:.2f}",
            f"{self.rss / 1024 / 1024:.0f}",
            f"{length:,} {queue}",
            ", ".join(f"{name} {share:.0%}" for name, share in self.busy.items()),
            bottleneck,
        )


def simulate(kind: str, workers: int, repositories: int, tags: int) -> Result:
    """Mirror a registry on a simulated cluster."""
    cluster = Cluster()
    simulated = SimulatedCluster(workers, _COSTS[kind], cluster)
    names = [f"team{number % 100}/app{number}" for number in range(repositories)]
    tag_names = [f"v1.{number}" for number in range(tags)]
    rule = Rule(
        "simulated:1",
        "http://source.example",
        tag_filter=TagFilter(),
        repository_filter=NameFilter(),
    )
    expansion = PlanExpansion(
        (rule,),
        lambda _repository: simulated.list_pages(tag_names),
        [DestinationPrefix("http://destination.example/mirror")],
        list_repositories=lambda _registry: simulated.list_pages(names),
    )
    report = MirrorReport()
    for outcome in _outcomes(simulated, iter(expansion)):
        report.add(outcome, keep_outcome=False)
    assert (report.image_count, report.failed) == (repositories * tags, []), report
    seconds = simulated.now
    return Result(
        kind,
        workers,
        report.image_count,
        seconds,
        simulated.requests,
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        dict(simulated.largest),
        {
            "driver": simulated.driver.busy / seconds,
            "scheduler": simulated.scheduler.busy / seconds,
            "workers": sum(each.busy for each in simulated.workers) / workers / seconds,
            "registries": simulated.registries.busy / seconds,
        },
    )


def _outcomes(simulated: SimulatedCluster, items: Iterator[MirrorItem]) -> Iterator[Outcome]:
    run = driver.MirrorRun("run", simulated, threading.Event(), 60.0, lambda item: item)
    run.done_futures = simulated
    return run.outcomes(items, fail_fast=False)


def text(results: Sequence[Result]) -> str:
    """Return the table."""
    headings = (
        "run",
        "workers",
        "minutes",
        "images/s",
        "million requests",
        "driver RSS MiB",
        "longest queue",
        "busy",
        "limit",
    )
    return markdown(headings, [each.row() for each in results], left=1)


def main(arguments: list[str] | None = None) -> int:
    """Simulate each number of workers in a process of its own, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--repositories", type=int, default=10_000)
    parser.add_argument("--tags", type=int, default=100, help="of each repository")
    parser.add_argument("--workers", type=int, action="append", help="may be repeated")
    parser.add_argument("--only", choices=sorted(_COSTS), help="one simulation; prints JSON")
    options = parser.parse_args(arguments)
    counts = options.workers or WORKERS
    if options.only:
        result = simulate(options.only, counts[0], options.repositories, options.tags)
        print(json.dumps([getattr(result, name) for name in Result.__slots__]))
        return 0
    results = []
    for kind in _COSTS:
        for workers in counts:
            results.append(_simulate_in_process(kind, workers, options))
            print(f"{kind}, {workers} workers: {results[-1].seconds:.0f} s", file=sys.stderr)
    print(text(results))
    return 0


def _simulate_in_process(kind: str, workers: int, options: argparse.Namespace) -> Result:
    argv = [sys.executable, "-m", "benchmarks.scale", f"--only={kind}", f"--workers={workers}"]
    argv += [f"--repositories={options.repositories}", f"--tags={options.tags}"]
    done = subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=True)
    return Result(*json.loads(done.stdout))


if __name__ == "__main__":
    sys.exit(main())
