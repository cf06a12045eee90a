"""Writes one line per event: plain text or JSON."""

from __future__ import annotations

import dataclasses
import json
import threading
from datetime import UTC, datetime

from concil.display.output import Output
from concil.progress.events import Event
from concil.runtime.forking import register_after_fork

__all__ = ["_LineDisplay"]


class _LineDisplay:
    """Writes lines at once: text lines only, or each event as JSON.

    Programs parse the fields, which docs/reports.md documents.
    """

    def __init__(self, output: Output, *, as_json: bool) -> None:
        self._output = output
        self._as_json = as_json
        self._lock = threading.Lock()  # held while writing, so that lines do not mix
        register_after_fork(self, _LineDisplay.after_fork)

    def after_fork(self) -> None:
        """Replace the lock in a forked child: the parent's threads may hold it."""
        self._lock = threading.Lock()

    def __call__(self, event: Event) -> None:
        """Write the event as a JSON object, if the output is JSON."""
        if self._as_json:
            document = dataclasses.asdict(event)
            if not event.worker:  # empty without a cluster
                del document["worker"]
            self._write_json(document)

    def write(self, line: str, level: str = "") -> None:
        """Write the line; as JSON it is an event of kind "log"."""
        if self._as_json:
            self._write_json({"kind": "log", "level": level, "message": line})
        else:
            self._write_line(line)

    def set_expected_images(self, images: int) -> None:
        """Do nothing: totals are not shown."""

    def close(self) -> None:
        """Do nothing: nothing was drawn."""

    def _write_json(self, document: dict[str, object]) -> None:
        with self._lock:  # so that times increase from line to line
            now = datetime.now(UTC).isoformat(timespec="milliseconds")
            self._output.write(json.dumps({"time": now, **document}) + "\n")

    def _write_line(self, line: str) -> None:
        with self._lock:
            self._output.write(line + "\n")
