"""A store that has a blob, a directory to fetch it into, and a copy between two hosts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.transfer.downloads import BLOB, DownloadHarness
from tests.transfer.image_copies import TransferHarness, create_harness
from tests.transfer.transfer_setup import WatchedStore, store_blob
from tests.transfer.uploads import UploadHarness


@pytest.fixture
def store() -> Iterator[WatchedStore]:
    """Return a store that has the blob; whoever opened a reader must have closed it."""
    store = WatchedStore()
    store_blob(store, BLOB)
    yield store
    assert store.left_open == 0


@pytest.fixture
def download(store: WatchedStore, tmp_path: Path) -> DownloadHarness:
    """Return a fetch of the blob."""
    return DownloadHarness(store, tmp_path)


@pytest.fixture
def upload() -> UploadHarness:
    """Return a copy between two hosts without faults."""
    return UploadHarness()


@pytest.fixture
def harness(workers: int) -> Iterator[TransferHarness]:
    """Return two hosts, with as many workers between them as the suite runs with."""
    with create_harness(workers) as lab:
        yield lab
