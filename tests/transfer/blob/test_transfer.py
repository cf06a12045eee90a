"""One blob's job ends in one outcome, whatever becomes of it."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from concil.config import MIB, TransferConfig
from concil.errors import AccessDenied, Cancelled, StoreError
from concil.fs.resume_state import WriterState
from concil.oci.descriptor import Descriptor
from concil.oci.manifest import Digest
from concil.progress.events import State
from concil.store.layout.store import LayoutDirectory, LayoutStore
from concil.transfer.blob.transfer import BlobTransfer
from concil.transfer.context import TransferContext
from concil.transfer.journal import Journal
from concil.transfer.worker_pool import WorkerPool
from tests.support.memory_store import MemoryHost, MemoryStore, MemoryWriter
from tests.support.store_contract import Blob
from tests.support.store_faults import BreaksRead, RefusesRequests
from tests.transfer.transfer_setup import (
    ALWAYS,
    CONFIG,
    RANGE,
    WAIT,
    ClosableGate,
    Sink,
    WatchedStore,
    create_pool,
    meter_of,
    store_blob,
)

BLOB = Blob.random(5 * RANGE + 1)
SIZE = len(BLOB.content)


@pytest.fixture
def target() -> MemoryStore:
    """Return an empty repository of another host."""
    return MemoryHost("to").repository("a")


@pytest.fixture
def layout(tmp_path: Path) -> LayoutStore:
    """Return an empty layout."""
    return LayoutStore(LayoutDirectory(tmp_path / "layout", create=True))


def move(
    source: WatchedStore, target: MemoryStore | LayoutStore, pool: WorkerPool, sink: Sink
) -> BlobTransfer:
    """Return the job, not started."""
    meter = meter_of(BLOB.descriptor, sink)
    return BlobTransfer(source, target, BLOB.descriptor, pool=pool, meter=meter)


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_blob_goes_into_a_layout_by_ranges(
    store: WatchedStore, layout: LayoutStore, workers: int
) -> None:
    store_blob(store, BLOB)

    with create_pool(workers) as pool:
        landed = move(store, layout, pool, Sink()).start().result(WAIT)

    assert (landed.state, landed.bytes_sent, landed.destination) == (State.DONE, SIZE, layout.name)
    assert landed.repository == ""
    assert layout.backend.read_blob(BLOB.descriptor.digest, SIZE) == BLOB.content
    assert store.registry.served == SIZE
    # A single thread asks for more each time, and helpers for one range: 6 are all ranges.
    assert 1 < store.registry.requests["GET blob"] <= 6


@pytest.mark.parametrize("workers", [0, 4])
def test_failed_fetch_is_the_outcome_and_is_told(
    store: WatchedStore, layout: LayoutStore, workers: int
) -> None:
    store.registry.faults.append(RefusesRequests("GET blob", AccessDenied("no"), times=ALWAYS))
    store_blob(store, BLOB)
    sink = Sink()

    with create_pool(workers) as pool:
        outcome = move(store, layout, pool, sink).start()
        assert isinstance(outcome.exception(WAIT), AccessDenied)

    assert sink.states()[-1] is State.FAILED
    assert not layout.has_blob(BLOB.descriptor)


def test_job_that_never_began_ends_as_cancelled(store: WatchedStore, target: MemoryStore) -> None:
    store_blob(store, BLOB)
    with create_pool(1) as pool:
        gate = ClosableGate()
        pool.submit(gate)
        assert gate.entered.wait(WAIT)
        outcome = move(store, target, pool, Sink()).start()

        pool.close(timeout=0.01)

        assert isinstance(outcome.exception(WAIT), Cancelled)
        gate.opened.set()
    assert store.registry.requests == target.registry.requests == {}


def test_first_sibling_that_can_be_mounted_from_is_enough(
    store: WatchedStore, target: MemoryStore
) -> None:
    store_blob(target.registry.repository("full"), BLOB)
    target.registry.repository("empty")

    with create_pool(1) as pool:
        begun = move(store, target, pool, Sink()).start(["a", "empty", "full", "other"])
        landed = begun.result(WAIT)

    assert (landed.state, landed.bytes_sent, landed.repository) == (State.MOUNTED, 0, "a")
    assert target.registry.requests == {"POST mount": 2}


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """Return a journal of this test."""
    return Journal(tmp_path / "journal.sqlite")


def test_layout_goes_on_where_an_earlier_run_was_cut(
    store: WatchedStore, layout: LayoutStore, journal: Journal
) -> None:
    store_blob(store, BLOB)
    store.registry.faults.append(BreaksRead(at=3 * RANGE, times=ALWAYS))
    alone = replace(CONFIG, workers=0, helpers=0)
    pool = WorkerPool(TransferContext(alone, journal=journal))
    assert move(store, layout, pool, Sink()).start().exception(WAIT) is not None
    [left] = journal.list_unfinished()
    assert left.state.ranges == ((0, 3 * RANGE),)
    store.registry.faults.clear()
    store.registry.served = 0

    landed = move(store, layout, pool, Sink()).start().result(WAIT)

    assert landed.state is State.DONE
    assert layout.backend.read_blob(BLOB.descriptor.digest, SIZE) == BLOB.content
    assert store.registry.served == SIZE - 3 * RANGE
    assert journal.list_unfinished() == []
    journal.close()


def test_upload_goes_on_where_an_earlier_run_was_cut(
    store: WatchedStore, target: MemoryStore, journal: Journal
) -> None:
    store_blob(store, BLOB)
    target.registry.chunk_size = RANGE
    store.registry.faults.append(BreaksRead(at=3 * RANGE, times=ALWAYS))
    pool = WorkerPool(TransferContext(replace(CONFIG, workers=0), journal=journal))
    assert move(store, target, pool, Sink()).start().exception(WAIT) is not None
    store.registry.faults.clear()
    store.registry.served = 0

    landed = move(store, target, pool, Sink()).start().result(WAIT)

    assert landed.state is State.DONE
    assert target.blobs == {BLOB.descriptor.digest: BLOB.content}
    assert store.registry.served == SIZE - 3 * RANGE
    assert target.registry.received == SIZE
    journal.close()


def test_stretches_are_remembered_while_a_blob_is_fetched(
    store: WatchedStore, layout: LayoutStore, journal: Journal
) -> None:
    blob = Blob.random(3 * MIB)
    store_blob(store, blob)
    seen: list[int] = []
    store.on_read = lambda position: seen.extend(
        left.state.offset for left in journal.list_unfinished()
    )
    pool = WorkerPool(TransferContext(TransferConfig(workers=0, helpers=0), journal=journal))

    meter = meter_of(blob.descriptor)
    BlobTransfer(store, layout, blob.descriptor, pool=pool, meter=meter).start().result(WAIT)

    # A process that is killed at any time loses a MiB at most.
    assert sorted(set(seen)) == [MIB, 2 * MIB]
    assert journal.list_unfinished() == []
    journal.close()


class Refusing(MemoryStore):
    """A place that begins no blob."""

    def begin_blob(
        self, size: int, digest: Digest | None = None, resume: WriterState | None = None
    ) -> MemoryWriter:
        raise StoreError("full")


def test_place_that_begins_no_blob_leaves_the_journal_to_others(
    store: WatchedStore, journal: Journal
) -> None:
    store_blob(store, BLOB)
    refusing = Refusing(MemoryHost("to"), "full")
    earlier = journal.claim_transfer(refusing.name, str(BLOB.descriptor.digest), SIZE)
    earlier.save(WriterState("somewhere", 1, 1))
    earlier.release()
    pool = WorkerPool(TransferContext(replace(CONFIG, workers=0), journal=journal))

    outcome = move(store, refusing, pool, Sink()).start()

    assert isinstance(outcome.exception(WAIT), StoreError)
    [left] = journal.list_unfinished()
    assert not left.is_running
    journal.close()


def test_many_threads_that_save_have_one_place_in_the_journal(journal: Journal) -> None:
    entry = journal.claim_transfer("to", "blob", 100)
    start = threading.Barrier(8)

    def save(number: int) -> None:
        start.wait(WAIT)
        entry.save(WriterState("here", number, 0))

    threads = [threading.Thread(target=save, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)

    assert len(journal.list_unfinished()) == 1
    entry.delete()
    assert journal.list_unfinished() == []
    journal.close()


def test_descriptor_of_the_blob_is_what_landed(store: WatchedStore, target: MemoryStore) -> None:
    store_blob(store, BLOB)

    with create_pool(0) as pool:
        landed = move(store, target, pool, Sink()).start().result(WAIT)

    assert landed.blob == Descriptor(BLOB.descriptor.media_type, BLOB.descriptor.digest, SIZE)
