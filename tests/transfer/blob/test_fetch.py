"""A blob is fetched by ranges, by as many threads as help."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from concil.fs.partial_file import PartialFile
from concil.oci.descriptor import Descriptor
from concil.transfer.blob.fetch import BlobDownload, run_with_helpers
from concil.transfer.blob.source import BlobSource
from concil.transfer.context import TransferContext
from tests.support.memory_store import MemoryReader
from tests.support.store_contract import Blob
from tests.support.store_faults import IgnoresRange
from tests.transfer.downloads import ALONE, BLOB, SIZE, DownloadHarness
from tests.transfer.transfer_setup import (
    ALWAYS,
    BLOCK,
    CONFIG,
    RANGE,
    WAIT,
    WatchedStore,
    create_pool,
    meter_of,
    store_blob,
)


def test_small_blob_is_one_request(store: WatchedStore, tmp_path: Path) -> None:
    small = Blob.random(RANGE)
    store_blob(store, small)
    pull = DownloadHarness(store, tmp_path, small)

    assert pull.alone().exception() is None

    pull.assert_verified()
    assert store.registry.requests == {"GET blob": 1}


def test_empty_blob_needs_no_request(store: WatchedStore, tmp_path: Path) -> None:
    pull = DownloadHarness(store, tmp_path, Blob.of(b""))

    assert pull.alone().exception() is None

    pull.assert_verified()
    assert store.registry.requests == {}


def test_thread_without_helpers_asks_for_everything_at_once(
    store: WatchedStore, download: DownloadHarness
) -> None:
    assert download.alone(ALONE).exception() is None

    download.assert_verified()
    assert store.registry.requests == {"GET blob": 1}


@pytest.mark.parametrize("count", [0, 1, 2, 8])
def test_ranges_are_served_once_however_many_workers_there_are(
    store: WatchedStore, download: DownloadHarness, count: int
) -> None:
    with create_pool(count) as pool:
        assert download.on(pool).exception() is None

    download.assert_verified()
    assert store.registry.served == SIZE
    assert store.registry.requests == {"GET blob": 8}


def test_ranges_run_at_the_same_time(store: WatchedStore, download: DownloadHarness) -> None:
    together = threading.Barrier(4)  # one primary and three helpers
    starts = (4 * BLOCK, RANGE, 2 * RANGE, 3 * RANGE)
    # The primary submits the helpers when it has its first bytes.
    store.on_read = lambda position: position in starts and together.wait(WAIT)

    with create_pool(4) as pool:
        assert download.on(pool).exception() is None

    assert not together.broken


@pytest.mark.parametrize("count", [0, 4])
def test_source_without_ranges_is_read_from_its_start(
    store: WatchedStore, download: DownloadHarness, count: int
) -> None:
    store.registry.faults.append(IgnoresRange(times=ALWAYS))

    with create_pool(count) as pool:
        assert download.on(pool).exception() is None

    download.assert_verified()


def test_threads_leave_a_source_without_ranges_to_one_of_them(
    store: WatchedStore, download: DownloadHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.registry.faults.append(IgnoresRange(times=ALWAYS))
    helped = threading.Event()  # a helper has an answer, from byte 0 on
    open_blob = store.open_blob

    def opened(blob: Descriptor, start: int = 0, stop: int | None = None) -> MemoryReader:
        reader = open_blob(blob, start, stop)
        if len(store.readers) == 2:
            helped.set()
        return reader

    monkeypatch.setattr(store, "open_blob", opened)
    # The primary submits the helpers when it has its first bytes.
    store.on_read = lambda position: position and helped.wait(WAIT)
    with create_pool(4) as pool:
        assert download.on(pool).exception() is None

    download.assert_verified()
    assert helped.is_set()
    # The first range, then all from byte 0 on; the helpers read nothing.
    assert store.registry.served <= SIZE + RANGE
    assert 3 <= store.registry.requests["GET blob"] <= 5


def test_source_without_ranges_gets_no_more_helpers(
    store: WatchedStore, download: DownloadHarness
) -> None:
    store.registry.faults.append(IgnoresRange(times=ALWAYS))
    fetch = download.fetch(TransferContext(CONFIG))
    seen: list[int] = []

    def late(position: int) -> None:
        # By now the second range has begun at byte 0.
        if len(store.readers) == 3 and not seen:
            seen.append(position)
            fetch.run_helper()

    store.on_read = late
    fetch.run()

    assert fetch.future.exception() is None
    download.assert_verified()
    assert seen
    # The first range, the second from 0 on, then all of the rest from 0 on.
    assert store.registry.requests == {"GET blob": 3}


def test_helper_that_comes_late_does_nothing(
    store: WatchedStore, download: DownloadHarness
) -> None:
    fetch = download.fetch(TransferContext(CONFIG))
    fetch.run()
    asked = store.registry.requests.copy()

    fetch.run_helper()

    assert fetch.future.exception() is None
    assert store.registry.requests == asked
    download.assert_verified()


def test_no_thread_is_asked_to_help_where_there_is_one_range(
    store: WatchedStore, tmp_path: Path
) -> None:
    asked: list[object] = []
    small = DownloadHarness(store, tmp_path, Blob.random(RANGE))
    store_blob(store, small.blob)

    run_with_helpers(small.fetch(TransferContext(CONFIG)), asked.append)

    assert asked == []
    small.assert_verified()


@pytest.mark.parametrize(("size", "wanted"), [(0, 0), (RANGE, 0), (RANGE + 1, 1), (99 * RANGE, 3)])
def test_as_many_helpers_as_find_something_to_do(
    store: WatchedStore, tmp_path: Path, size: int, wanted: int
) -> None:
    blob = Descriptor("x/y", BLOB.descriptor.digest, size)
    writer = PartialFile(tmp_path / "f", blob.digest, size, partial_path=tmp_path / "p")

    source = BlobSource.in_store(store, blob)
    download = BlobDownload(source, writer, meter_of(blob), TransferContext(CONFIG))

    assert download.helper_count == wanted

    writer.abort()


def test_helper_that_is_quicker_than_the_primary_finds_work(
    store: WatchedStore, download: DownloadHarness
) -> None:
    readers: list[str] = []
    store.on_read = lambda position: readers.append(threading.current_thread().name)

    def at_once(job: Callable[[], None]) -> None:
        helper = threading.Thread(target=job, name="helper")
        helper.start()
        helper.join(WAIT)

    fetch = download.fetch(TransferContext(CONFIG))
    run_with_helpers(fetch, at_once)

    assert fetch.future.exception(0) is None
    assert "helper" in readers
    download.assert_verified()
