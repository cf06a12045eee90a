"""Where everything stands that a sink was told of: positions added up, and how fast they grow."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass, replace

from concil.forking import renew_in_child
from concil.progress import Event, State

_WINDOW = 10.0  # seconds that the rate is taken over


@dataclass(slots=True)
class Running:
    """A blob that is under way."""

    label: str
    began: float  # monotonic seconds
    position: int = 0  # bytes
    total: int = 0  # bytes
    state: State = State.STARTED
    spared: int = 0  # bytes that were there before this run


@dataclass(frozen=True, slots=True)
class Standing:
    """Everything together, at one moment."""

    done: int  # bytes
    total: int  # bytes
    rate: float | None  # bytes a second; None: too early to tell
    elapsed: float  # seconds
    images: str  # how many, in words; "" if it is only one
    complete: bool  # whether every image has begun, so that the total is all there is
    running: tuple[Running, ...]  # those that began first in front


class Tally:
    """Adds positions up. Any thread may call any method."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards the fields below
        renew_in_child(self, Tally.after_fork)
        self._began = time.monotonic()
        self._running: dict[tuple[str, str], Running] = {}
        self._done = 0  # bytes of blobs that ended well
        self._spared = 0  # bytes of these that this run did not move
        self._images: set[tuple[str, str]] = set()  # that have begun and not ended
        self._ended = 0  # images
        self._expected = 0  # images
        self._samples: deque[tuple[float, int]] = deque([(self._began, 0)])

    def after_fork(self) -> None:
        """Have a lock that no thread of the parent holds."""
        self._lock = threading.Lock()

    def take(self, event: Event) -> None:
        """Take note of an event."""
        key = (event.subject, event.target)
        with self._lock:
            if event.kind == "image":
                self._count(key, final=event.state.final)
            elif event.state.final:
                known = self._running.pop(key, None)
                self._end(event, known.spared if known else 0)
            else:
                running = self._running.get(key)
                if running is None:
                    running = Running(_label(event.subject), time.monotonic())
                    self._running[key] = running
                if running.state is State.WAITING:
                    running.began = time.monotonic()
                if event.state is State.STARTED:
                    running.spared = event.position
                running.spared = min(running.spared, event.position)
                running.position = event.position
                running.total = event.total or 0
                running.state = event.state

    def _count(self, image: tuple[str, str], *, final: bool) -> None:
        """Keep only those under way: there may be a hundred thousand. The caller holds the lock."""
        if final:
            self._images.discard(image)
            self._ended += 1
        else:
            self._images.add(image)

    def expect(self, images: int) -> None:
        """Take note of how many images there will be."""
        with self._lock:
            self._expected = images

    def _end(self, event: Event, spared: int) -> None:
        """Keep the bytes of what ended well. The caller holds the lock."""
        if event.state is State.FAILED:
            return
        size = event.position if event.total is None else event.total
        self._done += size
        self._spared += spared if event.state is State.DONE else size

    def sum(self) -> Standing:
        """Return where everything stands; asked at steady intervals, for the rate."""
        now = time.monotonic()
        with self._lock:
            known = [replace(each) for each in self._running.values()]
            ended, begun = self._ended, self._ended + len(self._images)
            count = max(begun, self._expected)
            done = self._done + sum(each.position for each in known)
            total = self._done + sum(each.total for each in known)
            spared = self._spared + sum(each.spared for each in known)
            self._samples.append((now, done - spared))
            while len(self._samples) > 2 and now - self._samples[1][0] > _WINDOW:
                self._samples.popleft()
            (first, before), (last, moved) = self._samples[0], self._samples[-1]
        rate = max(0, moved - before) / (last - first) if last - first > 0.2 else None
        images = f"{ended}/{count} images" if count > 1 else ""
        running = sorted((e for e in known if e.state is not State.WAITING), key=_beginning)
        elapsed = now - self._began
        return Standing(done, total, rate, elapsed, images, begun == count, tuple(running))


def _beginning(running: Running) -> float:
    return running.began


def _label(subject: str) -> str:
    """A few characters of a digest, or the end of a name."""
    algorithm, colon, value = subject.partition(":")
    if colon and algorithm in ("sha256", "sha512"):
        return value[:12]
    return "".join(c if c.isprintable() else "?" for c in subject)[-12:]
