"""Records of single transfers and images for the page."""

from __future__ import annotations

from dataclasses import field

from concil.progress.events import State
from concil.runtime.dataclass import dataclass

MAX_INTERRUPTIONS = 20  # kept for each transfer
_MAX_TEXT_LENGTH = 600  # characters


@dataclass(slots=True)
class Interruption:
    """A failed attempt, and the time until bytes moved again."""

    lane: int  # index of the worker
    start: float  # seconds since the start of the run
    detail: str
    end: float | None = None


@dataclass(slots=True)
class Transfer:
    """The transfer of one blob; all times are in seconds since the start of the run."""

    digest: str
    target: str
    queued: float  # time of its first event
    was_queued: bool = False  # whether it waited for a worker
    total: int | None = None  # bytes
    state: State = State.WAITING
    lane: int = -1  # index of the worker that started it or found nothing to do
    started: float | None = None
    ended: float | None = None
    last_update: float = 0.0  # time of its last event
    position: int = 0  # bytes
    resume_offset: int = 0  # bytes present from an earlier run
    interruption_count: int = 0  # failed attempts
    interruptions: list[Interruption] = field(default_factory=list)
    helpers: dict[int, tuple[float, float]] = field(default_factory=dict)  # other workers: from, to
    detail: str = ""
    number: int = 0  # of the record in its timeline

    @property
    def weight(self) -> float:
        """Priority in the report: failures, then interruptions, then the slowest transfers."""
        if self.state is State.FAILED:
            return 2e12
        if self.interruption_count:
            return 1e12 + self.interruption_count
        if self.state is not State.DONE:
            return -1.0  # nothing was transferred
        return (self.ended or 0.0) - (self.started or 0.0)


@dataclass(slots=True)
class ImageSpan:
    """The copy of one image; all times are in seconds since the start of the run."""

    source: str
    target: str
    state: State = State.STARTED
    started: float | None = None
    ended: float | None = None
    sent: int = 0  # bytes
    detail: str = ""
    number: int = 0  # of the record in its timeline

    @property
    def weight(self) -> float:
        """Priority in the report, as of a transfer."""
        if self.state is State.FAILED:
            return 1e12
        if self.state is not State.DONE or self.started is None or self.ended is None:
            return -1.0
        return self.ended - self.started


def truncate(text: str) -> str:
    """Truncate a text: a registry may send a very long one."""
    return text if len(text) <= _MAX_TEXT_LENGTH else text[: _MAX_TEXT_LENGTH - 3] + "..."
