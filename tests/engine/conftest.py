"""Registries of either kind, and files to move."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from concil.config import TransferConfig
from concil.engine import Engine
from concil.server import EmbeddedRegistry
from tests.engine.world import QUICK, Registry, engine_of

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
