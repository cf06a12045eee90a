"""Registries of either kind, and files to move."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from concil.config import TransferConfig
from concil.engine.engine import Engine
from concil.server import EmbeddedRegistry
from tests.engine.engine_setup import (
    QUICK,
    Content,
    RealRepository,
    Registry,
    engine_of,
    file_of,
)
from tests.engine.relayed_registries import (
    SIZE,
    RegistryPair,
    RelayedRegistry,
    relay_registry,
    short_timeout_registry,
)
from tests.support.docker_registry import DockerRegistry

REGISTRY_KINDS = [
    pytest.param("embedded", id="embedded"),
    pytest.param("docker", id="docker", marks=pytest.mark.real),
]


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[EmbeddedRegistry]:
    """Run an empty embedded registry."""
    with EmbeddedRegistry(tmp_path / "embedded") as registry:
        yield registry


@pytest.fixture(params=REGISTRY_KINDS)
def registry(request: pytest.FixtureRequest) -> Registry:
    """Return a registry of each kind; the real one is shared: use a name of your own in it."""
    name = "embedded" if request.param == "embedded" else "docker_registry"
    found: Registry = request.getfixturevalue(name)
    return found


@pytest.fixture
def repository(request: pytest.FixtureRequest) -> str:
    """Return a repository name of this test's own."""
    return f"engine/{abs(hash(request.node.nodeid)):x}"


@pytest.fixture
def there(docker_registry: DockerRegistry, repository: str) -> RealRepository:
    """Return a repository of this test's own in the real registry."""
    return RealRepository(docker_registry, repository)


@pytest.fixture
def config(workers: int) -> TransferConfig:
    """Return quick settings with as many workers as the suite runs with."""
    return replace(QUICK, workers=workers)


@pytest.fixture
def engine(config: TransferConfig) -> Iterator[Engine]:
    """Run an engine that remembers nothing."""
    with engine_of(config) as engine:
        yield engine


@pytest.fixture
def content(tmp_path: Path) -> Content:
    """Return a file of eight chunks and a bit."""
    return file_of(tmp_path, SIZE)


@pytest.fixture
def relayed_registry(tmp_path: Path) -> Iterator[RelayedRegistry]:
    """Put a relay in front of an embedded registry, which can resume."""
    with short_timeout_registry(tmp_path / "source") as registry, relay_registry(registry) as wire:
        yield wire


@pytest.fixture
def relayed_docker_registry(docker_registry: DockerRegistry) -> Iterator[RelayedRegistry]:
    """Put a relay in front of the real registry, which loses a session with a broken chunk."""
    with relay_registry(docker_registry) as wire:
        yield wire


@pytest.fixture
def registry_pair(relayed_registry: RelayedRegistry, tmp_path: Path) -> Iterator[RegistryPair]:
    """Return two embedded registries."""
    with (
        short_timeout_registry(tmp_path / "target") as registry,
        relay_registry(registry) as target,
    ):
        yield RegistryPair(relayed_registry, target)
