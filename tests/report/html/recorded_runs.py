"""Runs that are told to a timeline event by event, at times that a test chooses."""

from __future__ import annotations

import heapq
import json
import random
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

from concil.progress.events import Event, State
from concil.report.timeline import MAX_RECORDS, Timeline

MIB = 1024 * 1024
HOST = "registry.example:5000/mirror"
RESET = "PATCH https://registry.example:5000/v2/app: connection reset by peer"


def read_page_data(page: str) -> dict[str, Any]:
    """What a page was given, as its script reads it."""
    [found] = re.findall(
        r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL
    )
    document: dict[str, Any] = json.loads(found)
    return document


class RecordedRun:
    """A timeline whose clock and threads a test sets. One thread."""

    def __init__(self, most: int = MAX_RECORDS) -> None:
        self.now = 100.0  # seconds
        self.end = 0.0  # seconds until the last event
        with self._at(0, "main"):
            self.timeline = Timeline(most)

    def emit(self, at: float, worker: str, event: Event) -> None:
        """Let a worker tell an event, so many seconds after the beginning."""
        self.end = max(self.end, at)
        with self._at(at, worker):
            self.timeline(event)

    def blob(  # noqa: PLR0917  # one event is that many words
        self,
        at: float,
        worker: int,
        name: str,
        state: State,
        position: int = 0,
        total: int = 1000,
        detail: str = "",
    ) -> None:
        """Let a worker tell what has become of a blob."""
        event = Event("blob", digest(name), f"{HOST}/app", state, position, total, detail)
        self.emit(at, f"concil-worker-{worker}", event)

    def image(self, at: float, name: str, state: State, sent: int = 0, why: str = "") -> None:
        """Let a coordinator tell what has become of an image."""
        event = Event("image", f"quay.io/{name}", f"{HOST}/{name}", state, sent, None, why)
        self.emit(at, "concil-image-1", event)

    def data(self, at: float, **options: Any) -> dict[str, Any]:  # noqa: ANN401
        """What the page shows at a time."""
        return read_page_data(self.page(at, **options))

    def page(self, at: float, **options: Any) -> str:  # noqa: ANN401
        """The page as it is at a time."""
        with self._at(at, "main"):
            return self.timeline.page(**options)

    @contextmanager
    def _at(self, at: float, worker: str) -> Iterator[None]:
        def clock() -> float:
            return self.now + at

        thread = threading.current_thread()
        name, thread.name = thread.name, worker
        try:
            with mock.patch.object(time, "monotonic", clock):
                yield
        finally:
            thread.name = name


def digest(name: str) -> str:
    """A digest that begins with a name of hexadecimal digits."""
    return f"sha256:{name:0<64}"


@dataclass(frozen=True, slots=True)
class _TimedEvent:
    """An event with its time and its worker."""

    at: float
    number: int
    worker: str
    event: Event

    def __lt__(self, other: _TimedEvent) -> bool:
        return (self.at, self.number) < (other.at, other.number)


def long_run(transfers: int, workers: int = 8, seed: int = 1) -> RecordedRun:
    """A mirror as large as one likes: five blobs an image, losses and failures among them."""
    chance = random.Random(seed)
    free = [(0.0, n) for n in range(workers)]
    told: list[_TimedEvent] = []

    def tell(at: float, worker: str, event: Event) -> None:
        told.append(_TimedEvent(at, len(told), worker, event))

    for n in range(transfers):
        begin, worker = heapq.heappop(free)
        name = f"team-{n // 5 % 97}/app-{n // 5 % 13}"
        end = _tell_blob(chance, begin, f"concil-worker-{worker}", name, tell)
        if n % 5 == 4:
            names = (f"quay.io/{name}:v{n // 5}", f"{HOST}/{name}:v{n // 5}")
            missing = n % 997 < 5
            why = "404 Client Error: MANIFEST_UNKNOWN" if missing else ""
            state = State.FAILED if missing else State.DONE
            tell(
                max(0.0, begin - 0.5), "concil-image-1", Event("image", *names, State.STARTED, 0, 0)
            )
            tell(end, "concil-image-1", Event("image", *names, state, 5000, None, why))
        heapq.heappush(free, (end + 0.001, worker))
    recorded_run = RecordedRun()
    for each in sorted(told):
        recorded_run.emit(each.at, each.worker, each.event)
    return recorded_run


def _tell_blob(chance: random.Random, begin: float, worker: str, name: str, tell: Any) -> float:  # noqa: ANN401
    """One blob that begins at a time; return when it ends."""
    size = int(chance.lognormvariate(11, 2.2)) + 200
    blob = f"sha256:{chance.getrandbits(256):064x}"

    def event(state: State, position: int, detail: str = "") -> Event:
        return Event("blob", blob, f"{HOST}/{name}", state, position, size, detail)

    tell(max(0.0, begin - chance.random()), "concil-image-1", event(State.WAITING, 0))
    luck = chance.random()
    if luck < 0.2:
        tell(begin + 0.003, worker, event(State.MOUNTED if luck < 0.15 else State.PRESENT, size))
        return begin + 0.003
    tell(begin, worker, event(State.STARTED, 0))
    took = 0.01 + size / 8e6
    steps = max(1, int(took / 0.1))
    for step in range(steps):
        at = begin + took * step / steps
        tell(at, worker, event(State.MOVING, size * step // steps))
    end = begin + took
    for _ in range(chance.randint(1, 3) if chance.random() < 0.02 else 0):
        tell(end, worker, event(State.RETRYING, size // 2, RESET))
        end += chance.random() * 2
        tell(end, worker, event(State.MOVING, size // 2))
    if chance.random() < 0.004:
        tell(end, worker, event(State.FAILED, size // 2, "503 Service Unavailable; gave up"))
    else:
        tell(end, worker, event(State.DONE, size))
    return end
