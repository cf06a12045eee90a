"""Batches progress events for another process."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any, TypeAlias

from concil.progress.events import Event, ProgressSink, State, emit

logger = logging.getLogger(__name__)

_INTERVAL = 0.2  # seconds between messages
Rows: TypeAlias = list[list[Any]]  # one for each event


class ProgressBatcher:
    """A progress sink that batches events; of each subject it keeps the latest one."""

    def __init__(self, name: str, send: Callable[[Rows], object]) -> None:
        """Send the events of the process ``name`` by ``send``; its exceptions are logged."""
        self._name = name
        self._send = send
        self._lock = threading.Lock()  # guards the fields below and the order of messages
        self._pending: dict[tuple[str, str, str, bool], list[Any]] = {}
        self._last_sent = 0.0  # monotonic seconds

    def __call__(self, event: Event, /) -> None:
        """Add an event, and send all if it is time."""
        key = (event.kind, event.subject, event.target, event.state is State.MOVING)
        # Not `astuple`, which copies all values and takes ten times as long.
        row = [
            event.kind,
            event.subject,
            event.target,
            event.state.value,
            event.position,
            event.total,
            event.detail,
            f"{self._name} {threading.current_thread().name}",
        ]
        with self._lock:
            self._pending.pop(key, None)
            self._pending[key] = row
            if time.monotonic() - self._last_sent < _INTERVAL:
                return
            self._flush()

    def flush(self) -> None:
        """Send the pending events."""
        with self._lock:
            self._flush()

    def _flush(self) -> None:
        rows, self._pending = list(self._pending.values()), {}
        self._last_sent = time.monotonic()
        if not rows:
            return
        try:
            self._send(rows)
        except Exception:  # whatever `send` raises: progress errors must not end a transfer
            logger.exception("progress events cannot be sent to the other process")


def emit_batch(sink: ProgressSink | None, rows: Rows) -> None:
    """Emit the events of a batch."""
    for kind, subject, target, state, *details in rows:
        emit(sink, Event(kind, subject, target, State(state), *details))
