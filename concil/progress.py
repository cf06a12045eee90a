"""Progress as positions: events, where they go, and a meter that thins them out."""

from __future__ import annotations

import enum
import logging
import threading
import time
from dataclasses import dataclass
from typing import Protocol

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


class ProgressSink(Protocol):
    """Whatever wants to know; called from any thread, one event at a time or not."""

    def __call__(self, event: Event, /) -> None:
        """Take one event; an exception raised here is logged and otherwise ignored."""


def emit(sink: ProgressSink | None, event: Event) -> None:
    """Hand an event to a sink that may be absent or broken; a transfer never fails by it."""
    if sink is None:
        return
    try:
        sink(event)
    except Exception:  # a caller's callback may raise anything
        logger.exception("a progress callback failed; the transfer goes on")


def tee(*sinks: ProgressSink) -> ProgressSink:
    """Return a sink that hands each event to all of these; one that is broken hides none."""

    def hand_on(event: Event, /) -> None:
        for sink in sinks:
            emit(sink, event)

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
