"""Registries behind relays that count, cut and fall silent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from concil.engine.engine import Engine
from concil.server import EmbeddedRegistry
from tests.engine.engine_setup import CHUNK
from tests.support.docker_registry import DockerRegistry
from tests.support.images import assert_same_image, make_image, put_image
from tests.support.relay import Relay
from tests.support.request_log import RequestLog

SIZE = 8 * CHUNK + 7
MIDDLE = 3 * CHUNK + CHUNK // 2
HEADS = 60_000  # bytes of heads and manifests beside the blobs
IMAGE = make_image(7, (SIZE,))
BLOBS = sum(map(len, IMAGE.blobs.values()))


@dataclass
class RelayedRegistry:
    """A registry behind a relay that counts."""

    relay: Relay
    log: RequestLog
    registry: EmbeddedRegistry | DockerRegistry

    def sent(self) -> int:
        """Bytes of blobs that passed towards the registry."""
        return self.log.body_bytes("PATCH") + self.log.body_bytes("PUT", "/blobs/uploads/")


@contextmanager
def relay_registry(registry: EmbeddedRegistry | DockerRegistry) -> Iterator[RelayedRegistry]:
    """Put a relay in front of a registry."""
    log = RequestLog()
    with Relay(registry.host, observer=log) as relay:
        yield RelayedRegistry(relay, log, registry)


@contextmanager
def short_timeout_registry(path: Path) -> Iterator[EmbeddedRegistry]:
    """Run a registry that gives a silent connection up after a second, as our clients do."""
    registry = EmbeddedRegistry(path)
    registry.idle_timeout = 1.0
    with registry:
        yield registry


@dataclass
class RegistryPair:
    """Two registries, each behind a relay."""

    source: RelayedRegistry
    destination: RelayedRegistry

    def copy(self, engine: Engine) -> None:
        """Copy the image; it is right in the end."""
        name = "copied"
        put_image(self.source.registry.url, name, "v1", IMAGE)
        engine.copy(f"{self.source.relay.url}/{name}:v1", f"{self.destination.relay.url}/{name}:v1")
        assert_same_image(self.destination.registry.url, name, "v1", IMAGE)
