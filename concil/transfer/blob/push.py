"""BlobUpload: pushes a blob by ordered chunks."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

from concil.errors import (
    Cancelled,
    ConcilError,
    ContentError,
    FileChanged,
    SessionLost,
    SizeMismatch,
)
from concil.oci.digest import repeated_mismatch
from concil.oci.manifest import Digest
from concil.progress.events import Meter, State
from concil.retry import ProgressRetry
from concil.store.protocols import BlobWriter, DigestRequired
from concil.transfer.blob.request_body import ChunkBody
from concil.transfer.blob.resuming_reader import Opener, ResumingReader
from concil.transfer.blob.verification import BlobVerification
from concil.transfer.context import TransferContext
from concil.transfer.journal import JournalEntry

logger = logging.getLogger(__name__)


class BlobUpload:
    """Upload of one blob into a BlobWriter. One thread runs it."""

    def __init__(
        self,
        opener: Opener,
        writer: BlobWriter,
        meter: Meter,
        context: TransferContext,
        journal_entry: JournalEntry | None = None,
    ) -> None:
        """Prepare the upload; `run` sends the bytes.

        Args:
            journal_entry: the entry from whose state ``writer`` was opened.
        """
        self._opener = opener
        self._writer = writer
        self._meter = meter
        self._context = context
        self._journal_entry = journal_entry or JournalEntry.unsaved()
        self._retry = self._create_retry()
        self._acknowledged_offset = writer.offset  # bytes that the destination has confirmed
        self._max_sent_offset = writer.offset  # bytes that were ever sent
        self._best_offset = 0  # bytes of the lost session that got furthest
        self._content_error: ContentError | None = (
            None  # from the first complete read of the source
        )
        self._restart_count = 0  # lost sessions that got no further

    def run(
        self,
        size: int,
        digest: Digest | None,
        name: str,
        *,
        check_source: Callable[[], None] | None = None,
        verify_source: Callable[[], None] | None = None,
    ) -> Digest:
        """Send the blob and commit it; after a failure keep the state for a later attempt.

        Args:
            size: bytes.
            digest: expected digest; None: the digest of the bytes that are read.
            name: name of the blob in messages.
            check_source: called before the commit; raises if the source has changed.
            verify_source: called if some bytes are not read here because an earlier process
                sent them; raises if the source does not have the digest.
        Returns:
            The digest under which it was committed.
        Raises:
            DigestMismatch: the source's bytes were wrong twice; nothing was committed.
            DigestRequired: the destination needs the digest first; hash the source, push again.
            ConcilError: the source or the destination failed permanently.
        """
        reader = ResumingReader(self._opener, size, self._context, name, self._report_retry)
        verification = BlobVerification(size, digest, name, check_source)
        resumed = self._journal_entry.state if self._writer.offset else None
        self._meter.report_resume(self._writer.offset)
        try:
            verification.resume(reader, self._writer.offset, resumed.hash_state if resumed else "")
            verified = _verify_if_unseen(verification, verify_source)
            while True:
                try:
                    self._save_state(verification)
                    with self._context.buffer_pool.borrow() as buffer:
                        self._send_chunks(reader, size, verification, buffer)
                    verification.verify()
                    verified = verified or _verify_if_unseen(verification, verify_source)
                    self._writer.commit(verification.commit_digest)
                    break
                except ConcilError as error:
                    if not self._restart_on_content_error(error, verification, name):
                        self._wait_and_resync(error, verification, name)
                    verification.sees_all_bytes = (
                        verification.sees_all_bytes or self._writer.offset == 0
                    )
        except (ContentError, DigestRequired, SessionLost):  # nothing can be resumed
            self._writer.abort()
            self._journal_entry.delete()
            raise
        except BaseException:  # whatever fails, the session stays in the journal
            state = self._writer.state()
            self._writer.close()
            self._journal_entry.release() if state is not None else self._journal_entry.delete()
            raise
        finally:
            reader.close()
        self._journal_entry.complete()
        return verification.commit_digest

    def _save_state(self, verification: BlobVerification) -> None:
        """Save the state of the upload in the journal, for a later process."""
        state = self._writer.state()
        if state is not None:
            self._journal_entry.save(replace(state, hash_state=verification.hash_state))

    def _send_chunks(
        self, reader: ResumingReader, size: int, verification: BlobVerification, buffer: memoryview
    ) -> None:
        def on_block(piece: memoryview, start: int) -> None:
            self._meter.set_position(start)
            verification.update(piece, start)
            self._max_sent_offset = max(self._max_sent_offset, start + len(piece))

        writer = self._writer
        is_empty = size == 0
        if is_empty:
            verification.verify()
        while writer.offset < size or is_empty:
            if self._context.cancel.is_set():
                raise Cancelled("cancelled between two chunks")
            reader.seek(writer.offset)
            try:
                # Before the request begins, so that the destination does not wait for its body.
                reader.open()
            except ConcilError as error:
                raise _SourceError(error) from error
            length = min(writer.chunk_size, size - writer.offset)
            body = ChunkBody(reader, length, buffer, on_block)
            try:
                writer.append(body)
            except ConcilError:
                if body.source_error is not None:
                    raise _SourceError(body.source_error) from body.source_error
                raise
            verification.check_offset(writer.offset, self._max_sent_offset)
            self._acknowledged_offset = writer.offset
            self._save_state(verification)
            is_empty = False

    def _restart_on_content_error(
        self, error: ConcilError, verification: BlobVerification, name: str
    ) -> bool:
        """Restart at byte 0 after wrong bytes, once; return whether ``error`` was about them.

        Wrong bytes that an earlier process may have sent do not count.

        Raises:
            ContentError: the bytes were wrong a second time.
        """
        cause = error.cause if isinstance(error, _SourceError) else error
        if not isinstance(cause, ContentError) or isinstance(cause, SizeMismatch | FileChanged):
            return False
        if verification.sees_all_bytes:
            if self._content_error is not None:
                raise repeated_mismatch(self._content_error, cause) from cause
            self._content_error = cause
        logger.warning("%s: %s; once more from the start", name, cause)
        self._report_retry(cause)
        self._writer.abort()
        self._writer.resync()
        verification.restart()
        self._acknowledged_offset = self._max_sent_offset = self._writer.offset
        return True

    def _wait_and_resync(
        self, error: ConcilError, verification: BlobVerification, name: str
    ) -> None:
        """Wait, then ask the destination for its offset; raise if retrying cannot help."""
        if isinstance(error, _SourceError):
            raise error.cause
        is_session_lost = isinstance(error, SessionLost)
        if is_session_lost:
            self._count_lost_session(error)
        self._meter.set_position(
            self._acknowledged_offset
        )  # the destination may have more, which `resync` finds out
        self._retry.wait_or_raise(error, self._acknowledged_offset, f"{name} to its destination")
        offset = self._writer.resync()
        verification.check_offset(offset, self._max_sent_offset)
        if offset < self._acknowledged_offset and not is_session_lost:
            self._count_lost_session(error)
        if offset < self._acknowledged_offset:
            # Whatever a new session receives counts as progress again.
            self._retry = self._create_retry()
        self._acknowledged_offset = offset
        self._meter.set_state(State.MOVING, position=offset)

    def _create_retry(self) -> ProgressRetry:
        return ProgressRetry(self._context.config.retry, self._context.cancel, self._report_retry)

    def _report_retry(self, error: ConcilError) -> None:
        """Report an error of either side, before the wait."""
        self._meter.set_state(State.RETRYING, detail=str(error))

    def _count_lost_session(self, error: ConcilError) -> None:
        """Raise SessionLost after too many sessions that got no further than the best one."""
        if self._acknowledged_offset > self._best_offset:
            self._best_offset, self._restart_count = self._acknowledged_offset, 0
        self._restart_count += 1
        if self._restart_count > self._context.config.retry.max_lost_sessions:
            raise SessionLost(
                f"{error}; gave up after {self._restart_count} upload sessions that came no "
                f"further",
                remedy="the way to the registry breaks too often; use a steadier one",
            ) from error


def _verify_if_unseen(
    verification: BlobVerification, verify_source: Callable[[], None] | None
) -> bool:
    """Verify the source separately if not all of its bytes are read here; return whether it was."""
    if verification.sees_all_bytes or verify_source is None:
        return False
    verify_source()
    return True


class _SourceError(ConcilError):
    """Wraps the source's final error, so that it is not handled as the destination's."""

    def __init__(self, cause: ConcilError) -> None:
        super().__init__(str(cause))
        self.cause = cause
