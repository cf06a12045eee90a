"""The last progress events, for programs that follow them."""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from datetime import UTC, datetime

from concil.display.json_lines import event_fields
from concil.progress.events import Event
from concil.service.service_status import Run

MAX_EVENTS = 5000  # that are remembered


class EventLog:
    """The last events, with numbers. Thread-safe.

    Adding an event is cheap and never waits for a reader: a reader that falls too far behind
    misses events.
    """

    def __init__(self, max_events: int = MAX_EVENTS) -> None:
        """Create it without events."""
        self._lock = threading.Lock()  # guards the fields below
        self._last_number = 0
        # Number, seconds since the epoch, and the event. Most are never encoded.
        self._events: deque[tuple[int, float, Event | dict[str, object]]] = deque(maxlen=max_events)

    @property
    def last_number(self) -> int:
        """Number of the last event; 0: there was none."""
        return self._last_number

    def add(self, event: Event) -> None:
        """Add a progress event."""
        self._append(event)

    def add_log(self, level: str, message: str) -> None:
        """Add a message for people."""
        self._append({"kind": "log", "level": level or "info", "message": message})

    def add_run(self, run: Run) -> None:
        """Add the beginning or the end of a run."""
        self._append(
            {
                "kind": "run",
                "number": run.number,
                "run": run.kind,
                "state": run.result or "started",
                "seconds": None if run.seconds is None else round(run.seconds, 3),
                "copied": run.copied,
                "up_to_date": run.up_to_date,
                "failed": run.failed,
                "bytes_sent": run.bytes_sent,
                "detail": run.detail,
            }
        )

    def after(self, number: int, limit: int) -> tuple[int, list[tuple[int, str]]]:
        """Return the events after a number.

        Args:
            limit: at most so many events.

        Returns:
            How many were missed, and the events as JSON with their numbers. A number that was
            not given out yet counts as that of the last event.
        """
        with self._lock:
            number = min(number, self._last_number)
            first = self._events[0][0] if self._events else self._last_number + 1
            missed = max(0, first - number - 1)
            start = max(0, number + 1 - first)
            found = [self._events[n] for n in range(start, min(len(self._events), start + limit))]
        return missed, [(n, _encode(moment, event)) for n, moment, event in found]

    def _append(self, event: Event | dict[str, object]) -> None:
        with self._lock:
            self._last_number += 1
            self._events.append((self._last_number, time.time(), event))


def _encode(moment: float, event: Event | dict[str, object]) -> str:
    """Return an event as `--progress json` prints it."""
    fields = event_fields(event) if isinstance(event, Event) else event
    moment_text = datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds")
    return json.dumps({"time": moment_text, **fields})
