"""A real registry with images that share a layer, and an empty one behind a relay."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from concil.transfer.mirror.report import MirrorItem
from tests.support.child_pids import child_pids, wait_for_ends
from tests.support.docker_registry import DockerRegistry, SharedDockerRegistries
from tests.support.images import Image, assert_same_image, make_image, make_layer, put_image
from tests.support.relay import Relay
from tests.support.request_log import RequestLog

SHARED = make_layer(1, 3 << 20)  # bytes
IMAGES = 12


@dataclass(frozen=True)
class Source:
    """A registry with images."""

    url: str
    images: dict[str, Image]  # by name

    def items(self, destination: str) -> list[MirrorItem]:
        """Each image to the same name below a destination."""
        return [MirrorItem(f"{self.url}/{name}", f"{destination}/{name}") for name in self.images]

    def assert_copied(self, url: str, prefix: str = "") -> None:
        """Assert that a registry has all images."""
        for name, image in self.images.items():
            repository, _, tag = name.partition(":")
            assert_same_image(url, f"{prefix}{repository}", tag, image)


@dataclass(frozen=True)
class Destination:
    """An empty registry behind a relay that sees every request."""

    registry: DockerRegistry
    relay: Relay
    log: RequestLog


@pytest.fixture(scope="session")
def source(docker_registries: SharedDockerRegistries) -> Source:
    docker_registry = docker_registries.get()
    images = {
        f"processes/app{number % 4}:v{number}": make_image(number, [SHARED, 1_000 + number])
        for number in range(IMAGES)
    }
    for name, image in images.items():
        repository, _, tag = name.partition(":")
        put_image(docker_registry.url, repository, tag, image)
    return Source(docker_registry.url, images)


@pytest.fixture
def destination(tmp_path: Path) -> Iterator[Destination]:
    log = RequestLog()
    with (
        DockerRegistry(tmp_path / "target", in_memory=True) as registry,
        Relay(registry.host, observer=log) as relay,
    ):
        yield Destination(registry, relay, log)


@pytest.fixture(autouse=True)
def no_process_is_left() -> Iterator[None]:
    yield
    wait_for_ends(child_pids(os.getpid()), 0)
