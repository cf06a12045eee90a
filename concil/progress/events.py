"""Progress events, and the meter that limits how often they are sent."""

from __future__ import annotations

import contextlib
import enum
import logging
import threading
import time
from collections.abc import Iterator
from typing import Protocol

from concil.errors import Cancelled
from concil.runtime.cancellation import current_scope
from concil.runtime.dataclass import dataclass

logger = logging.getLogger(__name__)


class State(enum.StrEnum):
    """State of a subject, which is a blob, an image or a host."""

    WAITING = "waiting"  # known but not started; makes totals complete early
    STARTED = "started"  # sent again with the position if the transfer is resumed
    MOVING = "moving"
    RETRYING = "retrying"
    RESTARTING = "restarting"  # what was sent is lost: it is sent again from the position
    PAUSED = "paused"  # a host accepts no requests for the event's ``seconds``
    DONE = "done"
    PRESENT = "present"  # present at the destination before; nothing was sent
    MOUNTED = "mounted"  # mounted from another repository of the registry
    FAILED = "failed"
    CANCELLED = "cancelled"  # ended early by the user; ``position`` is where it can be resumed

    @property
    def is_final(self) -> bool:
        """Whether no further event of the same subject follows."""
        return self in _FINAL


_FINAL = frozenset({State.DONE, State.PRESENT, State.MOUNTED, State.FAILED, State.CANCELLED})


@dataclass(frozen=True, slots=True)
class Event:
    """State and position of one subject.

    ``position`` is absolute, and may be smaller after a lost connection. So a sink that sums
    up the positions of subjects is correct at any time, even if it missed events.

    An image is MOVING once all of its blobs are known, and ``total`` is their size. A blob is
    STARTED again, with the position, if its transfer is resumed. A host is only ever PAUSED.
    """

    kind: str  # "blob", "image" or "host"
    subject: str  # a digest or file, a reference, or a host[:port]
    target: str  # name of the destination; "" for a host
    state: State
    position: int  # bytes of the subject that the destination has
    total: int | None  # bytes; None while unknown
    detail: str = ""  # the reason, for RETRYING, RESTARTING, PAUSED and FAILED
    worker: str = ""  # name of the worker, if it is not the thread that sends the event
    image: str = ""  # source of the image for which a blob is transferred; "" for a single blob
    seconds: float | None = None  # of a pause, from the event on


def failure_state(error: BaseException) -> State:
    """Return the final state of a subject that an error has ended."""
    is_cancelled = isinstance(error, Cancelled | KeyboardInterrupt)
    return State.CANCELLED if is_cancelled else State.FAILED


class ProgressSink(Protocol):
    """Receives progress events; called from any thread, possibly concurrently."""

    def __call__(self, event: Event, /) -> None:
        """Receive one event. An exception ends the `Engine`'s call, which raises it."""


def emit(sink: ProgressSink | None, event: Event) -> None:
    """Send an event to a sink, unless the sink is None.

    An exception in the sink cancels the engine's call, which then raises it: raised here, in
    the middle of a request, it would be mistaken for a connection error. If callback errors
    are not fatal, as in `DockerHub`, it is logged.
    """
    if sink is None:
        return
    try:
        sink(event)
    except BaseException as error:
        scope = current_scope()
        if scope is not None and scope.is_callback_error_fatal:
            scope.cancel_with_error(error)
        elif isinstance(error, Exception):
            logger.exception("a progress callback failed; the transfer continues")
        else:
            raise


def tee(*sinks: ProgressSink) -> ProgressSink:
    """Return a sink that sends each event to all sinks, even if some of them raise."""

    def send_to_all(event: Event, /) -> None:
        errors: list[BaseException] = []
        for sink in sinks:
            try:
                sink(event)
            except BaseException as error:  # noqa: BLE001 - raised again below
                errors.append(error)
        if errors:
            raise errors[0]

    return send_to_all


class Meter:
    """The progress of one subject; limits MOVING events to ten per second.

    Any thread may call any method.
    """

    def __init__(  # noqa: PLR0913 - the fields of an event
        self,
        sink: ProgressSink | None,
        *,
        kind: str,
        subject: str,
        target: str,
        total: int | None,
        image: str = "",
    ) -> None:
        """Create the meter without sending an event. The arguments are fields of `Event`."""
        self._sink = sink
        self._kind = kind
        self._subject = subject
        self._target = target
        self._total = total
        self._image = image
        self._position = 0
        self._last_event_time = 0.0  # monotonic seconds of the last MOVING event
        self._lock = threading.Lock()

    @property
    def position(self) -> int:
        """The last reported position, in bytes."""
        return self._position

    def report_resume(self, position: int) -> None:
        """Report the position at which a transfer is resumed; no event for position 0."""
        if position:
            self.set_state(State.STARTED, position=position)

    def set_position(self, position: int) -> None:
        """Set the position; the event may be suppressed."""
        with self._lock:
            self._position = position
            is_due = self._is_due()
        if is_due:
            self._emit(State.MOVING, position, "")

    def advance(self, count: int) -> None:
        """Add ``count`` bytes to the position; for writers that write in any order."""
        with self._lock:
            self._position += count
            position = self._position
            is_due = self._is_due()
        if is_due:
            self._emit(State.MOVING, position, "")

    def _is_due(self) -> bool:
        """Whether a MOVING event may be sent; the caller holds the lock."""
        now = time.monotonic()
        if now - self._last_event_time < 0.1:
            return False
        self._last_event_time = now
        return True

    def set_state(self, state: State, *, position: int | None = None, detail: str = "") -> None:
        """Report a change of state immediately."""
        with self._lock:
            if position is not None:
                self._position = position
            position = self._position
        self._emit(state, position, detail)

    def report_failure(self, error: BaseException) -> None:
        """Report the end of the subject by an error."""
        self.set_state(failure_state(error), detail=str(error))

    def _emit(self, state: State, position: int, detail: str) -> None:
        emit(
            self._sink,
            Event(
                self._kind,
                self._subject,
                self._target,
                state,
                position,
                self._total,
                detail,
                image=self._image,
            ),
        )


@contextlib.contextmanager
def report_transfer(meter: Meter, size: int) -> Iterator[None]:
    """Report the start and the end of the transfer of one blob."""
    meter.set_state(State.STARTED, position=0)
    try:
        yield
    except BaseException as error:
        meter.report_failure(error)
        raise
    meter.set_state(State.DONE, position=size)
