"""BlobUpload: pushes a blob by ordered chunks."""

from __future__ import annotations

import logging
from collections.abc import Iterator
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
from concil.runtime.quantities import format_size
from concil.store.protocols import BlobWriter, DigestRequired
from concil.transfer.blob.request_body import ChunkBody
from concil.transfer.blob.resuming_reader import ResumingReader
from concil.transfer.blob.source import BlobSource
from concil.transfer.blob.verification import BlobVerification
from concil.transfer.context import TransferContext
from concil.transfer.journal import JournalEntry

logger = logging.getLogger(__name__)


class BlobUpload:
    """Upload of one blob into a BlobWriter. One thread runs it."""

    def __init__(
        self,
        source: BlobSource,
        writer: BlobWriter,
        meter: Meter,
        context: TransferContext,
        journal_entry: JournalEntry | None = None,
    ) -> None:
        """Prepare the upload; `run` sends the bytes.

        Args:
            journal_entry: the entry from whose state ``writer`` was opened.
        """
        self._source = source
        self._writer = writer
        self._meter = meter
        self._context = context
        self._journal_entry = journal_entry or JournalEntry.unsaved()
        self._reader = ResumingReader(
            source.open, source.size, context, source.name, self._report_retry
        )
        self._verification = BlobVerification(
            source.size, source.digest, source.name, source.check_unchanged
        )
        self._is_source_verified = False  # by `BlobSource.verify_digest`
        self._retry = self._create_retry()
        self._body: ChunkBody | None = None  # the chunk that is being sent, or was sent last
        self._acknowledged_offset = writer.offset  # bytes that the destination has confirmed
        self._max_sent_offset = writer.offset  # bytes that were ever sent
        self._best_offset = 0  # bytes of the lost session that got furthest
        # From the first complete read of the source.
        self._content_error: ContentError | None = None
        self._restart_count = 0  # lost sessions that got no further

    def run(self) -> Digest:
        """Send the blob and commit it; after a failure keep the state for a later attempt.

        Returns:
            The digest under which it was committed.
        Raises:
            DigestMismatch: the source's bytes were wrong twice; nothing was committed.
            DigestRequired: the destination needs the digest first; hash the source, push again.
            ConcilError: the source or the destination failed permanently.
        """
        is_committed = False
        try:
            self._resume()
            while not is_committed:
                try:
                    self._save_state()
                    with self._context.buffer_pool.borrow() as buffer:
                        for body in self._chunks(buffer):
                            self._writer.append(body)
                    self._commit()
                    is_committed = True
                except ConcilError as error:
                    self._recover(error)
        except (ContentError, DigestRequired, SessionLost):  # nothing can be resumed
            self._writer.abort()
            self._journal_entry.delete()
            raise
        except BaseException:  # whatever fails, the session stays in the journal
            state = self._writer.state()
            # What the destination has, not what was sent: the next process resumes there.
            self._meter.set_position(0 if state is None else state.offset)
            self._writer.close()
            self._journal_entry.release() if state is not None else self._journal_entry.delete()
            raise
        finally:
            self._reader.close()
        self._journal_entry.complete()
        return self._verification.commit_digest

    def _resume(self) -> None:
        """Continue the hash of an earlier process, or verify the source, if it sent some bytes."""
        offset, saved_state = self._writer.offset, self._journal_entry.state
        if offset:
            self._meter.report_resume(offset)
        elif saved_state is not None and saved_state.offset:
            name = self._source.digest or self._source.name
            logger.warning(
                "the registry dropped the upload session of %s: starting again; %s had been sent",
                name,
                format_size(saved_state.offset),
            )
            self._report_restart("session lost")
        saved_state = saved_state if offset else None
        hash_state = saved_state.hash_state if saved_state else ""
        self._verification.resume(self._reader, offset, hash_state)
        self._verify_unread_bytes()

    def _chunks(self, buffer: memoryview) -> Iterator[ChunkBody]:
        """Yield the chunks that the destination lacks, one of 0 bytes for an empty blob.

        The caller sends each chunk before it takes the next one.
        """
        writer, size = self._writer, self._source.size
        self._body, is_empty = None, size == 0
        if is_empty:
            self._verification.verify()
        while writer.offset < size or is_empty:
            self._body = None
            if self._context.cancel.is_set():
                raise Cancelled("cancelled between two chunks")
            self._reader.seek(writer.offset)
            length = min(writer.chunk_size, size - writer.offset)
            self._body = ChunkBody(self._reader, length, buffer, self._record_block)
            # Before the request begins, so that the destination does not wait for its body.
            self._body.open()
            yield self._body
            self._verification.check_offset(writer.offset, self._max_sent_offset)
            self._acknowledged_offset = writer.offset
            self._meter.set_position(writer.offset)
            self._save_state()
            is_empty = False

    def _record_block(self, block: memoryview, start: int) -> None:
        """Count and hash a block before it is sent."""
        self._meter.set_position(start)
        self._verification.update(block, start)
        self._max_sent_offset = max(self._max_sent_offset, start + len(block))

    def _commit(self) -> None:
        """Verify the blob as a whole and make it visible."""
        self._body = None
        self._verification.verify()
        self._verify_unread_bytes()
        self._writer.commit(self._verification.commit_digest)

    def _verify_unread_bytes(self) -> None:
        """Verify the source separately, once, if not all of its bytes are read here."""
        verify_digest = self._source.verify_digest
        if not (self._verification.sees_all_bytes or verify_digest is None):
            if not self._is_source_verified:
                verify_digest()
            self._is_source_verified = True

    def _save_state(self) -> None:
        """Save the state of the upload in the journal, for a later process."""
        state = self._writer.state()
        if state is not None:
            self._journal_entry.save(replace(state, hash_state=self._verification.hash_state))

    def _recover(self, error: ConcilError) -> None:
        """Prepare another attempt after a failure; raise if that cannot help."""
        # An error of the source is not one of the destination, although it ends the request.
        source_error = self._body.source_error if self._body is not None else None
        if self._restart_on_content_error(source_error or error):
            return
        if source_error is not None:
            raise source_error
        self._wait_and_resync(error)

    def _restart_on_content_error(self, error: ConcilError) -> bool:
        """Restart at byte 0 after wrong bytes, once; return whether ``error`` was about them.

        Wrong bytes that an earlier process may have sent do not count.

        Raises:
            ContentError: the bytes were wrong a second time.
        """
        if not isinstance(error, ContentError) or isinstance(error, SizeMismatch | FileChanged):
            return False
        if self._verification.sees_all_bytes:
            if self._content_error is not None:
                raise repeated_mismatch(self._content_error, error) from error
            self._content_error = error
        logger.warning("%s: %s; starting over", self._source.name, error)
        self._report_retry(error)
        self._writer.abort()
        self._writer.resync()
        self._verification.restart()
        self._acknowledged_offset = self._max_sent_offset = self._writer.offset
        self._report_restart("wrong bytes")
        return True

    def _wait_and_resync(self, error: ConcilError) -> None:
        """Wait, then ask the destination for its offset; raise if retrying cannot help."""
        is_session_lost = isinstance(error, SessionLost)
        if is_session_lost:
            self._count_lost_session(error)
        # The destination may have more, which `resync` finds out.
        self._meter.set_position(self._acknowledged_offset)
        self._retry.wait_or_raise(error, self._acknowledged_offset, self._source.name)
        offset = self._writer.resync()
        self._verification.check_offset(offset, self._max_sent_offset)
        if offset < self._acknowledged_offset and not is_session_lost:
            self._count_lost_session(error)
        is_restart = offset < self._acknowledged_offset
        self._acknowledged_offset = offset
        if is_restart:
            # Whatever a new session receives counts as progress again.
            self._retry = self._create_retry()
            self._report_restart("session lost")
        else:
            self._meter.set_state(State.MOVING, position=offset)

    def _create_retry(self) -> ProgressRetry:
        return ProgressRetry(self._context.config.retry, self._context.cancel, self._report_retry)

    def _report_retry(self, error: ConcilError) -> None:
        """Report an error of either side, before the wait."""
        self._meter.set_state(State.RETRYING, detail=str(error))

    def _report_restart(self, reason: str) -> None:
        """Report that bytes which the destination had are sent again."""
        self._meter.set_state(State.RESTARTING, position=self._acknowledged_offset, detail=reason)

    def _count_lost_session(self, error: ConcilError) -> None:
        """Raise SessionLost after too many sessions that got no further than the best one."""
        if self._acknowledged_offset > self._best_offset:
            self._best_offset, self._restart_count = self._acknowledged_offset, 0
        self._restart_count += 1
        if self._restart_count > self._context.config.retry.max_lost_sessions:
            raise SessionLost(
                f"{error}; gave up after {self._restart_count} upload sessions without progress",
                remedy="the connection to the registry is too unstable; use another network",
            ) from error
