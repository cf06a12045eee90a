"""The objects that all calls of one engine share: stores, workers and copiers."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Self

from concil.config import Timeouts, TransferConfig
from concil.engine.file_blobs import FileBlobTransfers
from concil.engine.image_resolver import Endpoints, ImageResolver
from concil.engine.store_factory import StoreFactory
from concil.errors import Cancelled, ConcilError
from concil.oci.address import Address, parse_address
from concil.progress.events import Event, ProgressSink, emit, failure_state
from concil.registry.quirks import HostProfiles
from concil.runtime.cancellation import SupportsIsSet, call_scope
from concil.runtime.dataclass import dataclass
from concil.runtime.parent_process import ParentProcess
from concil.store.archive.pool import ArchiveWrites
from concil.store.cache.cached_source import CachedSource
from concil.transfer.context import TransferContext
from concil.transfer.image.copier import ImageCopier
from concil.transfer.image.job import ImageJob
from concil.transfer.journal import Journal
from concil.transfer.mirror.denied_hosts import DeniedHosts
from concil.transfer.mirror.prune import PruneOptions, Pruner, PruneResult
from concil.transfer.mirror.report import MirrorItem
from concil.transfer.worker_pool import WorkerPool

if TYPE_CHECKING:
    from concil.store.cache.blob_cache import BlobCache


@dataclass(frozen=True, slots=True)
class EngineComponents:
    """The parts of one engine in one process; a forked child assembles its own."""

    transfer_context: TransferContext
    store_factory: StoreFactory
    image_resolver: ImageResolver
    pool: WorkerPool
    file_blobs: FileBlobTransfers
    copier: ImageCopier
    denied_hosts: DeniedHosts
    pruner: Pruner
    progress: ProgressSink | None
    endpoints: Endpoints
    timeouts: Timeouts | None
    cache: BlobCache | None = None

    @classmethod
    def create(  # noqa: PLR0913, PLR0917 - the settings of an engine
        cls,
        config: TransferConfig,
        journal: Journal,
        endpoints: Endpoints,
        timeouts: Timeouts | None,
        progress: ProgressSink | None,
        parent: ParentProcess | None = None,
    ) -> Self:
        """Create the parts, without starting threads or opening connections.

        Args:
            parent: of a run that is split over several processes.
        """
        context = TransferContext(config, journal=journal, parent=parent)
        factory = StoreFactory(
            config,
            timeouts=timeouts,
            cancel=context.cancel,
            host_profiles=HostProfiles(
                journal.load_host_profile, journal.save_host_profile, context.bandwidth.limit_for
            ),
            parent=parent,
            progress=progress,
        )
        resolver = ImageResolver(factory, endpoints)
        pool = WorkerPool(context)
        return cls(
            context,
            factory,
            resolver,
            pool,
            FileBlobTransfers(pool, progress),
            ImageCopier(pool, progress),
            DeniedHosts(parent),
            Pruner(pool, resolver.find_manifest),
            progress,
            endpoints,
            timeouts,
            _open_cache(config),
        )

    @contextlib.contextmanager
    def archive_call(self, cancel: SupportsIsSet | None) -> Iterator[ArchiveWrites]:
        """Run one call, which ``cancel`` ends, and write its archives and layouts at its end."""
        with call_scope(cancel), self.store_factory.open_archive_writes(self.progress) as archives:
            yield archives

    def create_job(
        self,
        item: MirrorItem,
        archives: ArchiveWrites | None = None,
    ) -> ImageJob:
        """Open the stores of an image; a failure is reported as an image event."""
        try:
            if self.cache is not None:
                self.cache.check_destination(parse_address(item.destination))
            start_number = archives.begin(item.destination) if archives is not None else 0
            job = self.image_resolver.resolve(item, archives)
            if self.cache is not None and job.source.host:
                job = replace(job, source=CachedSource(job.source, self.cache))
            if archives is None:
                return job
            return replace(
                job,
                final_event_sink=partial(archives.emit_when_saved, item.destination, start_number),
            )
        except ConcilError as error:
            names = (str(parse_address(item.source)), str(parse_address(item.destination)))
            emit(
                self.progress, Event("image", *names, failure_state(error), 0, None, error.summary)
            )
            raise

    def prune(self, address: Address, pruning: PruneOptions, writing: ArchiveWrites) -> PruneResult:
        """Prune a repository or layout; does nothing for a layout that does not exist."""
        store = self.image_resolver.open_existing_destination(address)
        if store is None:
            return PruneResult(str(address))
        result = self.pruner.prune(writing.deferring(store), pruning)
        try:
            writing.commit(strict=True)
        except Cancelled:
            raise
        except ConcilError as error:
            result.removals.clear()  # the index was not changed
            result.error = result.error or error
        return result

    def close_resources(self, *, close_journal: bool) -> None:
        """Close connections and files.

        Args:
            close_journal: close the journal as well.
        """
        self.store_factory.close()
        if self.cache is not None:
            self.cache.close()
        self.transfer_context.journal.flush()
        if close_journal:
            self.transfer_context.journal.close()

    def stop_workers(self) -> None:
        """Stop the workers without waiting for them."""
        self.transfer_context.cancel.set()
        self.transfer_context.abandon.set()
        self.pool.close(0)

    def abandon_after_fork(self) -> None:
        """Discard the parent's threads and locks; called in a forked child."""
        for event in (self.transfer_context.cancel, self.transfer_context.abandon):
            # A thread of the parent may hold the event's lock. Setting the event also ends a call
            # of the engine from within which the process was forked.
            threading.Event.__init__(event)
            event.set()
        self.pool.after_fork()


def _open_cache(config: TransferConfig) -> BlobCache | None:
    """Open the cache of blobs, if there is one. Raises as `BlobCache`."""
    if config.cache is None:
        return None
    from concil.store.cache.blob_cache import BlobCache  # noqa: PLC0415  # rare

    return BlobCache.from_address(config.cache, config.cache_size)
