"""What one image costs, as measured by the other benchmarks."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ImageCost:
    """What an image costs the worker that copies it, and the registries."""

    requests: float  # to both registries
    round_trips: int  # requests that wait for each other
    cpu: float  # seconds of the worker, whose engine has one interpreter


# benchmarks.slopes and the case `mirror`: a new image with three layers of its own.
FIRST = ImageCost(requests=15.4, round_trips=7, cpu=0.0076)
# The case `mirror-again`: a HEAD at the source and one at the destination.
AGAIN = ImageCost(requests=2, round_trips=2, cpu=0.0011)


@dataclass(frozen=True, slots=True)
class Cluster:
    """What the simulated machines have in common. Times in seconds."""

    threads: int = 16  # of each worker: images at the same time
    round_trip: float = 0.02  # of a request, the registry's own time included
    registry_rate: float = 20_000.0  # requests a second that both registries answer together
    page: int = 1000  # names of a page of a list
    # Of the scheduler and the client of distributed 2026.1 for a task that does nothing, on one
    # core, measured with a local cluster.
    scheduler_cpu: float = 0.0006  # a task, in the scheduler's process
    submit_cpu: float = 0.00015  # a task, in the driver's
