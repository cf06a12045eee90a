"""Registries behind relays that count: a source with an image, and destinations."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from concil.progress.events import Event, State
from concil.server import EmbeddedRegistry, ErrorResponse, RegistryBehavior
from concil.server.http import Request
from tests.engine.engine_setup import CHUNK
from tests.support.docker_registry import DockerRegistry
from tests.support.faults import Fault
from tests.support.images import assert_same_image, make_image, make_layer, put_image
from tests.support.relay import Relay
from tests.support.request_log import RequestLog

LAYERS = make_layer(1, 8 * CHUNK + 7), make_layer(2, 3 * CHUNK), make_layer(3, 5_000)
IMAGE = make_image(9, LAYERS)
BLOB_BYTES = sum(map(len, IMAGE.blobs.values()))
LARGEST = len(LAYERS[0].blob)
# Bytes of blobs, and 2 % for the heads of answers and for manifests.
MAX_SOURCE_BYTES = int(1.02 * BLOB_BYTES)


class Denying(RegistryBehavior):
    """Refuses each request that would write."""

    def before_request(self, request: Request) -> None:
        if request.method in ("POST", "PUT", "PATCH"):
            raise ErrorResponse("DENIED", "read only", status=403)


@dataclass
class Site:
    """A registry behind a relay that counts."""

    registry: EmbeddedRegistry | DockerRegistry
    relay: Relay
    log: RequestLog
    directory: Path  # of an embedded registry

    @property
    def address(self) -> str:
        """Where the image is copied to."""
        return f"{self.relay.url}/copy:v1"

    def assert_has_image(self) -> None:
        assert_same_image(self.registry.url, "copy", "v1", IMAGE)

    def blob_bytes(self) -> int:
        """Bytes of blobs that were sent to it."""
        return self.log.body_bytes("PATCH") + self.log.body_bytes("PUT", "/blobs/uploads/")


class Sites:
    """A source that has the image, and destinations; all end with the test."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self._directory = directory
        self._stack = stack
        self._count = 0
        self.source = self.add()
        put_image(self.source.registry.url, "app", "v1", IMAGE)
        self.source.relay.reset_counters()

    @property
    def image(self) -> str:
        """The address of the image at its source."""
        return f"{self.source.relay.url}/app:v1"

    def add(
        self,
        registry: EmbeddedRegistry | DockerRegistry | None = None,
        *,
        behavior: RegistryBehavior | None = None,
        rate: int | None = None,
    ) -> Site:
        """Start one more registry."""
        self._count += 1
        path = self._directory / f"site-{self._count}"
        if registry is None:
            registry = self._stack.enter_context(EmbeddedRegistry(path, behavior=behavior))
        log = RequestLog()
        relay = self._stack.enter_context(Relay(registry.host, observer=log, rate=rate))
        return Site(registry, relay, log, path)


class StalledUntil:
    """Stalls the uploads to a site, until the image has reached another one."""

    def __init__(self, stalled: Site, awaited: Site) -> None:
        self._awaited = awaited.relay.host
        self.relay = stalled.relay
        self.relay.add_fault(Fault(action="stall", after=CHUNK // 2, direction="up", times=None))
        self.is_done = threading.Event()

    def __call__(self, event: Event) -> None:
        if event.kind == "image" and self._awaited in event.target and event.state is State.DONE:
            self.is_done.set()
            self.relay.clear_faults()
