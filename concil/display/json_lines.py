"""Writes one line per event: plain text or JSON."""

from __future__ import annotations

import dataclasses
import json
import threading
from datetime import UTC, datetime

from concil.display.output import Output
from concil.runtime.forking import register_after_fork

TYPE_CHECKING = False  # as that of typing, which takes longer to import than this module
if TYPE_CHECKING:
    from concil.display.stopping import Stopping
    from concil.progress.events import Event
    from concil.progress.snapshot import ProgressSnapshot
    from concil.progress.totals import ProgressTotals

__all__ = ["_LineDisplay", "event_fields"]


def event_fields(event: Event) -> dict[str, object]:
    """Return the fields of an event in JSON, without its time."""
    document = dataclasses.asdict(event)
    if not event.worker:  # empty without a cluster
        del document["worker"]
    return document


class _LineDisplay:
    """Writes lines at once: text lines only, or each event as JSON.

    Programs parse the fields, which docs/reports.md documents.
    """

    def __init__(self, output: Output, *, as_json: bool) -> None:
        self._output = output
        self._as_json = as_json
        self._lock = threading.Lock()  # held while writing, so that lines do not mix
        self._totals: ProgressTotals | None = None  # None: there were no events
        register_after_fork(self, _LineDisplay.after_fork)

    def after_fork(self) -> None:
        """Replace the lock in a forked child: the parent's threads may hold it."""
        self._lock = threading.Lock()

    def __call__(self, event: Event) -> None:
        """Count the event, and write it as a JSON object if the output is JSON."""
        self._count().record_event(event)
        if self._as_json:
            self._write_json(event_fields(event))

    def write(self, line: str, level: str = "") -> None:
        """Write the line; as JSON it is an event of kind "log"."""
        if self._as_json:
            self._write_json({"kind": "log", "level": level, "message": line})
        else:
            self._write_line(line)

    lists_images = False  # whether each image that has ended has a line of text

    def set_expected_images(self, images: int | None, *, lists_images: bool = True) -> None:  # noqa: ARG002  # as the protocol has it
        """Set the number of images of a mirror, for the end of an interrupted one."""
        self._count().set_expected_images(images)

    def snapshot(self) -> ProgressSnapshot | None:
        """Return the totals; None if there were no events."""
        return None if self._totals is None else self._totals.snapshot()

    def show_stopping(self, stopping: Stopping) -> None:
        """Write nothing: the end of the command is a line."""

    def close(self) -> None:
        """Do nothing: nothing was drawn."""

    def _count(self) -> ProgressTotals:
        with self._lock:
            if self._totals is None:
                from concil.progress.totals import ProgressTotals  # noqa: PLC0415  # for transfers

                self._totals = ProgressTotals()
            return self._totals

    def _write_json(self, document: dict[str, object]) -> None:
        with self._lock:  # so that times increase from line to line
            now = datetime.now(UTC).isoformat(timespec="milliseconds")
            self._output.write(json.dumps({"time": now, **document}) + "\n")

    def _write_line(self, line: str) -> None:
        with self._lock:
            self._output.write(line + "\n")
