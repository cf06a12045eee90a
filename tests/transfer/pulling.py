"""One blob on its way out of a watched store into a directory."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

from concil.config import TransferConfig
from concil.store.partial import PartialFile
from concil.transfer.fetch import Fetch, spread
from concil.transfer.pool import Rank, WorkerPool
from concil.transfer.run import Run
from tests.store.contract import Blob
from tests.transfer.world import CONFIG, RANGE, WAIT, Sink, WatchedStore, meter_of

BLOB = Blob.random(7 * RANGE + 123)
SIZE = len(BLOB.content)
# One thread asks for ranges too, as long as helpers could come.
ALONE = replace(CONFIG, helpers=0)


class Pull:
    """One fetch into a directory."""

    def __init__(self, store: WatchedStore, directory: Path, blob: Blob = BLOB) -> None:
        self.store = store
        self.blob = blob
        self.directory = directory
        self.final = directory / "final"
        self.sink = Sink()
        self.writer = self._writer()

    def _writer(self) -> PartialFile:
        digest = self.blob.descriptor.digest
        partial = self.directory / "x.partial"
        return PartialFile(self.final, digest, len(self.blob.content), partial=partial)

    def fetch(self, run: Run) -> Fetch:
        """Return the fetch, not begun."""
        meter = meter_of(self.blob.descriptor, self.sink)
        return Fetch(self.store, self.blob.descriptor, self.writer, meter, run)

    def alone(self, config: TransferConfig = CONFIG) -> Future[None]:
        """Fetch in this thread; return the outcome."""
        fetch = self.fetch(Run(config))
        fetch.run()
        assert fetch.outcome.done()
        return fetch.outcome

    def on(self, pool: WorkerPool) -> Future[None]:
        """Fetch on a pool; return the outcome."""
        fetch = self.fetch(pool.run)

        def help_wanted(job: object) -> None:
            if pool.workers:
                pool.submit(fetch.help, rank=Rank.HELPER)

        pool.submit(lambda: spread(fetch, help_wanted))
        fetch.outcome.exception(WAIT)
        return fetch.outcome

    def assert_right(self) -> None:
        """The blob is there, and nothing else."""
        assert self.final.read_bytes() == self.blob.content
        assert [path.name for path in self.directory.iterdir()] == ["final"]
