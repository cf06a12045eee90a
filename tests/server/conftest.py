"""A registry of its own for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from concil.server import EmbeddedRegistry
from tests.server.client import Client


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "layout"


@pytest.fixture
def registry(directory: Path) -> Iterator[EmbeddedRegistry]:
    with EmbeddedRegistry(directory) as registry:
        yield registry


@pytest.fixture
def client(registry: EmbeddedRegistry) -> Iterator[Client]:
    with Client(registry.url) as client:
        yield client
