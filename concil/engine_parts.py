"""What the calls of an engine share: stores, workers and what moves blobs and images."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from functools import partial
from typing import Self

from concil.archives import ArchiveWriting
from concil.config import Timeouts, TransferConfig
from concil.errors import Cancelled, ConcilError
from concil.file_blobs import FileBlobs
from concil.opening import Opening, Sides
from concil.progress import Event, ProgressSink, State, emit
from concil.reference import Address, parse_address
from concil.registry.quirks import Knowledge
from concil.stores import Stores
from concil.transfer.image import Copier
from concil.transfer.job import ImageJob
from concil.transfer.journal import Journal
from concil.transfer.mirror import Manner, Mirror, MirrorItem
from concil.transfer.pool import WorkerPool
from concil.transfer.prune import Pruned, Pruner, Pruning
from concil.transfer.refusals import Refusals
from concil.transfer.run import Run
from concil.transfer.survey import Surveyor


@dataclass(frozen=True, slots=True)
class EngineParts:
    """The parts of one engine in one process; a forked child assembles its own."""

    run: Run
    stores: Stores
    opening: Opening
    pool: WorkerPool
    files: FileBlobs
    copier: Copier
    refusals: Refusals
    pruner: Pruner
    progress: ProgressSink | None

    @classmethod
    def assembled(
        cls,
        config: TransferConfig,
        journal: Journal,
        sides: Sides,
        timeouts: Timeouts | None,
        progress: ProgressSink | None,
    ) -> Self:
        """Make the parts; no thread is started and no connection opened yet."""
        run = Run(config, journal=journal)
        stores = Stores(
            config,
            timeouts=timeouts,
            cancel=run.cancel,
            knowledge=Knowledge(journal.known_of, journal.remember_host, run.bandwidth.of),
        )
        opening = Opening(stores, sides)
        pool = WorkerPool(run)
        return cls(
            run,
            stores,
            opening,
            pool,
            FileBlobs(pool, progress),
            Copier(pool, progress),
            Refusals(),
            Pruner(pool, opening.find),
            progress,
        )

    def prepare(self, item: MirrorItem, archives: ArchiveWriting | None = None) -> ImageJob:
        """Open the stores of an image; a failure is reported as that of any image."""
        try:
            begun = archives.begin(item.destination) if archives is not None else 0
            job = self.opening.image(item, archives)
            if archives is None:
                return job
            return replace(job, tell=partial(archives.tell, item.destination, begun))
        except ConcilError as error:
            names = (str(parse_address(item.source)), str(parse_address(item.destination)))
            emit(self.progress, Event("image", *names, State.FAILED, 0, None, str(error)))
            raise

    def mirror(self, manner: Manner, archives: ArchiveWriting, *, dry_run: bool) -> Mirror:
        """Make a mirror that copies its images, or only looks at them."""
        if dry_run:
            return Mirror(Surveyor(self.pool), self.opening.survey, self.run.cancel, manner)
        prepare = partial(self.prepare, archives=archives)
        return Mirror(self.copier, prepare, self.run.cancel, manner)

    def prune(self, address: Address, pruning: Pruning, writing: ArchiveWriting) -> Pruned:
        """Prune a repository or layout; of one that was not written to there is nothing to do."""
        store = self.opening.written(address)
        if store is None:
            return Pruned(str(address))
        pruned = self.pruner.prune(writing.deferring(store), pruning)
        try:
            writing.finish(strict=True)
        except Cancelled:
            raise
        except ConcilError as error:
            pruned.removals.clear()  # the index is as it was
            pruned.error = pruned.error or error
        return pruned

    def release(self, *, journal: bool) -> None:
        """Close connections and files.

        Args:
            journal: close the journal as well.
        """
        self.stores.close()
        self.run.journal.flush()
        if journal:
            self.run.journal.close()

    def stop(self) -> None:
        """End the workers without waiting for them."""
        self.run.cancel.set()
        self.run.abandon.set()
        self.pool.close(0)

    def abandon_after_fork(self) -> None:
        """Give up what belongs to the parent: called in a forked child."""
        for event in (self.run.cancel, self.run.abandon):
            # A thread of the parent may hold its lock. Should the thread that forked be in a call
            # of the engine, then the call ends in the child; nobody there would end it otherwise.
            threading.Event.__init__(event)
            event.set()
        self.pool.after_fork()
