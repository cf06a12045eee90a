"""The totals of progress events at one moment."""

from __future__ import annotations

from dataclasses import replace

from concil.progress.events import State
from concil.runtime.dataclass import dataclass

_FIELD_BY_STATE = {
    State.DONE: "copied",
    State.PRESENT: "up_to_date",
    State.FAILED: "failed",
    State.CANCELLED: "cancelled",
}


@dataclass(frozen=True, slots=True)
class ImageCounts:
    """How many images have ended in which way."""

    copied: int = 0
    up_to_date: int = 0
    failed: int = 0
    cancelled: int = 0  # images that were begun, and not finished before the end
    total: int | None = None  # None: not known yet, or no images are counted

    def plus(self, state: State) -> ImageCounts:
        """Return the counts with one more image in a final state."""
        name = _FIELD_BY_STATE.get(state, "copied")
        return replace(self, **{name: getattr(self, name) + 1})

    def with_total(self, active_count: int, expected: int | None) -> ImageCounts:
        """Return the counts with their total, which is never below the images seen."""
        total = None if expected is None else max(expected, self.ended + active_count)
        return replace(self, total=total)

    @property
    def done(self) -> int:
        """Number of images that are at their destination."""
        return self.copied + self.up_to_date

    @property
    def ended(self) -> int:
        """Number of images that have ended in any way."""
        return self.done + self.failed + self.cancelled


@dataclass(frozen=True, slots=True)
class BlobProgress:
    """A blob that is being transferred."""

    image: str  # source of the image for which it is transferred; "" for a single blob
    subject: str  # a digest or a file
    target: str  # name of the destination
    state: State
    position: int  # bytes
    total: int | None  # bytes; None: not known
    rate: float | None  # bytes per second; None: too early to tell
    elapsed: float  # seconds since it was started
    bytes_present: int = 0  # bytes that were transferred before this run
    resumed_at: int = 0  # bytes; 0: it was not resumed
    stalled_seconds: float = 0.0  # since the last byte; 0: it moves
    detail: str = ""  # why it is retried, or was restarted


@dataclass(frozen=True, slots=True)
class PausedHost:
    """A host that accepts no requests at present."""

    host: str  # host[:port]
    reason: str
    seconds_left: float


@dataclass(frozen=True, slots=True)
class ProgressSnapshot:
    """The totals at one moment."""

    bytes_done: int  # bytes that the destinations have
    bytes_total: int  # bytes of all blobs that are known so far
    rate: float | None  # bytes per second; None: too early to tell
    elapsed: float  # seconds
    images: ImageCounts
    is_total_known: bool  # whether all blobs of all images are known
    active_blobs: tuple[BlobProgress, ...]  # by start time, without waiting ones
    paused_hosts: tuple[PausedHost, ...]
    resumable_blobs: tuple[BlobProgress, ...]  # cancelled with bytes at their destination

    @property
    def is_stalled(self) -> bool:
        """Whether there are blobs, and none of them moves."""
        blobs = self.active_blobs
        return bool(blobs) and all(b.stalled_seconds or b.state is State.RETRYING for b in blobs)
