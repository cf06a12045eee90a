"""Worker plugin: one engine per run that copies the submitted images."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import field
from itertools import chain
from typing import Any

from distributed import get_worker
from distributed.diagnostics.plugin import WorkerPlugin
from distributed.utils import sync

from concil import __version__
from concil.config import MIB, TransferConfig
from concil.engine.engine import Engine
from concil.engine.image_resolver import Endpoints
from concil.errors import Cancelled, ConcilError, UsageError
from concil.progress.batcher import ProgressBatcher
from concil.runtime.cancellation import CancelScope, current_scope, run_in_scope
from concil.runtime.dataclass import dataclass
from concil.runtime.limits import start_thread
from concil.transfer.blob.transfer import BlobResult, BlobTransfer
from concil.transfer.mirror.report import MirrorItem, Outcome

logger = logging.getLogger(__name__)

LOCKED_BLOB_SIZE = 8 * MIB  # bytes; two workers may upload the same smaller blob at once
GRACE_PERIOD = 10.0  # seconds for chunks in flight when a run ends
_SCHEDULER_TIMEOUT = 30.0  # seconds
_LOCK_TIMEOUT = 2.0  # seconds that a worker waits for a lock before it checks for cancellation


@dataclass(frozen=True, slots=True, repr=False)
class CopyTask:
    """One image to copy. Dask may write its repr to a worker's log."""

    run: str
    number: int
    item: MirrorItem

    def __repr__(self) -> str:
        """Return a text without addresses, which may hold passwords."""
        return f"image {self.number} of {self.run}"


@dataclass(frozen=True, slots=True, repr=False)
class EngineSettings:
    """The settings of every engine of a run."""

    config: TransferConfig = field(default_factory=TransferConfig)
    endpoints: Endpoints = field(default_factory=Endpoints)
    version: str = __version__


def progress_topic(run: str) -> str:
    """Return the topic of a run's progress events."""
    return f"concil-progress-{run}"


def copy_image(task: CopyTask) -> tuple[Outcome, ...]:
    """Copy an image with the worker's engine for the run; the function of each Dask task.

    Returns:
        An outcome for each of its destinations.
    """
    plugins: dict[str, Any] = get_worker().plugins
    outcomes: tuple[Outcome, ...] = plugins[task.run].copy(task.item)
    return outcomes


class EnginePlugin(WorkerPlugin):
    """The engine of one run on one worker, shared by the worker's tasks."""

    def __init__(self, run: str, settings: EngineSettings) -> None:
        """Store the settings; the engine is created for the first image."""
        self.name = run
        self._settings = settings

    def setup(self, worker: Any) -> None:  # noqa: ANN401 - distributed has no types
        """Start on a worker, with a copy of the driver's plugin."""
        if self._settings.version != __version__:
            raise UsageError(
                f"the worker {worker.address} has concil {__version__}, but the mirror was "
                f"started by version {self._settings.version}",
                remedy="install the same version on all workers",
            )
        self._worker = worker
        self._lock = threading.Lock()  # guards _engine and _is_closed
        self._engine: Engine | None = None
        self._is_closed = False
        self._progress = ProgressBatcher(
            worker.address, lambda events: worker.log_event(progress_topic(self.name), events)
        )

    async def teardown(self, worker: Any) -> None:  # noqa: ANN401, ARG002 - distributed's
        """End on a worker: chunks in flight end, and the other transfers can be resumed."""
        await asyncio.to_thread(self.close)

    def close(self) -> None:
        """Cancel running transfers and close the engine."""
        with self._lock:
            self._is_closed = True
            engine, self._engine = self._engine, None
        if engine is not None:
            engine.cancel()
            engine.close(GRACE_PERIOD)

    def copy(self, item: MirrorItem) -> tuple[Outcome, ...]:
        """Copy one image to all its destinations; a failure is returned as an outcome."""
        try:
            engine = self._get_engine()
            if item.more_destinations:
                return tuple(engine.mirror([item]).outcomes)
            return (Outcome(item, engine.copy_item(item)),)
        except ConcilError as error:
            return tuple(Outcome(each, error=error) for each in item.split())
        finally:
            self._progress.flush()

    def _get_engine(self) -> Engine:
        with self._lock:
            if self._is_closed:
                raise Cancelled("cancelled; run the mirror again to resume")
            if self._engine is None:
                settings = self._settings
                self._engine = Engine(
                    settings.config, endpoints=settings.endpoints, progress=self._progress
                )
                self._engine.set_blob_starter(self._start_blob)
            return self._engine

    def _start_blob(self, transfer: BlobTransfer, siblings: Iterable[str]) -> Future[BlobResult]:
        """Start a small blob at once, and a large one when no other worker transfers it."""
        # Another image of this worker has copied the blob.
        is_already_copied = isinstance(siblings, Sequence) and bool(siblings)
        if is_already_copied or transfer.blob.size < LOCKED_BLOB_SIZE:
            return transfer.start(siblings)
        result: Future[BlobResult] = Future()
        scope = current_scope()  # the thread runs within the caller's cancel scope
        thread = threading.Thread(
            target=self._run_lock_thread,
            args=(transfer, siblings, result, scope),
            name="concil-turn",
            daemon=True,
        )
        # The lock only saves bytes: without a thread the blob is sent anyway.
        if not start_thread(thread, "the blob is sent without waiting for other workers"):
            return transfer.start(siblings)
        return result

    def _run_lock_thread(
        self,
        transfer: BlobTransfer,
        siblings: Iterable[str],
        result: Future[BlobResult],
        scope: CancelScope | None,
    ) -> None:
        with run_in_scope(scope):
            self._start_locked_blob(transfer, siblings, result)

    def _start_locked_blob(
        self, transfer: BlobTransfer, siblings: Iterable[str], result: Future[BlobResult]
    ) -> None:
        blob = f"{transfer.mount_scope} {transfer.blob.digest}"
        try:
            transfer_future = transfer.start(chain(self._acquire_blob(blob), siblings))
        except BaseException as error:  # noqa: BLE001 - re-raised where the result is awaited
            result.set_exception(error)
            return

        def complete(done: Future[BlobResult]) -> None:
            error = done.exception()
            self._call_scheduler(
                "give_back", blob=blob, repository="" if error else done.result().repository
            )
            if error is None:
                result.set_result(done.result())
            else:
                result.set_exception(error)

        transfer_future.add_done_callback(complete)

    def _acquire_blob(self, blob: str) -> list[str]:
        """Wait until no other worker transfers the blob; return repositories that have it."""
        while not self._is_closed:
            answer = self._call_scheduler("take", blob=blob, timeout=_LOCK_TIMEOUT)
            if answer is None or answer["mine"]:
                return [] if answer is None else list(answer["repositories"])
        raise Cancelled("cancelled; run the mirror again to resume")

    def _call_scheduler(self, method: str, **arguments: Any) -> Any:  # noqa: ANN401 - what `BlobLocks` answers
        """Call the scheduler; None if it does not answer: then locks are not needed any more."""
        worker = self._worker
        try:
            handler = getattr(worker.scheduler, f"concil_{method}")
            arguments |= {"run": self.name, "worker": worker.address}
            return sync(worker.loop, handler, callback_timeout=_SCHEDULER_TIMEOUT, **arguments)
        except OSError as error:  # distributed's connection errors are subclasses
            logger.warning("the scheduler does not respond: %s", error)
            return None
