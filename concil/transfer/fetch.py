"""One blob into a RangeWriter, by parallel ranges; each thread resumes its own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future

from concil.config import MIB
from concil.content import Descriptor
from concil.digest import wrong_twice
from concil.errors import (
    Cancelled,
    ConcilError,
    ConnectionLost,
    ContentError,
    DigestMismatch,
    ProtocolViolation,
)
from concil.limits import named
from concil.progress import Meter, State
from concil.retry import Patience
from concil.store.protocol import RangeWriter, Source
from concil.transfer.journal import Entry
from concil.transfer.run import Run

logger = logging.getLogger(__name__)


class Fetch:
    """One blob on its way into a RangeWriter, by the one thread of `run` and those of `help`.

    The thread that leaves last verifies and commits, and completes ``outcome``.
    """

    def __init__(
        self, source: Source, blob: Descriptor, writer: RangeWriter, meter: Meter, run: Run
    ) -> None:
        """Prepare; the writer is closed or committed in the end."""
        self._source = source
        self._blob = blob
        self._writer = writer
        self._meter = meter
        self._config = run.config
        self._blocks = run.blocks
        self._cancel = run.cancel
        self._bandwidth = run.bandwidth
        self._lock = threading.Lock()  # guards the fields below
        self._busy = 0  # threads at it
        self._over = False  # the last of them has left
        self._error: BaseException | None = None
        # The blob's place in the journal, from which the writer was begun.
        self.entry = Entry.nowhere()
        self._unsaved = 0  # bytes since the journal was told
        # Of an earlier process: what is wrong may be what that has fetched.
        self._resumed = writer.filled > 0
        self._ranges = True  # the source can begin in the middle
        self.outcome: Future[None] = Future()

    @property
    def helpers_wanted(self) -> int:
        """How many more threads would find something to do."""
        parts = -(-self._blob.size // self._config.range_size)
        return max(0, min(self._config.helpers, parts - 1))

    def run(self) -> None:
        """Take part until nothing is left to take; the primary thread's job."""
        self._meter.goes_on(self._writer.filled)
        self._take_part()

    def help(self) -> None:
        """Take part unless it is over already; a helper's job."""
        if self._ranges:
            self._take_part()

    def _take_part(self) -> None:
        with self._lock:
            # Helpers may be so quick that it is over before the primary thread begins.
            if self._over:
                return
            self._busy += 1
        try:
            self._work()
        except ConcilError as error:
            self._fail(error)
        except Exception as error:
            limit = named(error, self._name)
            if limit is None:
                logger.exception("a transfer failed in a way nobody thought of")
            self._fail(limit or ConcilError(f"{self._name}: {type(error).__name__}: {error}"))
        except BaseException as error:  # noqa: BLE001 - an interrupt: the outcome's owner gets it
            self._fail(error)
        with self._lock:
            self._busy -= 1
            self._over = last = self._busy == 0
        if last:
            self._finish()

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            self._error = self._error or error

    def _work(self) -> None:
        def told(error: ConcilError) -> None:
            self._meter.state(State.RETRYING, detail=str(error))

        patience = Patience(self._config.retry, self._cancel, told)
        with self._blocks.borrow() as buffer:
            while self._error is None:
                # One thread alone takes all there is: no request for each range then.
                most = self._config.range_size if self._shared() else max(1, self._blob.size)
                stretch = self._writer.take(most)
                if stretch is None:
                    return
                try:
                    self._fill(stretch[0], stretch[1], buffer, patience)
                except _NoRanges:
                    return  # the last one takes what this one gave back

    def _alone(self) -> bool:
        with self._lock:
            return self._busy <= 1

    def _shared(self) -> bool:
        return self._ranges and self.helpers_wanted > 0

    def _fill(self, start: int, stop: int, buffer: memoryview, patience: Patience) -> None:
        """Fill one stretch, however often its connection is lost."""
        position = start
        try:
            while position < stop:
                try:
                    position = self._stream(position, stop, buffer)
                except ConcilError as error:
                    position = max(position, _reached(error))
                    if isinstance(error, Cancelled):
                        raise
                    patience.lost(error, self._writer.filled, self._name)
        finally:
            self._writer.give_back(position, stop)

    def _stream(self, start: int, stop: int, buffer: memoryview) -> int:
        """Read from ``start`` into the writer; return how far it came, at most ``stop``."""
        whole = start == 0 and stop == self._blob.size
        reader = self._source.open_blob(self._blob, start, None if whole else stop)
        reader = self._bandwidth.paced(reader, (self._source.host,), self._cancel)
        position = reader.start
        try:
            if position > start:
                raise ProtocolViolation(f"{self._name}: asked for byte {start}, got {position}")
            if position < start:
                self._ranges = False
                if not self._alone():
                    raise _NoRanges  # not to read what another thread reads as well
            while position < stop:
                if self._cancel.is_set() or self._error is not None:
                    raise Cancelled(f"{self._name}: cancelled")
                # Up to ``start`` the bytes are there already: passed over.
                limit = start if position < start else stop
                count = reader.readinto(buffer[: min(len(buffer), limit - position)])
                if count == 0:
                    raise ConnectionLost(f"{self._name}: ended at byte {position} of {stop}")
                if position >= start:
                    self._writer.write_at(position, buffer[:count])
                    self._meter.add(count)
                    self._remember(count)
                position += count
        except ConcilError as error:
            error.position = max(start, position)  # type: ignore[attr-defined]
            raise
        finally:
            reader.close()
        return position

    def _remember(self, count: int) -> None:
        """Write down what is there, once a MiB."""
        with self._lock:
            self._unsaved += count
            due = self._unsaved >= MIB
            if due:
                self._unsaved = 0
        if due:
            self.entry.save(self._writer.state())

    def _finish(self) -> None:
        """Commit, or say why not. One thread only: it was the last."""
        try:
            if self._error is None:
                self._rest()
            if self._error is None:
                self._commit()
            if self._error is not None:
                self._put_away(self._error)
                self.outcome.set_exception(self._error)
            else:
                self.entry.finished()
                self.outcome.set_result(None)
        except BaseException as error:  # noqa: BLE001 - the outcome's owner gets it
            self.outcome.set_exception(error)

    def _rest(self) -> None:
        """Fetch what a helper gave back when the others had nothing left to take."""
        try:
            self._work()
        except ConcilError as error:
            self._error = error

    def _commit(self) -> None:
        """Verify and commit; wrong bytes are fetched once more, for they may be an accident.

        Those of an earlier process do not count.
        """
        wrong: DigestMismatch | None = None
        while True:
            try:
                self._writer.commit()
            except DigestMismatch as error:
                if wrong is not None:
                    self._error = wrong_twice(wrong, error)
                    return
                wrong, self._resumed = None if self._resumed else error, False
                logger.warning("%s: %s; once more from the start", self._name, error)
            except ConcilError as error:
                self._error = error
                return
            else:
                return
            if not self._again():
                return

    def _again(self) -> bool:
        """Fetch everything once more, alone; return whether it has come."""
        self._writer.restart()
        self._meter.state(State.RETRYING, position=0, detail="the bytes did not fit their digest")
        self._rest()
        return self._error is None

    def _put_away(self, error: BaseException) -> None:
        if isinstance(error, ContentError):
            self._writer.abort()
            self.entry.done()
        else:
            self.entry.save(self._writer.state())
            self._writer.close()
            self.entry.release()

    @property
    def _name(self) -> str:
        return f"{self._source.name}@{self._blob.digest}"


class _NoRanges(Exception):
    """The source begins every answer at byte 0: one thread is enough."""


def _reached(error: ConcilError) -> int:
    """How far the stream came that ended in ``error``."""
    return int(getattr(error, "position", 0))


def spread(fetch: Fetch, submit: Callable[[Callable[[], None]], object]) -> None:
    """Ask for helpers, whom nobody waits for, then take part; the primary job of a blob."""
    for _ in range(fetch.helpers_wanted):
        submit(fetch.help)
    fetch.run()
