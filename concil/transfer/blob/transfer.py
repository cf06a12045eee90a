"""BlobTransfer: checks, mounts or moves one blob."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from enum import Enum
from typing import TypeAlias

import requests

from concil.errors import Cancelled, NotFound, StatusError
from concil.fs.partial_file import PartialFile
from concil.fs.resume_state import WriterState
from concil.oci.descriptor import Descriptor
from concil.oci.digest import Digest
from concil.progress.events import Meter, State
from concil.runtime.dataclass import dataclass
from concil.runtime.quantities import format_size
from concil.store.protocols import BlobWriter, Destination, Source
from concil.transfer.blob.source import BlobSource
from concil.transfer.blob.transfer_blob import BlobTarget, transfer_blob
from concil.transfer.worker_pool import Priority, Slot, WorkerPool

logger = logging.getLogger(__name__)

_LOG_WORDS = {State.DONE: "sent", State.MOUNTED: "mounted", State.PRESENT: "already present"}


class BlobLookup(Enum):
    """When to check whether the destination has a blob."""

    BEFORE_MOUNT = "before mount"  # for blobs that are likely to be present
    AFTER_MOUNT = "after mount"
    NEVER = "never"  # mount the blob, else send it without a check
    OVERWRITE = "overwrite"  # send it even if the destination says that it has it


@dataclass(frozen=True, slots=True)
class BlobResult:
    """Result of a transfer: the destination has the blob."""

    blob: Descriptor
    destination: str  # the destination's name
    repository: str  # from which others may mount it; "" without mount support
    state: State  # DONE, PRESENT or MOUNTED

    @property
    def bytes_sent(self) -> int:
        """Bytes that had to be transferred."""
        return self.blob.size if self.state is State.DONE else 0


def upload_slots(destination: Destination) -> tuple[Slot, ...]:
    """Return the slots that an upload occupies if the destination limits concurrent uploads."""
    limit = destination.max_uploads
    return () if limit is None else (Slot(f"uploads to {destination.host}", limit),)


class BlobTransfer:
    """The job of one blob. ``future`` is completed by the thread that finishes it."""

    def __init__(  # noqa: PLR0913 - two stores and a blob, and how they are handled
        self,
        source: Source,
        destination: Destination,
        blob: Descriptor,
        *,
        pool: WorkerPool,
        meter: Meter,
        lookup: BlobLookup = BlobLookup.AFTER_MOUNT,
    ) -> None:
        """Prepare the transfer; `start` submits it to the pool.

        Args:
            lookup: when to check the destination for the blob.
        """
        self._lookup = lookup
        self._source = source
        self._destination = destination
        self._blob = blob
        self._pool = pool
        self._meter = meter
        self._mount_sources: Iterable[str] = ()
        self._offered_writer: BlobWriter | None = None  # of an upload begun by a failed mount
        self._final_state = State.DONE
        self.future: Future[BlobResult] = Future()

    def start(self, mount_sources: Iterable[str] = ()) -> Future[BlobResult]:
        """Submit the job.

        Args:
            mount_sources: repositories of the same registry that may have the blob; iterated
                when the job runs.
        """
        self._mount_sources = mount_sources
        self._meter.set_state(State.WAITING, position=0)
        queued = self._pool.submit(
            self._run, priority=Priority.BLOB, size=self._blob.size, hosts=self._hosts
        )
        queued.add_done_callback(self._on_job_done)
        return self.future

    @property
    def blob(self) -> Descriptor:
        """The blob that is transferred."""
        return self._blob

    @property
    def mount_scope(self) -> str:
        """Where repositories can mount the blob from one another; its path for a layout."""
        return self._destination.mount_scope

    @property
    def _hosts(self) -> tuple[str, ...]:
        # A slow destination of several must not occupy all jobs of the source that they share.
        source_host = "" if self._source.is_shared else self._source.host
        return (source_host, self._destination.host)

    def _on_job_done(self, job: Future[None]) -> None:
        """Handle a job that was cancelled in the queue or raised an exception."""
        if job.cancelled():
            self._meter.set_state(State.CANCELLED)
            self.future.set_exception(Cancelled("cancelled before it started"))
            return
        error = job.exception()
        if error is not None and not self.future.done():
            self._meter.report_failure(error)
            self.future.set_exception(error)

    def _run(self, *, has_slot: bool = False) -> None:
        """Transfer the blob unless the destination has it: the job of a worker."""
        if not has_slot and self._is_completed_or_queued():
            return
        blob, destination = self._blob, self._destination
        target = BlobTarget(destination.name, str(blob.digest), self._begin, destination.host)
        source = BlobSource.in_store(self._source, blob)
        transferred = transfer_blob(
            source, target, self._meter, self._pool.context, self._submit_helper
        )
        transferred.add_done_callback(self._on_transferred)

    def _run_in_slot(self) -> None:
        """Transfer the blob within the limit of uploads of all processes."""
        context = self._pool.context
        with contextlib.ExitStack() as stack:
            if context.parent is not None:
                for slot in upload_slots(self._destination):
                    stack.enter_context(context.parent.slot(slot.name, slot.limit, context.cancel))
            self._run(has_slot=True)

    def _is_completed_or_queued(self) -> bool:
        """Find or mount the blob, or queue its upload; return False if it is to be sent now."""
        state = self._find_or_mount()
        if state is not None:
            self._pool.context.journal.delete_abandoned(
                self._destination.name, str(self._blob.digest)
            )
            self._complete(state)
            return True
        if not self._has_source():
            self._complete(State.PRESENT)
            return True
        slots = upload_slots(self._destination)
        if slots:
            # A separate job, so that blobs that are present never wait for an upload slot.
            queued = self._pool.submit(
                self._run_in_slot,
                priority=Priority.BLOB,
                size=self._blob.size,
                hosts=self._hosts,
                slots=slots,
            )
            queued.add_done_callback(self._on_job_done)
        return bool(slots)

    def _find_or_mount(self) -> State | None:
        """Return PRESENT or MOUNTED; None if the blob has to be transferred or looked up yet."""
        destination = self._destination
        if self._lookup is BlobLookup.BEFORE_MOUNT and self._has_blob():
            return State.PRESENT
        if destination.repository:
            for sibling in self._mount_sources:
                if sibling != destination.repository and self._mount(sibling):
                    return State.MOUNTED
        is_unknown = self._lookup is BlobLookup.AFTER_MOUNT and not self._is_lookup_due
        if is_unknown and self._has_blob():
            self._abort_offered_writer()
            return State.PRESENT
        return None

    def _mount(self, repository: str) -> bool:
        """Mount the blob; keep the upload that the destination may begin instead."""
        result = self._destination.mount(self._blob, repository)
        if result.is_mounted or result.writer is not None:
            self._abort_offered_writer()
            self._offered_writer = result.writer
        return result.is_mounted

    def _abort_offered_writer(self) -> None:
        writer, self._offered_writer = self._offered_writer, None
        if writer is not None:
            writer.abort()

    def _has_source(self) -> bool:
        """Return whether the source has the blob; False: only the destination does.

        Raises:
            NotFound: neither has it.
        """
        try:
            self._source.check_blob(self._blob)
        except NotFound:
            self._abort_offered_writer()
            if self._is_lookup_due and self._has_blob():
                return False
            raise
        return True

    def _begin(self, resume: WriterState | None) -> BlobWriter | PartialFile | Digest:
        """Begin the blob, or return its digest if the destination turns out to have it."""
        destination, blob = self._destination, self._blob
        is_lookup_due = self._is_lookup_due
        if resume is not None:
            self._abort_offered_writer()
        elif is_lookup_due and self._mount(destination.repository):
            self._final_state = State.PRESENT
            return blob.digest
        writer = self._offered_writer
        is_unknown = is_lookup_due and writer is None and self._lookup is BlobLookup.AFTER_MOUNT
        if is_unknown and self._has_blob():
            self._final_state = State.PRESENT
            return blob.digest
        self._meter.set_state(State.STARTED, position=0)
        return writer or destination.begin_blob(blob.size, blob.digest, resume)

    @property
    def _is_lookup_due(self) -> bool:
        """Whether a mount from the destination's own repository is to look the blob up."""
        needs_none = self._lookup in (BlobLookup.BEFORE_MOUNT, BlobLookup.OVERWRITE)
        is_decided = needs_none or self._offered_writer is not None
        return self._destination.looks_up_by_mount and not is_decided

    def _has_blob(self) -> bool:
        try:
            return self._destination.has_blob(self._blob)
        except StatusError as error:
            if error.status != requests.codes.server_error:
                raise
            # Killing distribution 2.8 can leave an empty link file; an upload rewrites it.
            logger.warning("%s: %s; sending the blob", self._destination.name, error)
            return False

    def _submit_helper(self, job: Callable[[], None]) -> None:
        if not self._source.reads_in_order:
            self._pool.submit_helper(job, size=self._blob.size, hosts=self._hosts)

    def _on_transferred(self, transferred: Future[Digest]) -> None:
        error = transferred.exception()
        if error is None:
            self._complete(self._final_state)
        else:
            self._meter.report_failure(error)
            self.future.set_exception(error)

    def _complete(self, state: State) -> None:
        self._meter.set_state(state, position=self._blob.size)
        logger.info(
            "%s: %s %s (%s)",
            self._destination.name,
            self._blob.digest,
            _LOG_WORDS[state],
            format_size(self._blob.size),
        )
        destination = self._destination
        self.future.set_result(
            BlobResult(self._blob, destination.name, destination.repository, state)
        )


# Starts a transfer, by `BlobTransfer.start`, and returns its future.
BlobStarter: TypeAlias = Callable[[BlobTransfer, Iterable[str]], Future[BlobResult]]
