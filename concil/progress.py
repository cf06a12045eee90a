"""Progress as positions: events, where they go, and a meter that thins them out."""

from __future__ import annotations

import contextlib
import enum
import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from concil.cancellation import current_scope

logger = logging.getLogger(__name__)


class State(enum.StrEnum):
    """What has become of a subject."""

    WAITING = "waiting"  # known and not begun; so that totals are right from early on
    STARTED = "started"  # once more where it goes on, if that is not the beginning
    MOVING = "moving"
    RETRYING = "retrying"
    DONE = "done"
    PRESENT = "present"  # it was there already; nothing was sent
    MOUNTED = "mounted"  # the registry took it from another of its repositories
    FAILED = "failed"

    @property
    def final(self) -> bool:
        """Whether no further event of the same subject follows."""
        return self in _FINAL


_FINAL = frozenset({State.DONE, State.PRESENT, State.MOUNTED, State.FAILED})


@dataclass(frozen=True, slots=True)
class Event:
    """Where one subject stands.

    ``position`` is absolute: after a loss it may be smaller than before. A sink
    that adds positions of subjects up is right at any time, whatever it missed.
    """

    kind: str  # "blob" or "image"
    subject: str  # a digest, or a reference
    target: str  # the destination's name
    state: State
    position: int  # bytes of the subject that the destination has
    total: int | None  # bytes; None while it is not known
    detail: str = ""  # why, for RETRYING and FAILED
    worker: str = ""  # who does it, where that is not the thread that tells it


class ProgressSink(Protocol):
    """Whatever wants to know; called from any thread, one event at a time or not."""

    def __call__(self, event: Event, /) -> None:
        """Take one event. An exception raised here ends the `Engine`'s call, which raises it."""


def emit(sink: ProgressSink | None, event: Event) -> None:
    """Hand an event to a sink that may be absent.

    What the sink raises ends the call that the thread works for, and is raised by that: in the
    middle of a request it would be taken for trouble with the connection. Where no call minds,
    as in `DockerHub`, it is logged.
    """
    if sink is None:
        return
    try:
        sink(event)
    except BaseException as error:
        scope = current_scope()
        if scope is not None and scope.minds_callbacks:
            scope.fail(error)
        elif isinstance(error, Exception):
            logger.exception("a progress callback failed; the transfer goes on")
        else:
            raise


def tee(*sinks: ProgressSink) -> ProgressSink:
    """Return a sink that hands each event to all of these; one that is broken hides none."""

    def hand_on(event: Event, /) -> None:
        failed: list[BaseException] = []
        for sink in sinks:
            try:
                sink(event)
            except BaseException as error:  # noqa: BLE001 - raised again below
                failed.append(error)
        if failed:
            raise failed[0]

    return hand_on


class Meter:
    """The progress of one subject; thins MOVING events to ten a second.

    Any thread may call any method.
    """

    def __init__(
        self,
        sink: ProgressSink | None,
        *,
        kind: str,
        subject: str,
        target: str,
        total: int | None,
    ) -> None:
        """Say nothing yet: the first event is the caller's."""
        self._sink = sink
        self._kind = kind
        self._subject = subject
        self._target = target
        self._total = total
        self._position = 0
        self._last = 0.0  # monotonic seconds of the last MOVING event
        self._lock = threading.Lock()

    @property
    def position(self) -> int:
        """Bytes, as last told."""
        return self._position

    def goes_on(self, position: int) -> None:
        """Tell where a transfer goes on that an earlier one had begun."""
        if position:
            self.state(State.STARTED, position=position)

    def at(self, position: int) -> None:
        """Tell the position; the event may be held back."""
        with self._lock:
            self._position = position
            due = self._due()
        if due:
            self._emit(State.MOVING, position, "")

    def add(self, count: int) -> None:
        """Tell that ``count`` more bytes are there; for writers that fill in any order."""
        with self._lock:
            self._position += count
            position = self._position
            due = self._due()
        if due:
            self._emit(State.MOVING, position, "")

    def _due(self) -> bool:
        """Whether a MOVING event may be sent; the caller holds the lock."""
        now = time.monotonic()
        if now - self._last < 0.1:
            return False
        self._last = now
        return True

    def state(self, state: State, *, position: int | None = None, detail: str = "") -> None:
        """Tell a change of state at once."""
        with self._lock:
            if position is not None:
                self._position = position
            position = self._position
        self._emit(state, position, detail)

    def _emit(self, state: State, position: int, detail: str) -> None:
        emit(
            self._sink,
            Event(self._kind, self._subject, self._target, state, position, self._total, detail),
        )


@contextlib.contextmanager
def told(meter: Meter, size: int) -> Iterator[None]:
    """Tell the beginning and the end of one blob."""
    meter.state(State.STARTED, position=0)
    try:
        yield
    except BaseException as error:  # told, then raised again
        meter.state(State.FAILED, detail=str(error))
        raise
    meter.state(State.DONE, position=size)
