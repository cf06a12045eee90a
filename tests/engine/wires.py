"""Registries behind relays that count, cut and fall silent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from concil.engine import Engine
from concil.server import EmbeddedRegistry
from tests.engine.world import CHUNK
from tests.lab.images import assert_same_image, make_image, put_image
from tests.lab.registry import DockerRegistry
from tests.lab.relay import Relay
from tests.lab.requests_seen import RequestLog

SIZE = 8 * CHUNK + 7
MIDDLE = 3 * CHUNK + CHUNK // 2
HEADS = 60_000  # bytes of heads and manifests beside the blobs
IMAGE = make_image(7, (SIZE,))
BLOBS = sum(map(len, IMAGE.blobs.values()))


@dataclass
class Wire:
    """A registry behind a relay that counts."""

    relay: Relay
    log: RequestLog
    registry: EmbeddedRegistry | DockerRegistry

    def sent(self) -> int:
        """Bytes of blobs that passed towards the registry."""
        return self.log.body_bytes("PATCH") + self.log.body_bytes("PUT", "/blobs/uploads/")


@contextmanager
def wire_to(registry: EmbeddedRegistry | DockerRegistry) -> Iterator[Wire]:
    """Put a relay in front of a registry."""
    log = RequestLog()
    with Relay(registry.host, observer=log) as relay:
        yield Wire(relay, log, registry)


@contextmanager
def impatient_registry(path: Path) -> Iterator[EmbeddedRegistry]:
    """Run a registry that gives a silent connection up after a second, as our clients do."""
    registry = EmbeddedRegistry(path)
    registry.idle = 1.0
    with registry:
        yield registry


@dataclass
class Two:
    """Two registries, each behind a relay."""

    source: Wire
    target: Wire

    def copy(self, engine: Engine) -> None:
        """Copy the image; it is right in the end."""
        name = "copied"
        put_image(self.source.registry.url, name, "v1", IMAGE)
        engine.copy(f"{self.source.relay.url}/{name}:v1", f"{self.target.relay.url}/{name}:v1")
        assert_same_image(self.target.registry.url, name, "v1", IMAGE)
