"""One blob on its way out of a watched store into a directory."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

from concil.config import TransferConfig
from concil.fs.partial_file import PartialFile
from concil.oci.digest import Digest
from concil.transfer.blob.fetch import BlobDownload, run_with_helpers
from concil.transfer.blob.helper_trial import HelperTrial
from concil.transfer.blob.source import BlobSource
from concil.transfer.context import TransferContext
from concil.transfer.worker_pool import Priority, WorkerPool
from tests.support.store_contract import Blob
from tests.transfer.transfer_setup import CONFIG, RANGE, WAIT, Sink, WatchedStore, meter_of

BLOB = Blob.random(7 * RANGE + 123)
SIZE = len(BLOB.content)
# One thread asks for ranges too, as long as helpers could come.
ALONE = replace(CONFIG, helpers=0)


class HelpersAtOnce(HelperTrial):
    """Wants every helper at the first bytes, and fixed ranges, so that tests need no clock."""

    def __init__(self, max_helpers: int) -> None:
        super().__init__(max_helpers)
        self.wanted = self.helpers = max_helpers

    def record(self, count: int, now: float, cpu_time: float) -> bool:
        self.wanted -= 1
        self.is_settled = self.wanted <= 0
        return self.wanted >= 0

    def record_helper_start(self) -> None:
        """Judge no helper."""


class DownloadHarness:
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
        return PartialFile(self.final, digest, len(self.blob.content), partial_path=partial)

    def fetch(self, run: TransferContext) -> BlobDownload:
        """Return the fetch, not begun."""
        meter = meter_of(self.blob.descriptor, self.sink)
        source = BlobSource.in_store(self.store, self.blob.descriptor)
        parts = -(-self.writer.size // run.config.range_size)
        trial = HelpersAtOnce(max(0, min(run.config.helpers, parts - 1)))
        return BlobDownload(source, self.writer, meter, run, trial=trial)

    def alone(self, config: TransferConfig = CONFIG) -> Future[Digest]:
        """Fetch in this thread; return the outcome."""
        fetch = self.fetch(TransferContext(config))
        fetch.run()
        assert fetch.future.done()
        return fetch.future

    def on(self, pool: WorkerPool) -> Future[Digest]:
        """Fetch on a pool; return the outcome."""
        fetch = self.fetch(pool.context)

        def help_wanted(job: object) -> None:
            if pool.workers:
                pool.submit(fetch.run_helper, priority=Priority.HELPER)

        pool.submit(lambda: run_with_helpers(fetch, help_wanted))
        fetch.future.exception(WAIT)
        return fetch.future

    def assert_verified(self) -> None:
        """The blob is there, and nothing else."""
        assert self.final.read_bytes() == self.blob.content
        assert [path.name for path in self.directory.iterdir()] == ["final"]
