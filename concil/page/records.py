"""What the page knows of one transfer and of one image."""

from __future__ import annotations

from dataclasses import dataclass, field

from concil.progress import State

MOST_LOSSES = 20  # of one transfer that are kept one by one
_MOST_TEXT = 600  # characters


@dataclass(slots=True)
class Loss:
    """A try that broke off, and the time until bytes moved again."""

    lane: int  # which worker's
    at: float  # seconds since the run began
    why: str
    until: float | None = None


@dataclass(slots=True)
class Transfer:
    """One blob on its way; every time is in seconds since the run began."""

    digest: str
    target: str
    seen: float  # when it was first told of: from then on it waited
    waited: bool = False  # for a worker
    total: int | None = None  # bytes
    state: State = State.WAITING
    lane: int = -1  # the worker that began it, or found that there was nothing to do
    started: float | None = None
    ended: float | None = None
    last: float = 0.0  # when it was last told of
    position: int = 0  # bytes
    resumed: int = 0  # bytes that were there from an earlier run
    lost: int = 0  # tries that broke off
    losses: list[Loss] = field(default_factory=list)
    helped: dict[int, tuple[float, float]] = field(default_factory=dict)  # other workers: from, to
    why: str = ""

    @property
    def weight(self) -> float:
        """How much somebody wants to see it: failures, then losses, then the slowest."""
        if self.state is State.FAILED:
            return 2e12
        if self.lost:
            return 1e12 + self.lost
        if self.state is not State.DONE:
            return -1.0  # nothing was moved
        return (self.ended or 0.0) - (self.started or 0.0)


@dataclass(slots=True)
class ImageSpan:
    """One image; every time is in seconds since the run began."""

    source: str
    target: str
    state: State = State.STARTED
    started: float | None = None
    ended: float | None = None
    sent: int = 0  # bytes
    why: str = ""

    @property
    def weight(self) -> float:
        """As of a transfer."""
        if self.state is State.FAILED:
            return 1e12
        if self.state is not State.DONE or self.started is None or self.ended is None:
            return -1.0
        return self.ended - self.started


def clipped(text: str) -> str:
    """A text that a stranger may have made very long."""
    return text if len(text) <= _MOST_TEXT else text[: _MOST_TEXT - 3] + "..."
