"""A live page whose mirror is the test, and a reader of its streams."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from concil.cli.output.mirror_page import describe_failure
from concil.errors import ConcilError, NotFound
from concil.oci.manifest import Digest
from concil.progress.events import Event, State
from concil.service.service_status import RunKind, RunResult, ServiceStatus
from concil.transfer.image.result import ImageResult
from concil.transfer.mirror.report import MirrorItem, Outcome
from concil.web.live_mirror import LiveMirror, MirrorNames
from tests.service.conftest import FakeClock

TIMEOUT = 30  # seconds
TOKEN = "a-token-of-20-bytes!"
HOST = "registry.example:5000"
DIGEST = Digest.parse(f"sha256:{'0' * 64}")


class LiveSetup:
    """What a mirror does, at times that a test chooses."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.status = ServiceStatus(describe_failure, clock)
        self.requested_runs = 0
        names = MirrorNames("Mirror of plan.toml", "plan.toml", f"{HOST}/mirror")
        self.live = LiveMirror(names, self.status, self.request_run)

    def request_run(self) -> bool:
        self.requested_runs += 1
        return self.status.snapshot().run is None

    def begin(self, kind: RunKind = RunKind.PLAN) -> None:
        self.live.begin_run(kind)

    def end(self, result: RunResult = RunResult.DONE) -> None:
        self.live.end_run(result)

    def blob(self, name: str, state: State, position: int = 0, detail: str = "") -> None:
        target = f"{HOST}/mirror/{name}"
        event = Event("blob", f"sha256:{name:0>64}", target, state, position, 1000, detail)
        self.live.record_event(event)

    def image(self, name: str, state: State = State.DONE, *, is_event: bool = True) -> None:
        """Let an image be copied, or found up to date."""
        item = MirrorItem(f"quay.io/{name}", f"{HOST}/mirror/{name}")
        result = ImageResult(item.source, item.destination, state, DIGEST)
        if is_event:
            self._image_event(item, State.STARTED)
            self._image_event(item, state)
        self.status.record_outcome(Outcome(item, result))

    def fail(self, name: str, error: ConcilError | None = None) -> None:
        """Let an image fail."""
        item = MirrorItem(f"quay.io/{name}", f"{HOST}/mirror/{name}")
        problem = error or NotFound("404 not there", remedy="check the tag")
        self._image_event(item, State.FAILED, str(problem))
        self.status.record_outcome(Outcome(item, error=problem))

    def pause(self, seconds: float) -> None:
        """Let a host pause."""
        self.live.record_event(
            Event("host", HOST, "", State.PAUSED, 0, None, "too many requests", seconds=seconds)
        )

    def _image_event(self, item: MirrorItem, state: State, detail: str = "") -> None:
        self.live.record_event(
            Event("image", item.source, item.destination, state, 0, None, detail)
        )


@dataclass(frozen=True, slots=True)
class SentEvent:
    """One message of a stream."""

    identifier: str
    event: str
    data: Any


class EventReader:
    """Reads server-sent events."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.response = response

    def next(self) -> SentEvent:
        """Return the next message."""
        fields = {"id": "", "event": "message", "data": ""}
        while True:
            line = self.response.readline().decode()
            assert line, "the stream has ended"
            name, _, value = line.rstrip("\n").partition(": ")
            if name in fields:
                fields[name] = value
            elif line == "\n" and fields["data"]:
                return SentEvent(fields["id"], fields["event"], json.loads(fields["data"]))

    def next_with(self, name: str, text: str) -> SentEvent:
        """Return the next message of a name whose data contains a text."""
        while True:
            found = self.next()
            if found.event == name and text in json.dumps(found.data):
                return found

    def is_at_end(self) -> bool:
        """Read to the end; an ending without one would time out."""
        try:
            while self.response.readline():
                pass
        except ConnectionError:
            pass
        return True


@contextmanager
def follow(url: str, path: str, headers: Mapping[str, str] | None = None) -> Iterator[EventReader]:
    """Open a stream."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=TIMEOUT)
    try:
        connection.request("GET", path, headers=dict(headers or {}))
        response = connection.getresponse()
        assert response.status == 200, response.read()
        yield EventReader(response)
    finally:
        connection.close()
