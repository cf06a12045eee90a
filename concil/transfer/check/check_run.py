"""Checks the images of one run, and repairs those that are not in order."""

from __future__ import annotations

from concil.errors import ConcilError
from concil.progress.events import Event, ProgressSink, State, emit
from concil.runtime.dataclass import dataclass
from concil.transfer.check.blob_inspector import BlobInspector
from concil.transfer.check.image_checker import ImageChecker
from concil.transfer.check.image_repairer import ImageRepairer
from concil.transfer.check.verified_blobs import VerifiedBlobs
from concil.transfer.findings import Condition
from concil.transfer.image.job import ImageJob
from concil.transfer.image.result import ImageResult
from concil.transfer.worker_pool import WorkerPool


@dataclass(frozen=True, slots=True)
class CheckOptions:
    """Options of a check."""

    deep: bool = False  # read and hash every blob
    repair: bool = False  # copy again what is missing, damaged or behind
    resume: bool = True  # do not read again what an interrupted deep check has verified


class CheckRun:
    """Checks images as `Mirror` copies them. Any thread but a worker."""

    def __init__(
        self, pool: WorkerPool, progress: ProgressSink | None, options: CheckOptions
    ) -> None:
        """Check with the threads of ``pool``."""
        self._progress = progress
        journal = pool.context.journal
        # None: no blob is read.
        self.verified = VerifiedBlobs(journal, resume=options.resume) if options.deep else None
        inspector = BlobInspector(pool, progress, self.verified)
        self._checker = ImageChecker.create(pool, inspector)
        self._repairer: ImageRepairer | None = None
        if options.repair:
            self._repairer = ImageRepairer(pool, progress, self._checker, inspector)

    def copy(self, job: ImageJob) -> ImageResult:
        """Check an image, and repair it if that was asked for.

        Returns:
            PRESENT: it is in order; DONE: it was repaired; WAITING: it is not in order.
        Raises:
            NotFound: the source has no such image.
            ConcilError: it could not be checked.
        """
        self._emit(job, State.STARTED, 0, "")
        try:
            result = self._checker.check(job)
            if self._repairer is not None and result.condition is not Condition.OK:
                result = self._repairer.repair(job, result)
        except ConcilError as error:
            self._emit(job, State.FAILED, 0, error.summary)
            raise
        state = State.FAILED if result.state is State.WAITING else result.state
        names = job.source_name, job.destination_name
        event = Event("image", *names, state, result.bytes_sent, None, _describe(result))
        emit(job.final_event_sink or self._progress, event)
        return result

    def _emit(self, job: ImageJob, state: State, position: int, detail: str) -> None:
        event = Event("image", job.source_name, job.destination_name, state, position, None, detail)
        emit(self._progress, event)


def _describe(result: ImageResult) -> str:
    """Return the condition and the first finding, for an image that is not in order."""
    if result.condition in (None, Condition.OK):
        return ""
    finding = next(finding for finding in result.findings if not finding.is_repaired)
    subject = f"{finding.subject}: " if finding.subject else ""
    return f"{result.condition}: {subject}{finding.detail}"
