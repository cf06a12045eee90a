"""One cluster of three workers for all these tests, and two real registries for each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from concil.transfer.mirror import MirrorItem
from tests.lab.dask import DaskCluster
from tests.lab.images import Image, make_image, make_layer, put_image
from tests.lab.registry import DockerRegistry
from tests.lab.relay import Relay
from tests.lab.requests_seen import RequestLog

LARGE = make_layer(1, 12 << 20)  # bytes; above what only one worker may send
IMAGES = 12


@dataclass(frozen=True)
class Origin:
    """A registry with images that share a large layer."""

    registry: DockerRegistry
    images: dict[str, Image]  # by name

    def items(self, target: str, prefix: str) -> list[MirrorItem]:
        """Each image to the same name below a prefix of another registry."""
        return [
            MirrorItem(f"{self.registry.url}/{name}", f"http://{target}/{prefix}/{name}")
            for name in self.images
        ]


@dataclass(frozen=True)
class Target:
    """An empty registry behind a relay that sees every request."""

    registry: DockerRegistry
    relay: Relay
    seen: RequestLog


@pytest.fixture(scope="session")
def dask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskCluster]:
    with DaskCluster(tmp_path_factory.mktemp("dask"), workers=3) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Origin]:
    images = {
        f"app{number % 4}:v{number}": make_image(number, [LARGE, 1_000 + number])
        for number in range(IMAGES)
    }
    with DockerRegistry(tmp_path_factory.mktemp("origin"), in_memory=True) as registry:
        for name, image in images.items():
            repository, _, tag = name.partition(":")
            put_image(registry.url, repository, tag, image)
        yield Origin(registry, images)


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Target]:
    seen = RequestLog()
    with (
        DockerRegistry(tmp_path / "target", in_memory=True) as registry,
        Relay(registry.host, observer=seen) as relay,
    ):
        yield Target(registry, relay, seen)
