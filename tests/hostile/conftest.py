"""A hostile registry for each test; whatever it did, no secret may have left it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from concil.engine.engine import Engine
from tests.hostile.hostile_registry import HostileRegistry, all_paths, engine
from tests.support.scripted_server import ScriptedServer


@pytest.fixture
def hostile() -> Iterator[HostileRegistry]:
    with ScriptedServer() as registry, ScriptedServer() as bystander, ScriptedServer() as storage:
        hostile = HostileRegistry(registry, bystander, storage)
        yield hostile
        hostile.assert_no_secret_leaked()


@pytest.fixture
def authenticated_engine(workers: int) -> Iterator[Engine]:
    with engine(workers) as alice:
        yield alice


@pytest.fixture
def anonymous_engine(workers: int) -> Iterator[Engine]:
    """An engine without credentials."""
    with engine(workers, None) as nobody:
        yield nobody


@pytest.fixture
def destination(tmp_path: Path) -> Iterator[Path]:
    """Where images go; beside it nothing may appear."""
    place = tmp_path / "around" / "target"
    place.parent.mkdir()
    yield place
    beside = {path for path in all_paths(place.parent) if path.parts[0] != "target"}
    assert beside == set()
