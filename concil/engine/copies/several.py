"""Copies one image to several destinations at the same time, reading its source once."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from concil.engine.components import EngineComponents
from concil.errors import Cancelled, ConcilError, UsageError, safe_repr
from concil.oci.address import LayoutAddress, parse_address
from concil.oci.reference import limits_by_api_host
from concil.runtime.cancellation import CancelScope
from concil.store.archive.pool import ArchiveWrites
from concil.transfer.context import TransferContext
from concil.transfer.fan_out.fan_out import FanOut
from concil.transfer.fan_out.lanes import Lanes
from concil.transfer.fan_out.shared_source import SharedAnswers, share_source
from concil.transfer.fan_out.spool import Spool
from concil.transfer.image.copier import ImageCopier
from concil.transfer.image.job import ImageJob
from concil.transfer.mirror.mirror import Mirror, MirrorOptions
from concil.transfer.mirror.report import MirrorItem, Outcome
from concil.transfer.worker_pool import WorkerPool


def copy_to_several(
    components: EngineComponents, items: Sequence[MirrorItem], scope: CancelScope
) -> tuple[Outcome, ...]:
    """Copy items with one source, all different, in the scope of a call.

    Returns:
        An outcome for each item, in their order.
    Raises:
        UsageError: the directory of the spool does not exist.
        Cancelled: the call was cancelled.
    """
    lanes: defaultdict[str, list[MirrorItem]] = defaultdict(list)
    for item in items:
        lanes[_lane_of(item)].append(item)
    context = components.transfer_context
    spool = Spool(_spool_directory(context), context.config.spool_size)
    with (
        contextlib.closing(spool),
        contextlib.closing(FanOut(lanes, spool, context.abandon)) as fan_out,
    ):
        copy = _SeveralCopies(components, lanes, fan_out)
        runs = [partial(copy.run_lane, lane) for lane in lanes]
        Lanes(scope).run(runs, has_threads=context.config.workers > 0)
    return tuple(copy.outcomes[item] for item in items)


class _SeveralCopies:
    """The lanes of one call: one for each registry and each local store. Any thread.

    Each lane has workers of its own, so that a slow destination never occupies those of others.
    """

    def __init__(
        self,
        components: EngineComponents,
        lanes: Mapping[str, Sequence[MirrorItem]],
        fan_out: FanOut,
    ) -> None:
        self.outcomes: dict[MirrorItem, Outcome] = {}
        self._components = components
        self._lanes = lanes
        self._fan_out = fan_out
        self._answers = SharedAnswers()

    def run_lane(self, lane: str) -> None:
        """Copy the items of one lane; a failure is an outcome."""
        components, items = self._components, self._lanes[lane]
        context = components.transfer_context
        pool = WorkerPool(context, workers=self._count_workers(context, items[0]))
        timeout: float | None = 0  # the call has waited for chunks in flight
        try:
            copier = ImageCopier(pool, components.progress)
            with components.archive_call(None) as archives:
                options = MirrorOptions(
                    self._record, keep_outcomes=False, pending_destinations=archives
                )
                create_job = partial(self._create_job, lane=lane, archives=archives)
                mirror = Mirror(copier, create_job, context.cancel, options)
                self._run_mirror(mirror, items, len(items) if pool.workers else 1)
            timeout = None
        finally:
            self._fan_out.finish(lane)
            pool.close(timeout)

    def _run_mirror(self, mirror: Mirror, items: Sequence[MirrorItem], coordinators: int) -> None:
        try:
            mirror.run(items, coordinators)
        except Cancelled:
            raise
        except ConcilError:  # an archive could not be completed
            if not all(item in self.outcomes for item in items):
                raise

    def _create_job(self, item: MirrorItem, lane: str, archives: ArchiveWrites) -> ImageJob:
        job = self._components.create_job(item, archives)
        if len(self._lanes) == 1 or not job.source.host:
            return job  # blobs are mounted, or a local file is read
        context = self._components.transfer_context
        return share_source(job, lane, self._fan_out, self._answers, context)

    def _record(self, outcome: Outcome) -> None:
        self.outcomes[outcome.item] = outcome

    def _count_workers(self, context: TransferContext, item: MirrorItem) -> int:
        """Return the workers of one lane: an equal share of those of the run, at least one."""
        config = context.config
        if not config.workers:
            return 0
        source = parse_address(item.source)
        host = "" if isinstance(source, LayoutAddress) else source.api_host
        limits = limits_by_api_host(config.host_limits).get(host)
        jobs = config.jobs_per_host if limits is None or limits.jobs is None else limits.jobs
        return -(-min(config.workers, jobs) // len(self._lanes))


def _lane_of(item: MirrorItem) -> str:
    """Return the lane of a destination: its registry, or the path of a local store."""
    address = parse_address(item.destination)
    if isinstance(address, LayoutAddress):
        return f"{address.scheme}:{os.path.realpath(address.path)}"
    return address.api_host


def _spool_directory(context: TransferContext) -> Path:
    """Return the directory of the spool: that of the journal, unless another one is set."""
    journal, directory = context.journal, context.config.spool_directory
    if directory is None:
        has_directory = journal.path is not None and journal.is_usable
        return (
            journal.path.parent if has_directory and journal.path else Path(tempfile.gettempdir())
        )
    path = Path(directory)
    if not path.is_dir():
        raise UsageError(
            f"the directory of the spool, {safe_repr(str(path))}, does not exist",
            remedy="create it, or give another one",
        )
    return path
