"""Registries of either kind, and files to move."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from concil.config import TransferConfig
from concil.engine import Engine
from concil.server import EmbeddedRegistry
from tests.engine.wires import SIZE, Two, Wire, impatient_registry, wire_to
from tests.engine.world import QUICK, Content, Registry, engine_of, file_of
from tests.lab.registry import DockerRegistry

EITHER = [
    pytest.param("embedded", id="embedded"),
    pytest.param("docker", id="docker", marks=pytest.mark.real),
]


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[EmbeddedRegistry]:
    """Run an empty embedded registry."""
    with EmbeddedRegistry(tmp_path / "embedded") as registry:
        yield registry


@pytest.fixture(params=EITHER)
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
def wire(tmp_path: Path) -> Iterator[Wire]:
    """Put a relay in front of an embedded registry, which can resume."""
    with impatient_registry(tmp_path / "source") as registry, wire_to(registry) as wire:
        yield wire


@pytest.fixture
def real_wire(docker_registry: DockerRegistry) -> Iterator[Wire]:
    """Put a relay in front of the real registry, which loses a session with a broken chunk."""
    with wire_to(docker_registry) as wire:
        yield wire


@pytest.fixture
def two(wire: Wire, tmp_path: Path) -> Iterator[Two]:
    """Return two embedded registries."""
    with impatient_registry(tmp_path / "target") as registry, wire_to(registry) as target:
        yield Two(wire, target)
