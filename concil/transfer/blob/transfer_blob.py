"""Transfers one blob: claims its journal entry, begins it at its destination, moves the bytes."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeAlias

from concil.fs.partial_file import PartialFile
from concil.fs.resume_state import WriterState
from concil.oci.digest import Digest
from concil.progress.events import Meter
from concil.runtime.dataclass import dataclass
from concil.store.protocols import BlobWriter
from concil.transfer.blob.fetch import BlobDownload, run_with_helpers
from concil.transfer.blob.push import BlobUpload
from concil.transfer.blob.source import BlobSource
from concil.transfer.context import TransferContext
from concil.transfer.journal import Journal

# Submits a job that fetches further ranges of the same blob.
HelperSubmitter: TypeAlias = Callable[[Callable[[], None]], object]


@dataclass(frozen=True, slots=True)
class BlobTarget:
    """Where a blob is written."""

    name: str  # of the destination in the journal
    subject: str  # of the blob in the journal: its digest, or the identity of a file
    # Begins or resumes the blob; or returns its digest if the destination turns out to have it.
    begin: Callable[[WriterState | None], BlobWriter | PartialFile | Digest]
    host: str = ""  # host[:port] to which it is sent; "" for local
    journal: Journal | None = None  # None: that of the context
    # Looks for the blob when its session is lost; returns its digest if it is there.
    find: Callable[[WriterState], Digest | None] = lambda _lost: None


def transfer_blob(
    source: BlobSource,
    target: BlobTarget,
    meter: Meter,
    context: TransferContext,
    submit_helper: HelperSubmitter = lambda _job: None,
) -> Future[Digest]:
    """Transfer one blob, resuming what an earlier process began. A worker may call it.

    Returns:
        The digest: done already after an upload, or if the destination has the blob; completed
        by the thread that finishes last for a download.
    Raises:
        ConcilError: the blob could not be begun, or its upload failed.
    """
    entry = (target.journal or context.journal).claim_transfer(
        target.name, target.subject, source.size
    )
    try:
        writer = _begin(target, entry.state)
    except BaseException:
        entry.release()
        raise
    result: Future[Digest] = Future()
    if isinstance(writer, Digest):
        entry.complete()
        result.set_result(writer)
        return result
    if isinstance(writer, PartialFile):
        throttled = source.throttled(context.bandwidth, target.host, context.cancel)
        download = BlobDownload(throttled, writer, meter, context, entry)
        run_with_helpers(download, submit_helper)
        return download.future
    throttled = source.throttled(context.bandwidth, target.host, context.abandon)
    result.set_result(BlobUpload(throttled, writer, meter, context, entry).run())
    return result


def _begin(target: BlobTarget, saved: WriterState | None) -> BlobWriter | PartialFile | Digest:
    """Begin or resume the blob; a lost session may have been completed.

    A process that is killed before the answer to the last request leaves such a session behind:
    the registry has the blob, and does not know the session any more.
    """
    writer = target.begin(saved)
    if isinstance(writer, PartialFile | Digest) or saved is None:
        return writer
    if not saved.offset or writer.offset:
        return writer
    try:
        digest = target.find(saved)
    except BaseException:
        writer.abort()
        raise
    if digest is None:
        return writer
    writer.abort()
    return digest
