"""What a mirror does at the moment: its service, the run that goes on, and its events."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable

from concil.progress.events import Event
from concil.progress.totals import ProgressTotals
from concil.report.timeline import Timeline
from concil.runtime.dataclass import dataclass
from concil.service.service_status import Run, RunKind, RunResult, ServiceStatus
from concil.web.event_log import EventLog

MAX_LIVE_RECORDS = 10_000  # transfers, and images, that the live page shows


@dataclass(frozen=True, slots=True)
class MirrorNames:
    """What is mirrored, as people read it: without passwords."""

    title: str
    plan: str
    destination: str


@dataclass(frozen=True, slots=True)
class ObservedRun:
    """A run, and what is known of its transfers."""

    number: int  # 0: before the first run
    timeline: Timeline
    totals: ProgressTotals


class LiveMirror:
    """Receives what happens in a mirror, for the live page. Thread-safe.

    The methods that the threads of the mirror call are cheap and never wait for a reader.
    """

    def __init__(
        self,
        names: MirrorNames,
        status: ServiceStatus,
        request_run: Callable[[], bool] | None = None,
    ) -> None:
        """Create it before the first run.

        Args:
            request_run: lets a run begin now; returns False if one goes on. None: it cannot.
        """
        self.names = names
        self.status = status
        self.request_run = request_run
        self.events = EventLog()
        self.instance = secrets.token_hex(4)  # numbers of an earlier process mean nothing
        self._lock = threading.Lock()  # guards the field below
        self._observed = ObservedRun(0, Timeline(1, is_live=True), ProgressTotals())
        self._observed.timeline.stop()

    @property
    def observed(self) -> ObservedRun:
        """The run that goes on, or the last one."""
        with self._lock:
            return self._observed

    def begin_run(self, kind: RunKind) -> None:
        """Begin a run."""
        run = self.status.begin_run(kind)
        observed = ObservedRun(
            run.number, Timeline(MAX_LIVE_RECORDS, is_live=True), ProgressTotals()
        )
        with self._lock:
            self._observed = observed
        self.events.add_run(run)

    def leave_out_run(self, kind: RunKind) -> None:
        """Record a run that was left out; what is known of the last one stays."""
        self.status.begin_run(kind)
        self.events.add_run(self.status.end_run(RunResult.LEFT_OUT))

    def end_run(self, result: RunResult, detail: str = "") -> Run:
        """End the run."""
        if result is RunResult.INTERRUPTED:
            self.observed.timeline.interrupt()
        self.observed.timeline.stop()  # first: readers look at the status first
        run = self.status.end_run(result, detail)
        self.events.add_run(run)
        return run

    def record_event(self, event: Event) -> None:
        """Record a progress event of the run."""
        observed = self._observed
        observed.timeline(event)
        observed.totals.record_event(event)
        self.status.record_activity(event.seconds or 0.0)
        self.events.add(event)

    def record_message(self, level: str, message: str) -> None:
        """Record a message for people."""
        self.status.record_activity()
        self.events.add_log(level, message)

    def set_expected_images(self, images: int | None) -> None:
        """Set the number of images of the run; None: not known yet."""
        observed = self._observed
        observed.timeline.set_expected_images(images or 0)
        observed.totals.set_expected_images(images)
