"""A hostile registry for each test; whatever it did, no secret may have left it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from concil.engine import Engine
from tests.hostile.world import Hostile, engine, everything_in
from tests.registry.scripted import Scripted


@pytest.fixture
def hostile() -> Iterator[Hostile]:
    with Scripted() as registry, Scripted() as bystander, Scripted() as storage:
        hostile = Hostile(registry, bystander, storage)
        yield hostile
        hostile.assert_no_secret_left()


@pytest.fixture
def alice(workers: int) -> Iterator[Engine]:
    with engine(workers) as alice:
        yield alice


@pytest.fixture
def nobody(workers: int) -> Iterator[Engine]:
    """An engine without credentials."""
    with engine(workers, None) as nobody:
        yield nobody


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Path]:
    """Where images go; beside it nothing may appear."""
    place = tmp_path / "around" / "target"
    place.parent.mkdir()
    yield place
    beside = {path for path in everything_in(place.parent) if path.parts[0] != "target"}
    assert beside == set()
