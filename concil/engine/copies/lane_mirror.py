"""LaneMirror: a mirror whose images go to several destinations, each read once."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from concil.engine.components import EngineComponents
from concil.engine.copies.item_queues import MAIN_LANE, ItemQueues
from concil.errors import Cancelled, ConcilError, UsageError, safe_repr
from concil.oci.address import LayoutAddress, parse_address
from concil.oci.reference import limits_by_api_host
from concil.runtime.cancellation import CancelScope
from concil.store.archive.pool import ArchiveWrites
from concil.store.cache.cached_source import CachedSource
from concil.transfer.context import TransferContext
from concil.transfer.fan_out.fan_out import FanOut
from concil.transfer.fan_out.lanes import Lanes
from concil.transfer.fan_out.shared_image import SharedImage
from concil.transfer.fan_out.shared_source import SharedSource, share_source
from concil.transfer.fan_out.spool import Spool
from concil.transfer.image.copier import ImageCopier
from concil.transfer.image.job import ImageJob
from concil.transfer.image.result import ImageResult
from concil.transfer.mirror.mirror import Mirror, MirrorOptions, SupportsCopy
from concil.transfer.mirror.report import MirrorItem, MirrorReport, Outcome
from concil.transfer.worker_pool import WorkerPool

if TYPE_CHECKING:
    from concil.store.cache.blob_cache import BlobCache

logger = logging.getLogger(__name__)

_MAX_LANES = 32  # each has threads of its own
_KEPT_BLOBS = "concil-spool"  # in a directory that is given for the spool


class _Group:
    """An image with several destinations, and what each lane has yet to copy of it."""

    def __init__(self, image: SharedImage, lanes: Sequence[str]) -> None:
        self.image = image
        self.item_counts = Counter(lanes)  # items that are not copied


class _LaneCopier:
    """Copies images of one lane. Any thread."""

    def __init__(self, copier: SupportsCopy) -> None:
        self._copier = copier

    def copy(self, job: ImageJob) -> ImageResult:
        """Copy an image; its source is read no more, even if its archive is not complete yet."""
        try:
            return self._copier.copy(job)
        finally:
            if isinstance(job.source, SharedSource):
                job.source.finish()


class LaneMirror:
    """Copies images to several destinations at once. One thread calls `run`.

    A lane is one registry or one local store that is among several destinations of an image. Each
    has workers, coordinators and a queue of its own, so that a slow destination never occupies
    those of others. Images with a single destination, and lanes that get no thread, use the
    workers of the engine: the main lane.
    """

    def __init__(
        self, components: EngineComponents, options: MirrorOptions, scope: CancelScope
    ) -> None:
        """Prepare a mirror.

        Args:
            options: of the whole mirror.
            scope: the call that it belongs to.
        Raises:
            UsageError: the directory of the spool does not exist.
        """
        self._components = components
        self._options = options
        self._scope = scope
        self._queues: ItemQueues
        context = components.transfer_context
        self._spool = Spool(_spool_directory(context), context.config.spool_size)
        self._fan_out = FanOut(self._spool, context.abandon)
        self._kept_blobs = None if components.cache is not None else _open_kept_blobs(context)
        self._lanes = Lanes(scope)
        self._lock = threading.Lock()  # guards the fields below
        self._lane_names: dict[str, str] = {}  # lane by destination, for those that are in use
        # The group and the destination's name of each item that is not copied.
        self._groups: dict[MirrorItem, tuple[_Group, str]] = {}
        self._report = MirrorReport()
        self._late_error: ConcilError | None = None  # of an archive
        self._is_complete = False  # all images are in place
        # One outcome at a time; never held together with the other lock.
        self._outcome_lock = threading.Lock()

    def run(self, items: Iterable[MirrorItem]) -> MirrorReport:
        """Copy every image; a failure is an entry in the report. Raises as `Mirror.run`."""
        cancel = self._components.transfer_context.cancel
        self._queues = ItemQueues(iter(items), self._assign, cancel)
        with contextlib.ExitStack() as stack:
            stack.callback(self._close_kept_blobs)
            stack.callback(self._spool.close)
            stack.callback(self._fan_out.close)
            try:
                self._run_lane(MAIN_LANE, self._components.pool, self._components.copier)
            except Cancelled:
                self._lanes.wait()  # raises the error that has cancelled the call, if there is one
                raise
            except BaseException:
                self._scope.cancel()
                self._lanes.join()
                raise
            self._lanes.wait()
            self._is_complete = not self._report.failed
        if self._late_error is not None:
            raise self._late_error
        return self._report

    def _close_kept_blobs(self) -> None:
        """Keep what was read for the next run, unless all images are in place."""
        if self._kept_blobs is not None:
            self._kept_blobs.close()
            if self._is_complete:
                self._kept_blobs.remove_all()

    # Lanes -------------------------------------------------------------------------

    def _assign(self, item: MirrorItem) -> list[tuple[str, MirrorItem]]:
        """Return the lane of each destination of an image; new lanes are started."""
        items = list(dict.fromkeys(item.split()))
        names = [_name_of_destination(each) for each in items]
        is_fan_out = len(set(names)) > 1
        if is_fan_out:
            group = _Group(self._fan_out.add_image(names), names)
            with self._lock:
                self._groups |= {
                    each: (group, name) for each, name in zip(items, names, strict=True)
                }
        share = len(set(names))
        return [
            (self._find_lane(name, each, share), each)
            for each, name in zip(items, names, strict=True)
        ]

    def _find_lane(self, name: str, item: MirrorItem, share: int) -> str:
        """Return the lane of a destination, which stays the same during a run.

        Args:
            share: lanes that copy the image; 1: no lane is started.
        """
        if not name:
            return MAIN_LANE
        lane = self._lane_names.get(name)
        if lane is not None:
            return lane
        lane = MAIN_LANE
        config = self._components.transfer_context.config
        count = sum(1 for each in self._lane_names.values() if each != MAIN_LANE)
        if share > 1 and config.workers and count < _MAX_LANES:
            share = max(share, count + 1)
            pool = WorkerPool(self._components.transfer_context, self._count_workers(item, share))
            coordinators = -(-config.concurrent_images // share)
            if self._lanes.start(partial(self._run_own_lane, name, pool, coordinators)):
                lane = name
        elif count == _MAX_LANES and share > 1:
            logger.warning("%s: one of more than %d destinations at once", name, _MAX_LANES)
        self._lane_names[name] = lane
        return lane

    def _run_own_lane(self, lane: str, pool: WorkerPool, coordinators: int) -> None:
        timeout: float | None = 0  # the call has waited for chunks in flight
        try:
            self._run_lane(lane, pool, ImageCopier(pool, self._components.progress), coordinators)
            timeout = None
        finally:
            pool.close(timeout)

    def _run_lane(
        self, lane: str, pool: WorkerPool, copier: ImageCopier, coordinators: int | None = None
    ) -> None:
        """Copy the images of one lane."""
        components = self._components
        context = components.transfer_context
        if coordinators is None:
            coordinators = context.config.concurrent_images
        with components.archive_call(None) as archives:
            options = replace(
                self._options,
                on_outcome=self._record,
                keep_outcomes=False,
                fail_fast=False,
                pending_destinations=archives,
            )
            create_job = partial(self._create_job, archives=archives)
            mirror = Mirror(_LaneCopier(copier), create_job, context.cancel, options)
            try:
                mirror.run(self._queues.items_of(lane), coordinators if pool.workers else 1)
            except Cancelled:
                raise
            except ConcilError as error:
                if error is not mirror.commit_error:
                    raise
                self._late_error = self._late_error or error  # the other lanes go on

    # Images ------------------------------------------------------------------------

    def _create_job(self, item: MirrorItem, archives: ArchiveWrites) -> ImageJob:
        try:
            job = self._components.create_job(item, archives)
        except ConcilError:
            self._finish(item)
            raise
        if not job.source.host:
            return job  # a local file is read
        if self._kept_blobs is not None:
            job = replace(job, source=CachedSource(job.source, self._kept_blobs))
        with self._lock:
            group, name = self._groups.get(item, (None, ""))
        if group is None:
            return job  # it has one destination
        context = self._components.transfer_context
        finish = partial(self._finish, item)
        return share_source(job, name, self._fan_out, group.image, context, finish)

    def _record(self, outcome: Outcome) -> None:
        """Record an outcome of any lane."""
        self._finish(outcome.item)
        options = self._options
        with self._outcome_lock:
            self._report.add(outcome, keep_outcome=options.keep_outcomes)
            if options.fail_fast and outcome.error is not None:
                self._queues.stop()
            if options.on_outcome is not None:
                options.on_outcome(outcome)

    def _finish(self, item: MirrorItem) -> None:
        """Record that a lane reads an image no more."""
        with self._lock:
            group, name = self._groups.pop(item, (None, ""))
            if group is None:
                return
            group.item_counts[name] -= 1
            is_last = not group.item_counts[name]
        if is_last:
            self._fan_out.finish(group.image, name)

    def _count_workers(self, item: MirrorItem, share: int) -> int:
        """Return the workers of a lane: an equal share of those of the run, at least one."""
        config = self._components.transfer_context.config
        source = parse_address(item.source)
        host = "" if isinstance(source, LayoutAddress) else source.api_host
        limits = limits_by_api_host(config.host_limits).get(host)
        jobs = config.jobs_per_host if limits is None or limits.jobs is None else limits.jobs
        return -(-min(config.workers, jobs) // share)


def _name_of_destination(item: MirrorItem) -> str:
    """Return the registry of a destination, or the path of a local store; "": it is invalid."""
    try:
        address = parse_address(item.destination)
    except ConcilError:
        return ""
    if isinstance(address, LayoutAddress):
        return f"{address.scheme}:{os.path.realpath(address.path)}"
    return address.api_host


def _open_kept_blobs(context: TransferContext) -> BlobCache | None:
    """Open what remains in a given directory of the spool after the process was killed."""
    if context.config.spool_directory is None or not context.config.spool_size:
        return None
    from concil.store.cache.blob_cache import BlobCache  # noqa: PLC0415  # rare

    return BlobCache(_spool_directory(context) / _KEPT_BLOBS, context.config.spool_size)


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
