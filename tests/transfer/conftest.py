"""A store that has a blob, a directory to fetch it into, and a copy between two hosts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.transfer.imaging import Lab, lab_of
from tests.transfer.pulling import BLOB, Pull
from tests.transfer.pushing import PushedCopy
from tests.transfer.world import WatchedStore, keep


@pytest.fixture
def store() -> Iterator[WatchedStore]:
    """Return a store that has the blob; whoever opened a reader must have closed it."""
    store = WatchedStore()
    keep(store, BLOB)
    yield store
    assert store.left_open == 0


@pytest.fixture
def pull(store: WatchedStore, tmp_path: Path) -> Pull:
    """Return a fetch of the blob."""
    return Pull(store, tmp_path)


@pytest.fixture
def copy() -> PushedCopy:
    """Return a copy between two hosts without faults."""
    return PushedCopy()


@pytest.fixture
def lab(workers: int) -> Iterator[Lab]:
    """Return two hosts, with as many workers between them as the suite runs with."""
    with lab_of(workers) as lab:
        yield lab
