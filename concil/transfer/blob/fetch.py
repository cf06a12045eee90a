"""BlobDownload: fetches a blob by parallel ranges."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future

from concil.config import MIB
from concil.errors import (
    Cancelled,
    ConcilError,
    ConnectionLost,
    ContentError,
    DigestMismatch,
    ProtocolViolation,
)
from concil.fs.partial_file import PartialFile
from concil.oci.digest import Digest, repeated_mismatch
from concil.progress.events import Meter, State
from concil.retry import ProgressRetry
from concil.runtime.limits import limit_error
from concil.transfer.blob.helper_trial import HelperTrial
from concil.transfer.blob.source import BlobSource
from concil.transfer.context import TransferContext
from concil.transfer.journal import JournalEntry

logger = logging.getLogger(__name__)


class BlobDownload:
    """Download of one blob into a partial file, by the thread of `run` and those of `run_helper`.

    One thread receives in order, so that no byte is read back to be hashed. Helpers are used
    where they make the download faster. The last thread to finish verifies, commits and
    completes ``future``.
    """

    def __init__(  # noqa: PLR0913 - both sides of a blob, and how it is moved
        self,
        source: BlobSource,
        writer: PartialFile,
        meter: Meter,
        context: TransferContext,
        journal_entry: JournalEntry | None = None,
        *,
        trial: HelperTrial | None = None,
    ) -> None:
        """Prepare the download, which closes or commits ``writer`` at the end.

        Args:
            journal_entry: the entry from whose state ``writer`` was opened.
            trial: decides when to use helpers; None: when they make the download faster.
        """
        self._source = source
        self._writer = writer
        self._meter = meter
        self._config = context.config
        self._buffer_pool = context.buffer_pool
        self._cancel = context.cancel
        self._lock = threading.Lock()  # guards the fields below
        self._active_threads = 0
        self._is_finished = False  # the last thread has finished
        self._error: BaseException | None = None
        self._journal_entry = journal_entry or JournalEntry.unsaved()
        self._unsaved_bytes = 0  # bytes since the journal was last written
        # A digest mismatch may be due to the bytes that an earlier process fetched.
        self._is_resumed = writer.bytes_filled > 0
        self._can_read_ranges = True  # the source can serve ranges
        self._trial = trial or HelperTrial(self.helper_count)
        self._submit_helper: Callable[[Callable[[], None]], object] | None = None
        self._solo_size = self._config.range_size  # bytes of the next range of a single thread
        self.future: Future[Digest] = Future()

    @property
    def helper_count(self) -> int:
        """Number of additional threads that would have ranges to fetch."""
        parts = -(-self._writer.size // self._config.range_size)
        return max(0, min(self._config.helpers, parts - 1))

    def run(self, submit_helper: Callable[[Callable[[], None]], object] | None = None) -> None:
        """Fetch ranges until none is left; the job of the primary thread.

        Args:
            submit_helper: submits the job of a helper without waiting for it; None: no helpers.
        """
        self._submit_helper = submit_helper
        self._meter.report_resume(self._writer.bytes_filled)
        self._run_thread(is_helper=False)

    def run_helper(self) -> None:
        """Fetch ranges unless the download is finished; the job of a helper."""
        if self._can_read_ranges:
            self._run_thread(is_helper=True)

    def _run_thread(self, *, is_helper: bool) -> None:
        with self._lock:
            # Helpers may finish the download before the primary thread begins.
            if self._is_finished:
                return
            self._active_threads += 1
        try:
            self._fetch_ranges(is_helper=is_helper)
        except ConcilError as error:
            self._record_error(error)
        except Exception as error:
            limit = limit_error(error, self._source.name)
            if limit is None:
                logger.exception("a transfer failed with an unexpected error")
            self._record_error(
                limit or ConcilError(f"{self._source.name}: {type(error).__name__}: {error}")
            )
        except BaseException as error:  # noqa: BLE001 - an interrupt: the future's owner gets it
            self._record_error(error)
        with self._lock:
            self._active_threads -= 1
            self._is_finished = is_last = self._active_threads == 0
        if is_last:
            self._finish()

    def _record_error(self, error: BaseException) -> None:
        with self._lock:
            self._error = self._error or error

    def _fetch_ranges(self, *, is_helper: bool = False) -> None:
        def record_loss(error: ConcilError) -> None:
            self._meter.set_state(State.RETRYING, detail=str(error))

        retry = ProgressRetry(self._config.retry, self._cancel, record_loss)
        has_started = False
        with self._buffer_pool.borrow() as buffer:
            while self._error is None:
                byte_range = self._writer.reserve_range(self._next_range_size())
                if byte_range is None:
                    return
                if is_helper and not has_started:
                    has_started = True
                    with self._lock:
                        self._trial.record_helper_start()
                try:
                    self._fetch_range(byte_range[0], byte_range[1], buffer, retry)
                except _RangesUnsupported:
                    return  # the last thread fetches the range that this one released
                if is_helper and self._has_to_stop_helper():
                    return

    def _next_range_size(self) -> int:
        """Return the bytes to reserve: each request of a single thread doubles, to save requests.

        As long as a helper may be tried, half of the remaining bytes are left for it.
        """
        with self._lock:
            is_shared = self._active_threads > 1 or self._trial.helpers > 0
            if not self._can_read_ranges or not self.helper_count:
                return max(1, self._writer.size)
            if is_shared:
                return self._config.range_size
            if self._trial.is_settled:
                return max(1, self._writer.size)
            size, self._solo_size = self._solo_size, self._solo_size * 2
        remaining = self._writer.size - self._writer.bytes_filled
        return max(self._config.range_size, min(size, remaining // 2))

    def _has_to_stop_helper(self) -> bool:
        with self._lock:
            return self._trial.stop_helper()

    def _is_only_thread(self) -> bool:
        with self._lock:
            return self._active_threads <= 1

    def _fetch_range(self, start: int, stop: int, buffer: memoryview, retry: ProgressRetry) -> None:
        """Fetch one range, retrying after lost connections."""
        position = start
        try:
            while position < stop:
                position, error = self._read_range(position, stop, buffer)
                if isinstance(error, Cancelled):
                    raise error
                if error is not None:
                    retry.wait_or_raise(error, self._writer.bytes_filled, self._source.name)
        finally:
            self._writer.release_range(position, stop)

    def _read_range(
        self, start: int, stop: int, buffer: memoryview
    ) -> tuple[int, ConcilError | None]:
        """Read from ``start`` into the writer, at most up to ``stop``.

        Returns:
            The position reached, and the error that ended the read before ``stop``.
        """
        is_whole_blob = start == 0 and stop == self._writer.size
        try:
            reader = self._source.open(start, None if is_whole_blob else stop)
        except ConcilError as error:
            return start, error
        position = reader.start
        try:
            if position > start:
                raise ProtocolViolation(
                    f"{self._source.name}: requested byte {start}, received byte {position}"
                )
            if position < start:
                self._can_read_ranges = False
                if not self._is_only_thread():
                    raise _RangesUnsupported  # another thread reads the same bytes
            while position < stop:
                if self._cancel.is_set() or self._error is not None:
                    raise Cancelled(f"{self._source.name}: cancelled")
                # Bytes before ``start`` were written already, so they are skipped.
                limit = start if position < start else stop
                count = reader.readinto(buffer[: min(len(buffer), limit - position)])
                if count == 0:
                    raise ConnectionLost(f"{self._source.name}: ended at byte {position} of {stop}")
                if position >= start:
                    self._writer.write_at(position, buffer[:count])
                    self._meter.advance(count)
                    self._save_progress(count)
                    self._record_rate(count)
                position += count
        except ConcilError as error:
            return max(start, position), error
        finally:
            reader.close()
        return position, None

    def _record_rate(self, count: int) -> None:
        """Start one more helper if it may make the download faster."""
        with self._lock:
            needs_helper = not self._trial.is_settled and self._trial.record(
                count, time.monotonic(), time.thread_time()
            )
        if needs_helper and self._can_read_ranges and self._submit_helper is not None:
            self._submit_helper(self.run_helper)

    def _save_progress(self, count: int) -> None:
        """Save the state in the journal, once per MiB."""
        with self._lock:
            self._unsaved_bytes += count
            is_due = self._unsaved_bytes >= MIB
            if is_due:
                self._unsaved_bytes = 0
        if is_due:
            self._journal_entry.save(self._writer.state())

    def _finish(self) -> None:
        """Commit and complete the future. Called by the last thread only."""
        try:
            if self._error is None:
                self._fetch_remaining()
            if self._error is None:
                self._commit()
            if self._error is not None:
                self._close_after_error(self._error)
                self.future.set_exception(self._error)
            else:
                self._journal_entry.complete()
                self.future.set_result(self._writer.digest)
        except BaseException as error:  # noqa: BLE001 - the future's owner gets it
            self.future.set_exception(error)

    def _fetch_remaining(self) -> None:
        """Fetch ranges that a helper released after the other threads had finished."""
        try:
            self._fetch_ranges()
        except ConcilError as error:
            self._error = error

    def _commit(self) -> None:
        """Verify and commit; after a digest mismatch fetch the blob once more.

        A mismatch that may be due to an earlier process's bytes does not count.
        """
        first_mismatch: DigestMismatch | None = None
        while True:
            try:
                self._writer.commit()
            except DigestMismatch as error:
                if first_mismatch is not None:
                    self._error = repeated_mismatch(first_mismatch, error)
                    return
                first_mismatch, self._is_resumed = None if self._is_resumed else error, False
                logger.warning("%s: %s; starting over", self._source.name, error)
            except ConcilError as error:
                self._error = error
                return
            else:
                return
            if not self._fetch_again():
                return

    def _fetch_again(self) -> bool:
        """Fetch the whole blob again in this thread; return whether that succeeded."""
        self._writer.restart()
        self._meter.set_state(
            State.RETRYING, position=0, detail="the content did not match its digest"
        )
        self._fetch_remaining()
        return self._error is None

    def _close_after_error(self, error: BaseException) -> None:
        if isinstance(error, ContentError):
            self._writer.abort()
            self._journal_entry.delete()
        else:
            self._journal_entry.save(self._writer.state())
            self._writer.close()
            self._journal_entry.release()


class _RangesUnsupported(Exception):
    """The source ignores ranges and starts every response at byte 0."""


def run_with_helpers(
    download: BlobDownload, submit: Callable[[Callable[[], None]], object]
) -> None:
    """Run the primary job of a blob; it submits helper jobs without waiting for them."""
    download.run(submit)
