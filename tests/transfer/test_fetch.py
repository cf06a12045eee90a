"""A blob is fetched by ranges, in spite of losses, and never in a wrong form."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import pytest

from concil.config import RetryPolicy, TransferConfig
from concil.content import Descriptor
from concil.errors import (
    AccessDenied,
    Cancelled,
    ConcilError,
    ConnectionLost,
    DigestMismatch,
    NotFound,
    ProtocolViolation,
    StoreError,
)
from concil.progress import State
from concil.store.partial import PartialFile
from concil.transfer.fetch import Fetch, spread
from concil.transfer.pool import Rank, WorkerPool
from concil.transfer.run import Run
from tests.store.contract import Blob
from tests.store.faults import BreaksRead, Corrupts, Fault, IgnoresRange, RefusesRequests
from tests.transfer.world import (
    ALWAYS,
    BLOCK,
    CONFIG,
    RANGE,
    WAIT,
    BreaksEvery,
    Sink,
    WatchedStore,
    keep,
    meter_of,
    pool_of,
)

BLOB = Blob.random(7 * RANGE + 123)
SIZE = len(BLOB.content)
# One thread asks for ranges too, as long as helpers could come.
ALONE = replace(CONFIG, helpers=0)


@pytest.fixture
def store() -> Iterator[WatchedStore]:
    """Return a store that has the blob; whoever opened a reader must have closed it."""
    store = WatchedStore()
    keep(store, BLOB)
    yield store
    assert store.left_open == 0


class Pull:
    """One fetch into a directory."""

    def __init__(self, store: WatchedStore, directory: Path, blob: Blob = BLOB) -> None:
        self.store = store
        self.blob = blob
        self.directory = directory
        self.final = directory / "final"
        self.sink = Sink()
        self.writer = self._writer()

    def _writer(self) -> PartialFile:
        digest = self.blob.descriptor.digest
        partial = self.directory / "x.partial"
        return PartialFile(self.final, digest, len(self.blob.content), partial=partial)

    def fetch(self, run: Run) -> Fetch:
        """Return the fetch, not begun."""
        meter = meter_of(self.blob.descriptor, self.sink)
        return Fetch(self.store, self.blob.descriptor, self.writer, meter, run)

    def alone(self, config: TransferConfig = CONFIG) -> Future[None]:
        """Fetch in this thread; return the outcome."""
        fetch = self.fetch(Run(config))
        fetch.run()
        assert fetch.outcome.done()
        return fetch.outcome

    def on(self, pool: WorkerPool) -> Future[None]:
        """Fetch on a pool; return the outcome."""
        fetch = self.fetch(pool.run)

        def help_wanted(job: object) -> None:
            if pool.workers:
                pool.submit(fetch.help, rank=Rank.HELPER)

        pool.submit(lambda: spread(fetch, help_wanted))
        fetch.outcome.exception(WAIT)
        return fetch.outcome

    def assert_right(self) -> None:
        """The blob is there, and nothing else."""
        assert self.final.read_bytes() == self.blob.content
        assert [path.name for path in self.directory.iterdir()] == ["final"]


@pytest.fixture
def pull(store: WatchedStore, tmp_path: Path) -> Pull:
    """Return a fetch of the blob."""
    return Pull(store, tmp_path)


def test_small_blob_is_one_request(store: WatchedStore, tmp_path: Path) -> None:
    small = Blob.random(RANGE)
    keep(store, small)
    pull = Pull(store, tmp_path, small)

    assert pull.alone().exception() is None

    pull.assert_right()
    assert store.registry.requests == {"GET blob": 1}


def test_empty_blob_needs_no_request(store: WatchedStore, tmp_path: Path) -> None:
    pull = Pull(store, tmp_path, Blob.of(b""))

    assert pull.alone().exception() is None

    pull.assert_right()
    assert store.registry.requests == {}


def test_thread_without_helpers_asks_for_everything_at_once(
    store: WatchedStore, pull: Pull
) -> None:
    assert pull.alone(ALONE).exception() is None

    pull.assert_right()
    assert store.registry.requests == {"GET blob": 1}


@pytest.mark.parametrize("count", [0, 1, 2, 8])
def test_ranges_are_served_once_however_many_workers_there_are(
    store: WatchedStore, pull: Pull, count: int
) -> None:
    with pool_of(count) as pool:
        assert pull.on(pool).exception() is None

    pull.assert_right()
    assert store.registry.served == SIZE
    assert store.registry.requests == {"GET blob": 8}


def test_ranges_run_at_the_same_time(store: WatchedStore, pull: Pull) -> None:
    together = threading.Barrier(4)  # one primary and three helpers
    store.on_read = lambda position: position % RANGE or position > 3 * RANGE or together.wait(WAIT)

    with pool_of(4) as pool:
        assert pull.on(pool).exception() is None

    assert not together.broken


@pytest.mark.parametrize("count", [0, 4])
def test_source_without_ranges_is_read_from_its_start(
    store: WatchedStore, pull: Pull, count: int
) -> None:
    store.registry.faults.append(IgnoresRange(times=ALWAYS))

    with pool_of(count) as pool:
        assert pull.on(pool).exception() is None

    pull.assert_right()


def test_source_without_ranges_gets_no_more_helpers(store: WatchedStore, pull: Pull) -> None:
    store.registry.faults.append(IgnoresRange(times=ALWAYS))
    fetch = pull.fetch(Run(CONFIG))
    seen: list[int] = []

    def late(position: int) -> None:
        # By now the second range has begun at byte 0.
        if len(store.readers) == 3 and not seen:
            seen.append(position)
            fetch.help()

    store.on_read = late
    fetch.run()

    assert fetch.outcome.exception() is None
    pull.assert_right()
    assert seen
    # The first range, the second from 0 on, then all of the rest from 0 on.
    assert store.registry.requests == {"GET blob": 3}


@pytest.mark.parametrize("every", [500, 1_000, 3_333, 9_999])
@pytest.mark.parametrize("count", [0, 4])
def test_losses_at_every_kth_byte_cost_no_byte_twice(
    store: WatchedStore, pull: Pull, every: int, count: int
) -> None:
    store.registry.faults.append(BreaksEvery(every))

    with pool_of(count) as pool:
        assert pull.on(pool).exception() is None

    pull.assert_right()
    assert store.registry.served == SIZE
    assert store.registry.requests["GET blob"] >= SIZE // every


def test_body_that_ends_too_early_is_a_loss(store: WatchedStore, pull: Pull) -> None:
    class Ends(Fault):
        def begins_at(self, start: int) -> int | None:
            return None

        def serve(self, position: int, piece: memoryview) -> bool:
            store.readers[-1]._stop = position + len(piece)
            return True

    store.registry.faults.append(Ends(times=3))

    assert pull.alone(ALONE).exception() is None

    pull.assert_right()
    assert State.RETRYING in pull.sink.states()
    assert store.registry.served == SIZE


def test_loss_without_any_progress_ends_after_the_attempts(store: WatchedStore, pull: Pull) -> None:
    store.registry.faults.append(BreaksRead(at=5 * BLOCK, times=ALWAYS))

    error = pull.alone(replace(ALONE, retry=RetryPolicy(base=0, attempts=4))).exception()

    assert isinstance(error, ConnectionLost)
    # The first gets as far as byte 5000; four in a row then get nowhere.
    assert store.registry.requests["GET blob"] == 4
    assert not pull.final.exists()


@pytest.mark.parametrize("error", [AccessDenied("no"), NotFound("gone"), ProtocolViolation("odd")])
@pytest.mark.parametrize("count", [0, 4])
def test_final_error_is_not_repeated(
    store: WatchedStore, pull: Pull, error: ConcilError, count: int
) -> None:
    store.registry.faults.append(RefusesRequests("GET blob", error, times=ALWAYS))

    with pool_of(count) as pool:
        assert pull.on(pool).exception() is error

    assert store.registry.requests["GET blob"] <= max(1, count)
    assert not pull.final.exists()


def test_wrong_bytes_without_any_loss_are_final(store: WatchedStore, pull: Pull) -> None:
    store.registry.faults.append(Corrupts(at=SIZE // 2, times=ALWAYS))

    assert isinstance(pull.alone(ALONE).exception(), DigestMismatch)

    assert store.registry.served == SIZE
    assert list(pull.directory.iterdir()) == []


@pytest.mark.parametrize("count", [0, 4])
def test_wrong_bytes_after_a_loss_are_fetched_once_more(
    store: WatchedStore, pull: Pull, count: int
) -> None:
    store.registry.faults += [BreaksRead(at=BLOCK), Corrupts(at=SIZE // 2)]

    with pool_of(count) as pool:
        assert pull.on(pool).exception() is None

    pull.assert_right()
    assert store.registry.served == 2 * SIZE


def test_bytes_that_are_wrong_again_are_final(store: WatchedStore, pull: Pull) -> None:
    store.registry.faults += [BreaksRead(at=BLOCK), Corrupts(at=SIZE // 2, times=ALWAYS)]

    assert isinstance(pull.alone(ALONE).exception(), DigestMismatch)

    assert store.registry.served == 2 * SIZE
    assert list(pull.directory.iterdir()) == []


def test_second_try_that_is_refused_says_why(store: WatchedStore, pull: Pull) -> None:
    store.registry.faults += [BreaksRead(at=BLOCK), Corrupts(at=SIZE - 1)]
    store.on_read = lambda position: (
        position + BLOCK >= SIZE
        and store.registry.faults.append(RefusesRequests("GET blob", AccessDenied("expired")))
    )

    assert isinstance(pull.alone(ALONE).exception(), AccessDenied)

    assert not pull.final.exists()


@pytest.mark.parametrize("count", [0, 1, 4])
def test_cancel_in_the_middle_keeps_what_is_there(
    store: WatchedStore, pull: Pull, count: int
) -> None:
    with pool_of(count) as pool:

        def cancel(position: int) -> None:
            if store.registry.served > 3 * RANGE:
                pool.cancel.set()

        store.on_read = cancel

        assert isinstance(pull.on(pool).exception(), Cancelled)

    left = (pull.directory / "x.partial").read_bytes()
    assert 3 * RANGE <= pull.writer.filled < SIZE
    assert len(left) >= 3 * RANGE
    assert not pull.final.exists()
    assert pull.writer._fd == -1


def test_cancel_while_waiting_to_try_again_ends_the_wait(store: WatchedStore, pull: Pull) -> None:
    slow = replace(ALONE, retry=RetryPolicy(base=3600, longest=3600))
    store.registry.faults.append(BreaksRead(at=BLOCK, times=ALWAYS))
    run = Run(slow)
    fetch = pull.fetch(run)
    thread = threading.Thread(target=fetch.run)
    thread.start()

    assert wait_for_state(pull.sink, State.RETRYING)
    run.cancel.set()
    thread.join(WAIT)

    assert isinstance(fetch.outcome.exception(0), Cancelled)


def wait_for_state(sink: Sink, state: State) -> bool:
    """Wait until a sink has been told a state."""
    told = threading.Event()
    before = sink.on_event

    def look() -> None:
        before()
        if state in sink.states():
            told.set()

    sink.on_event = look
    look()
    return told.wait(WAIT)


def test_helper_that_comes_late_does_nothing(store: WatchedStore, pull: Pull) -> None:
    fetch = pull.fetch(Run(CONFIG))
    fetch.run()
    asked = store.registry.requests.copy()

    fetch.help()

    assert fetch.outcome.exception() is None
    assert store.registry.requests == asked
    pull.assert_right()


def test_helper_that_comes_early_does_nothing(store: WatchedStore, pull: Pull) -> None:
    pull.fetch(Run(CONFIG)).help()

    assert store.registry.requests == {}
    pull.writer.abort()


def test_source_that_begins_too_far_is_not_believed(store: WatchedStore, pull: Pull) -> None:
    class BeginsLater(Fault):
        def begins_at(self, start: int) -> int | None:
            return start + 1

    store.registry.faults.append(BeginsLater())

    assert isinstance(pull.alone().exception(), ProtocolViolation)


def test_disk_that_refuses_a_write_is_final(store: WatchedStore, pull: Pull) -> None:
    pull.writer.close()

    assert isinstance(pull.alone().exception(), StoreError)

    assert store.registry.requests == {"GET blob": 1}


def test_disk_that_refuses_the_last_step_is_final(store: WatchedStore, pull: Pull) -> None:
    pull.final.mkdir()

    assert isinstance(pull.alone().exception(), StoreError)

    assert store.registry.served == SIZE


def test_error_nobody_thought_of_is_an_error_with_a_name(
    store: WatchedStore, pull: Pull, caplog: pytest.LogCaptureFixture
) -> None:
    store.on_read = lambda position: 1 // 0

    error = pull.alone().exception()

    assert type(error) is ConcilError
    assert "ZeroDivisionError" in str(error)
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert not pull.final.exists()


def test_positions_go_up_to_the_size_and_losses_are_told(store: WatchedStore, pull: Pull) -> None:
    store.registry.faults.append(BreaksRead(at=12_345))

    assert pull.alone(ALONE).exception() is None

    assert pull.sink.states() == [State.RETRYING]
    [lost] = [event for event in pull.sink.events if event.state is State.RETRYING]
    assert lost.position == 12_345
    assert "12345" in lost.detail


def test_no_thread_is_asked_to_help_where_there_is_one_range(
    store: WatchedStore, tmp_path: Path
) -> None:
    asked: list[object] = []
    small = Pull(store, tmp_path, Blob.random(RANGE))
    keep(store, small.blob)

    spread(small.fetch(Run(CONFIG)), asked.append)

    assert asked == []
    small.assert_right()


@pytest.mark.parametrize(("size", "wanted"), [(0, 0), (RANGE, 0), (RANGE + 1, 1), (99 * RANGE, 3)])
def test_as_many_helpers_as_find_something_to_do(
    store: WatchedStore, tmp_path: Path, size: int, wanted: int
) -> None:
    blob = Descriptor("x/y", BLOB.descriptor.digest, size)
    writer = PartialFile(tmp_path / "f", blob.digest, size, partial=tmp_path / "p")

    assert Fetch(store, blob, writer, meter_of(blob), Run(CONFIG)).helpers_wanted == wanted

    writer.abort()
