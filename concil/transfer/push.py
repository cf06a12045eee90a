"""One blob from a source into a BlobWriter, by ordered chunks; each side resumes on its own."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol, TypeVar

from concil.content import Digest
from concil.digest import wrong_twice
from concil.errors import (
    Cancelled,
    ConcilError,
    ConnectionLost,
    ContentError,
    FileChanged,
    ProtocolViolation,
    SessionLost,
    SizeMismatch,
)
from concil.progress import Meter, State
from concil.retry import Patience
from concil.store.protocol import BlobReader, BlobWriter, DigestNeeded
from concil.transfer.journal import Entry
from concil.transfer.promise import Promise
from concil.transfer.run import Run
from concil.transfer.window import Window

logger = logging.getLogger(__name__)
Result = TypeVar("Result")


class Opener(Protocol):
    """Opens one blob at any byte; what a source or a file does for its content."""

    def __call__(self, start: int, /) -> BlobReader:
        """Open the blob at ``start``; the caller closes the reader."""
        ...


class ResumingReader:
    """A source that goes on after a loss: it opens the blob again at the next byte.

    One thread at a time.
    """

    def __init__(
        self,
        opener: Opener,
        size: int,
        run: Run,
        name: str,
        told: Callable[[ConcilError], object] | None = None,
    ) -> None:
        """Read ``size`` bytes from ``opener``; nothing is opened yet. ``told`` gets losses."""
        self._opener = opener
        self._size = size
        self._abandon = run.abandon
        self._name = name
        self._patience = Patience(run.config.retry, run.cancel, told)
        self._reader: BlobReader | None = None
        self._skip = 0  # bytes to pass over: the place could not begin where it was asked to
        self._gained = 0  # bytes read in all: after a step back each of them is progress again
        self.position = 0

    def seek(self, position: int) -> None:
        """Go on at ``position``; free if that is where it stands."""
        if position != self.position:
            self.close()
            self.position = position

    def readinto(self, buffer: memoryview) -> int:
        """Fill some of ``buffer``; 0 only at the end of the blob.

        Raises:
            ConcilError: the source is lost for good.
        """
        count = 0
        while self.position < self._size and not count:
            count = self._patiently(lambda: self._read(buffer))
        self.position += count
        self._gained += count
        return count

    def open(self) -> None:
        """Open the blob where it stands: the source may let itself be waited for.

        Raises:
            ConcilError: the source is lost for good.
        """
        if self.position < self._size:
            self._patiently(self._opened)

    def close(self) -> None:
        """Let go of the connection or file."""
        if self._reader is not None:
            self._reader.close()
        self._reader = None

    def _patiently(self, step: Callable[[], Result]) -> Result:
        """Do something with the source, again after a loss."""
        while True:
            if self._abandon.is_set():
                raise Cancelled(f"{self._name}: cancelled")
            try:
                return step()
            except ConcilError as error:
                self.close()
                self._patience.lost(error, self._gained, self._name)

    def _opened(self) -> BlobReader:
        reader = self._reader
        if reader is None:
            reader = self._reader = self._opener(self.position)
            self._skip = self.position - reader.start
            if self._skip < 0:
                raise ProtocolViolation(
                    f"{self._name}: asked for byte {self.position}, got {reader.start}"
                )
        return reader

    def _read(self, buffer: memoryview) -> int:
        reader = self._opened()
        want = buffer[: min(len(buffer), self._skip or self._size - self.position)]
        count = reader.readinto(want)
        if count == 0:
            raise ConnectionLost(f"{self._name}: ended at byte {self.position} of {self._size}")
        if self._skip:
            self._skip -= count
            return 0
        return count


class Push:
    """One blob on its way into a BlobWriter. One thread runs it."""

    def __init__(
        self,
        opener: Opener,
        writer: BlobWriter,
        meter: Meter,
        run: Run,
        entry: Entry | None = None,
    ) -> None:
        """Prepare; `run` moves the bytes.

        Args:
            entry: the upload's place in the journal, from which ``writer`` was begun.
        """
        self._opener = opener
        self._writer = writer
        self._meter = meter
        self._context = run
        self._entry = entry or Entry.nowhere()
        self._patience = self._new_patience()
        self._acknowledged = writer.offset  # bytes that the destination had before a loss
        self._reached = writer.offset  # bytes that ever left
        self._best = 0  # bytes of the session that came furthest of those that are lost
        self._wrong: ContentError | None = None  # what was wrong with the first whole reading
        self._restarts = 0  # sessions that were lost and came no further

    def run(
        self,
        size: int,
        digest: Digest | None,
        name: str,
        *,
        check: Callable[[], None] | None = None,
        verify: Callable[[], None] | None = None,
    ) -> Digest:
        """Send the blob and commit it; what a later try could go on with is kept.

        Args:
            size: bytes.
            digest: what it must hash to; None: whatever its bytes hash to.
            name: what people call the blob, for messages.
            check: called before the commit; raises if the source is not what it was.
            verify: called where not every byte passes here, as those that an earlier process
                has sent; raises if the source does not hash to the digest.
        Returns:
            The digest it was committed under.
        Raises:
            DigestMismatch: the source's bytes were wrong twice; nothing was committed.
            DigestNeeded: the destination cannot do without the digest; hash the source
                and push again.
            ConcilError: the source or the destination is lost for good.
        """
        reader = ResumingReader(self._opener, size, self._context, name, self._lost)
        promise = Promise(size, digest, name, check)
        resumed = self._entry.state if self._writer.offset else None
        self._meter.goes_on(self._writer.offset)
        try:
            promise.begin(reader, self._writer.offset, resumed.hashed if resumed else "")
            verified = _verified(promise, verify)
            while True:
                try:
                    self._remember(promise)
                    with self._context.blocks.borrow() as buffer:
                        self._send(reader, size, promise, buffer)
                    promise.keep()
                    verified = verified or _verified(promise, verify)
                    self._writer.commit(promise.named)
                    break
                except ConcilError as error:
                    if not self._begins_again(error, promise, name):
                        self._recover(error, promise, name)
                    promise.whole = promise.whole or self._writer.offset == 0
        except (ContentError, DigestNeeded, SessionLost):  # there is nothing to go on with
            self._writer.abort()
            self._entry.done()
            raise
        except BaseException:  # also what nobody thought of leaves the session to be found
            left = self._writer.state()
            self._writer.close()
            self._entry.release() if left is not None else self._entry.done()
            raise
        finally:
            reader.close()
        self._entry.finished()
        return promise.named

    def _remember(self, promise: Promise) -> None:
        """Write down where the upload stands, for a later process."""
        state = self._writer.state()
        if state is not None:
            self._entry.save(replace(state, hashed=promise.saved))

    def _send(
        self, reader: ResumingReader, size: int, promise: Promise, buffer: memoryview
    ) -> None:
        def seen(piece: memoryview, start: int) -> None:
            self._meter.at(start)
            promise.see(piece, start)
            self._reached = max(self._reached, start + len(piece))

        writer = self._writer
        empty = size == 0
        if empty:
            promise.keep()
        while writer.offset < size or empty:
            if self._context.cancel.is_set():
                raise Cancelled("cancelled between two chunks")
            reader.seek(writer.offset)
            try:
                # Not from within the request: the destination would wait for its body.
                reader.open()
            except ConcilError as error:
                raise _SourceLost(error) from error
            length = min(writer.chunk_size, size - writer.offset)
            window = Window(reader, length, buffer, seen)
            try:
                writer.append(window)
            except ConcilError:
                if window.failure is not None:
                    raise _SourceLost(window.failure) from window.failure
                raise
            promise.believe(writer.offset, self._reached)
            self._acknowledged = writer.offset
            self._remember(promise)
            empty = False

    def _begins_again(self, error: ConcilError, promise: Promise, name: str) -> bool:
        """Begin again at byte 0, once, where wrong bytes may have come by accident.

        Those of an earlier process may have been wrong, too: they do not count.

        Raises:
            ContentError: they were wrong once more.
        """
        cause = error.cause if isinstance(error, _SourceLost) else error
        if not isinstance(cause, ContentError) or isinstance(cause, SizeMismatch | FileChanged):
            return False
        if promise.whole:
            if self._wrong is not None:
                raise wrong_twice(self._wrong, cause) from cause
            self._wrong = cause
        logger.warning("%s: %s; once more from the start", name, cause)
        self._lost(cause)
        self._writer.abort()
        self._writer.resync()
        promise.restart()
        self._acknowledged = self._reached = self._writer.offset
        return True

    def _recover(self, error: ConcilError, promise: Promise, name: str) -> None:
        """Wait and find out where to go on, or raise what cannot be helped."""
        if isinstance(error, _SourceLost):
            raise error.cause
        gone = isinstance(error, SessionLost)
        if gone:
            self._count_session(error)
        self._meter.at(self._acknowledged)  # how much more it has is asked after the wait
        self._patience.lost(error, self._acknowledged, f"{name} to its destination")
        offset = self._writer.resync()
        promise.believe(offset, self._reached)
        if offset < self._acknowledged and not gone:
            self._count_session(error)
        if offset < self._acknowledged:
            # What a new session gains is progress again.
            self._patience = self._new_patience()
        self._acknowledged = offset
        self._meter.state(State.MOVING, position=offset)

    def _new_patience(self) -> Patience:
        return Patience(self._context.config.retry, self._context.cancel, self._lost)

    def _lost(self, error: ConcilError) -> None:
        """Tell, before the wait, that either side broke off."""
        self._meter.state(State.RETRYING, detail=str(error))

    def _count_session(self, error: ConcilError) -> None:
        """Bound the sessions that came no further than the best one before them."""
        if self._acknowledged > self._best:
            self._best, self._restarts = self._acknowledged, 0
        self._restarts += 1
        if self._restarts > self._context.config.retry.restarts:
            raise SessionLost(
                f"{error}; gave up after {self._restarts} upload sessions that came no further",
                remedy="the way to the registry breaks too often; use a steadier one",
            ) from error


def _verified(promise: Promise, verify: Callable[[], None] | None) -> bool:
    """Verify the source by itself where not all of its bytes pass here; return whether it was."""
    if promise.whole or verify is None:
        return False
    verify()
    return True


class _SourceLost(ConcilError):
    """Carries the source's final error past the destination's handling."""

    def __init__(self, cause: ConcilError) -> None:
        super().__init__(str(cause))
        self.cause = cause
