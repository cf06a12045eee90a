"""One cluster of three workers for all these tests, and two real registries for each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from concil.transfer.mirror.report import MirrorItem
from tests.support.dask import DaskProcesses
from tests.support.docker_registry import DockerRegistry
from tests.support.images import Image, make_image, make_layer, put_image
from tests.support.relay import Relay
from tests.support.request_log import RequestLog

LARGE = make_layer(1, 12 << 20)  # bytes; above what only one worker may send
IMAGES = 12


@dataclass(frozen=True)
class SourceRegistry:
    """A registry with images that share a large layer."""

    registry: DockerRegistry
    images: dict[str, Image]  # by name

    def items(self, destination: str, prefix: str) -> list[MirrorItem]:
        """Each image to the same name below a prefix of another registry."""
        return [
            MirrorItem(f"{self.registry.url}/{name}", f"http://{destination}/{prefix}/{name}")
            for name in self.images
        ]


@dataclass(frozen=True)
class DestinationRegistry:
    """An empty registry behind a relay that sees every request."""

    registry: DockerRegistry
    relay: Relay
    log: RequestLog


@pytest.fixture(scope="session")
def dask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskProcesses]:
    with DaskProcesses(tmp_path_factory.mktemp("dask"), workers=3) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SourceRegistry]:
    images = {
        f"app{number % 4}:v{number}": make_image(number, [LARGE, 1_000 + number])
        for number in range(IMAGES)
    }
    with DockerRegistry(tmp_path_factory.mktemp("origin"), in_memory=True) as registry:
        for name, image in images.items():
            repository, _, tag = name.partition(":")
            put_image(registry.url, repository, tag, image)
        yield SourceRegistry(registry, images)


@pytest.fixture
def destination(tmp_path: Path) -> Iterator[DestinationRegistry]:
    seen = RequestLog()
    with (
        DockerRegistry(tmp_path / "target", in_memory=True) as registry,
        Relay(registry.host, observer=seen) as relay,
    ):
        yield DestinationRegistry(registry, relay, seen)
