"""Settings of the processes of a mirror, and how the limits of a run are divided among them."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import field, replace
from pathlib import Path
from typing import Literal, TypeAlias

from concil.config import HostLimits, Timeouts, TransferConfig
from concil.engine.image_resolver import Endpoints
from concil.errors import ConcilError, UsageError
from concil.oci.address import LAYOUT, LayoutAddress, parse_address
from concil.runtime import arguments
from concil.runtime.dataclass import dataclass
from concil.transfer.mirror.report import MirrorItem

_CGROUP_LIMIT = Path("/sys/fs/cgroup/cpu.max")  # of the container; version 2

ProcessCount: TypeAlias = int | Literal["auto"]


@dataclass(frozen=True, slots=True)
class ProcessSettings:
    """What one process of a mirror needs. It is sent through a pipe, with its passwords."""

    name: str  # for the progress display
    config: TransferConfig  # the share of this process
    endpoints: Endpoints = field(repr=False)
    timeouts: Timeouts | None
    journal: Path | None
    log_level: int
    has_progress: bool  # somebody receives progress events


def count_processes(processes: ProcessCount, config: TransferConfig) -> int:
    """Return how many processes a mirror may use.

    Each needs a job of the run and of every host whose jobs are limited.

    Raises:
        UsageError: the number is less than 1.
        TypeError: it is neither a number nor "auto".
    """
    if processes == "auto":
        count = count_cores()
    else:
        count = arguments.check_instance("processes", processes, int, 'an int or "auto"')
        if isinstance(processes, bool) or count < 1:
            raise UsageError('the number of processes must be at least 1, or "auto"')
    host_jobs = [limits.jobs for limits in config.host_limits.values() if limits.jobs is not None]
    return max(1, min(count, config.workers, *host_jobs))


def count_cores() -> int:
    """Return the number of cores that this process may use."""
    if sys.platform == "linux":
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count() or 1
    try:
        quota, period = _CGROUP_LIMIT.read_text(encoding="ascii").split()
        return min(count, max(1, int(quota) // int(period)))
    except (OSError, ValueError):  # no cgroup, or the quota is "max"
        return count


def divide_config(config: TransferConfig, count: int, index: int) -> TransferConfig:
    """Return the share of process ``index`` of ``count`` in the limits of a run.

    Rates are not divided: the parent keeps them for all processes.
    """

    def share(total: int) -> int:
        return max(1, total // count + (index < total % count))

    def host_share(limits: HostLimits) -> HostLimits:
        return limits if limits.jobs is None else replace(limits, jobs=share(limits.jobs))

    host_limits: Mapping[str, HostLimits] = {
        host: host_share(limits) for host, limits in config.host_limits.items()
    }
    return replace(
        config,
        workers=share(config.workers),
        concurrent_images=share(config.concurrent_images),
        jobs_per_host=share(config.jobs_per_host),
        host_limits=host_limits,
    )


def check_destination(item: MirrorItem) -> None:
    """Check that several processes can write to the destination of an image.

    Raises:
        UsageError: it is an archive, which each process would write as a whole, or there are
            several destinations.
    """
    if item.more_destinations:
        raise UsageError(
            "only one process can copy to several destinations, because it reads the source once",
            remedy="use one process, or mirror to each destination by itself",
        )
    try:
        address = parse_address(item.destination)
    except ConcilError:
        return  # it becomes the outcome of its image
    if isinstance(address, LayoutAddress) and address.scheme != LAYOUT:
        raise UsageError(
            f"{address}: only one process can write an archive",
            remedy="use one process, or mirror to a registry or an oci:DIR",
        )
