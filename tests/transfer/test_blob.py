"""One blob's job ends in one outcome, whatever becomes of it."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from concil.config import MIB, TransferConfig
from concil.content import Descriptor, Digest
from concil.errors import AccessDenied, Cancelled, StoreError
from concil.progress import State
from concil.store.layout import Layout, LayoutStore
from concil.store.protocol import WriterState
from concil.transfer.blob import BlobMove
from concil.transfer.journal import Journal
from concil.transfer.pool import WorkerPool
from concil.transfer.run import Run
from tests.store.contract import Blob
from tests.store.faults import BreaksRead, RefusesRequests
from tests.store.memory import MemoryHost, MemoryStore, MemoryWriter
from tests.transfer.world import (
    ALWAYS,
    CONFIG,
    RANGE,
    WAIT,
    Gate,
    Sink,
    WatchedStore,
    keep,
    meter_of,
    pool_of,
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
    return LayoutStore(Layout(tmp_path / "layout", create=True))


def move(
    source: WatchedStore, target: MemoryStore | LayoutStore, pool: WorkerPool, sink: Sink
) -> BlobMove:
    """Return the job, not started."""
    meter = meter_of(BLOB.descriptor, sink)
    return BlobMove(source, target, BLOB.descriptor, pool=pool, meter=meter)


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_blob_goes_into_a_layout_by_ranges(
    store: WatchedStore, layout: LayoutStore, workers: int
) -> None:
    keep(store, BLOB)

    with pool_of(workers) as pool:
        landed = move(store, layout, pool, Sink()).start().result(WAIT)

    assert (landed.state, landed.sent, landed.place) == (State.DONE, SIZE, layout.name)
    assert landed.repository == ""
    assert layout.layout.read_blob(BLOB.descriptor.digest, SIZE) == BLOB.content
    assert store.registry.served == SIZE
    assert store.registry.requests == {"GET blob": 6}


@pytest.mark.parametrize("workers", [0, 4])
def test_failed_fetch_is_the_outcome_and_is_told(
    store: WatchedStore, layout: LayoutStore, workers: int
) -> None:
    store.registry.faults.append(RefusesRequests("GET blob", AccessDenied("no"), times=ALWAYS))
    keep(store, BLOB)
    sink = Sink()

    with pool_of(workers) as pool:
        outcome = move(store, layout, pool, sink).start()
        assert isinstance(outcome.exception(WAIT), AccessDenied)

    assert sink.states()[-1] is State.FAILED
    assert not layout.has_blob(BLOB.descriptor)


def test_job_that_never_began_ends_as_cancelled(store: WatchedStore, target: MemoryStore) -> None:
    keep(store, BLOB)
    with pool_of(1) as pool:
        gate = Gate()
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
    keep(target.registry.repository("full"), BLOB)
    target.registry.repository("empty")

    with pool_of(1) as pool:
        begun = move(store, target, pool, Sink()).start(["a", "empty", "full", "other"])
        landed = begun.result(WAIT)

    assert (landed.state, landed.sent, landed.repository) == (State.MOUNTED, 0, "a")
    assert target.registry.requests == {"POST mount": 2}


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """Return a journal of this test."""
    return Journal(tmp_path / "journal.sqlite")


def test_layout_goes_on_where_an_earlier_run_was_cut(
    store: WatchedStore, layout: LayoutStore, journal: Journal
) -> None:
    keep(store, BLOB)
    store.registry.faults.append(BreaksRead(at=3 * RANGE, times=ALWAYS))
    alone = replace(CONFIG, workers=0, helpers=0)
    pool = WorkerPool(Run(alone, journal=journal))
    assert move(store, layout, pool, Sink()).start().exception(WAIT) is not None
    [left] = journal.unfinished()
    assert left.state.stretches == ((0, 3 * RANGE),)
    store.registry.faults.clear()
    store.registry.served = 0

    landed = move(store, layout, pool, Sink()).start().result(WAIT)

    assert landed.state is State.DONE
    assert layout.layout.read_blob(BLOB.descriptor.digest, SIZE) == BLOB.content
    assert store.registry.served == SIZE - 3 * RANGE
    assert journal.unfinished() == []
    journal.close()


def test_upload_goes_on_where_an_earlier_run_was_cut(
    store: WatchedStore, target: MemoryStore, journal: Journal
) -> None:
    keep(store, BLOB)
    target.registry.chunk_size = RANGE
    store.registry.faults.append(BreaksRead(at=3 * RANGE, times=ALWAYS))
    pool = WorkerPool(Run(replace(CONFIG, workers=0), journal=journal))
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
    keep(store, blob)
    seen: list[int] = []
    store.on_read = lambda position: seen.extend(left.state.offset for left in journal.unfinished())
    pool = WorkerPool(Run(TransferConfig(workers=0, helpers=0), journal=journal))

    meter = meter_of(blob.descriptor)
    BlobMove(store, layout, blob.descriptor, pool=pool, meter=meter).start().result(WAIT)

    # A process that is killed at any time loses a MiB at most.
    assert sorted(set(seen)) == [MIB, 2 * MIB]
    assert journal.unfinished() == []
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
    keep(store, BLOB)
    refusing = Refusing(MemoryHost("to"), "full")
    earlier = journal.entry(refusing.name, str(BLOB.descriptor.digest), SIZE)
    earlier.save(WriterState("somewhere", 1, 1))
    earlier.release()
    pool = WorkerPool(Run(replace(CONFIG, workers=0), journal=journal))

    outcome = move(store, refusing, pool, Sink()).start()

    assert isinstance(outcome.exception(WAIT), StoreError)
    [left] = journal.unfinished()
    assert not left.running
    journal.close()


def test_many_threads_that_save_have_one_place_in_the_journal(journal: Journal) -> None:
    entry = journal.entry("to", "blob", 100)
    start = threading.Barrier(8)

    def save(number: int) -> None:
        start.wait(WAIT)
        entry.save(WriterState("here", number, 0))

    threads = [threading.Thread(target=save, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)

    assert len(journal.unfinished()) == 1
    entry.done()
    assert journal.unfinished() == []
    journal.close()


def test_descriptor_of_the_blob_is_what_landed(store: WatchedStore, target: MemoryStore) -> None:
    keep(store, BLOB)

    with pool_of(0) as pool:
        landed = move(store, target, pool, Sink()).start().result(WAIT)

    assert landed.blob == Descriptor(BLOB.descriptor.media_type, BLOB.descriptor.digest, SIZE)
