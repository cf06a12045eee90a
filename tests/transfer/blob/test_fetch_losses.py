"""A blob is fetched in spite of losses, or the error has a name; never a wrong one."""

from __future__ import annotations

import logging
import threading
from dataclasses import replace

import pytest

from concil.config import RetryPolicy
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
from concil.progress.events import State
from concil.transfer.context import TransferContext
from tests.support.store_faults import BreaksRead, Corrupts, Fault, InTurn, RefusesRequests
from tests.transfer.downloads import ALONE, SIZE, DownloadHarness
from tests.transfer.transfer_setup import (
    ALWAYS,
    BLOCK,
    CONFIG,
    RANGE,
    WAIT,
    BreaksEvery,
    Sink,
    WatchedStore,
    create_pool,
)


@pytest.mark.parametrize("every", [500, 1_000, 3_333, 9_999])
@pytest.mark.parametrize("count", [0, 4])
def test_losses_at_every_kth_byte_cost_no_byte_twice(
    store: WatchedStore, download: DownloadHarness, every: int, count: int
) -> None:
    store.registry.faults.append(BreaksEvery(every))

    with create_pool(count) as pool:
        assert download.on(pool).exception() is None

    download.assert_verified()
    assert store.registry.served == SIZE
    assert store.registry.requests["GET blob"] >= SIZE // every


def test_body_that_ends_too_early_is_a_loss(store: WatchedStore, download: DownloadHarness) -> None:
    class Ends(Fault):
        def begins_at(self, start: int) -> int | None:
            return None

        def serve(self, position: int, piece: memoryview) -> bool:
            store.readers[-1]._stop = position + len(piece)
            return True

    store.registry.faults.append(Ends(times=3))

    assert download.alone(ALONE).exception() is None

    download.assert_verified()
    assert State.RETRYING in download.sink.states()
    assert store.registry.served == SIZE


def test_loss_without_any_progress_ends_after_the_attempts(
    store: WatchedStore, download: DownloadHarness
) -> None:
    store.registry.faults.append(BreaksRead(at=5 * BLOCK, times=ALWAYS))

    error = download.alone(
        replace(ALONE, retry=RetryPolicy(backoff_base=0, max_attempts=4))
    ).exception()

    assert isinstance(error, ConnectionLost)
    # The first gets as far as byte 5000; four in a row then get nowhere.
    assert store.registry.requests["GET blob"] == 4
    assert not download.final.exists()


@pytest.mark.parametrize("error", [AccessDenied("no"), NotFound("gone"), ProtocolViolation("odd")])
@pytest.mark.parametrize("count", [0, 4])
def test_final_error_is_not_repeated(
    store: WatchedStore, download: DownloadHarness, error: ConcilError, count: int
) -> None:
    store.registry.faults.append(RefusesRequests("GET blob", error, times=ALWAYS))

    with create_pool(count) as pool:
        assert download.on(pool).exception() is error

    assert store.registry.requests["GET blob"] <= max(1, count)
    assert not download.final.exists()


def test_bytes_that_are_wrong_twice_are_the_sources(
    store: WatchedStore, download: DownloadHarness
) -> None:
    store.registry.faults.append(Corrupts(at=SIZE // 2, times=ALWAYS))

    error = download.alone(ALONE).exception()

    assert isinstance(error, DigestMismatch)
    assert "a second attempt gave the same bytes" in str(error)
    assert "the content of the source is damaged" in error.remedy
    assert store.registry.served == 2 * SIZE
    assert list(download.directory.iterdir()) == []


def test_bytes_that_are_wrong_in_two_ways_are_the_lines(
    store: WatchedStore, download: DownloadHarness
) -> None:
    store.registry.faults.append(InTurn(5, SIZE - 5))

    error = download.alone(ALONE).exception()

    assert isinstance(error, DigestMismatch)
    assert "an earlier attempt hashed to sha256:" in str(error)
    assert "the source or the network" in error.remedy
    assert store.registry.served == 2 * SIZE
    assert list(download.directory.iterdir()) == []


@pytest.mark.parametrize("count", [0, 4])
def test_bytes_that_are_wrong_once_are_fetched_once_more(
    store: WatchedStore, download: DownloadHarness, count: int
) -> None:
    store.registry.faults.append(Corrupts(at=SIZE // 2))

    with create_pool(count) as pool:
        assert download.on(pool).exception() is None

    download.assert_verified()
    assert store.registry.served == 2 * SIZE


@pytest.mark.parametrize("count", [0, 4])
def test_wrong_bytes_after_a_loss_are_fetched_once_more(
    store: WatchedStore, download: DownloadHarness, count: int
) -> None:
    store.registry.faults += [BreaksRead(at=BLOCK), Corrupts(at=SIZE // 2)]

    with create_pool(count) as pool:
        assert download.on(pool).exception() is None

    download.assert_verified()
    assert store.registry.served == 2 * SIZE


def test_bytes_that_are_wrong_again_are_final(
    store: WatchedStore, download: DownloadHarness
) -> None:
    store.registry.faults += [BreaksRead(at=BLOCK), Corrupts(at=SIZE // 2, times=ALWAYS)]

    assert isinstance(download.alone(ALONE).exception(), DigestMismatch)

    assert store.registry.served == 2 * SIZE
    assert list(download.directory.iterdir()) == []


def test_second_try_that_is_refused_says_why(
    store: WatchedStore, download: DownloadHarness
) -> None:
    store.registry.faults += [BreaksRead(at=BLOCK), Corrupts(at=SIZE - 1)]

    def expire(position: int) -> None:
        if position + BLOCK >= SIZE:
            store.registry.faults.append(RefusesRequests("GET blob", AccessDenied("expired")))

    store.on_read = expire

    assert isinstance(download.alone(ALONE).exception(), AccessDenied)

    assert not download.final.exists()


@pytest.mark.parametrize("count", [0, 1, 4])
def test_cancel_in_the_middle_keeps_what_is_there(
    store: WatchedStore, download: DownloadHarness, count: int
) -> None:
    with create_pool(count) as pool:

        def cancel(position: int) -> None:
            if store.registry.served > 3 * RANGE:
                pool.cancel.set()

        store.on_read = cancel

        assert isinstance(download.on(pool).exception(), Cancelled)

    left = (download.directory / "x.partial").read_bytes()
    assert 3 * RANGE <= download.writer.bytes_filled < SIZE
    assert len(left) >= 3 * RANGE
    assert not download.final.exists()
    assert download.writer._fd == -1


def test_cancel_while_waiting_to_try_again_ends_the_wait(
    store: WatchedStore, download: DownloadHarness
) -> None:
    slow = replace(ALONE, retry=RetryPolicy(backoff_base=3600, max_backoff=3600))
    store.registry.faults.append(BreaksRead(at=BLOCK, times=ALWAYS))
    run = TransferContext(slow)
    fetch = download.fetch(run)
    thread = threading.Thread(target=fetch.run)
    thread.start()

    assert wait_for_state(download.sink, State.RETRYING)
    run.cancel.set()
    thread.join(WAIT)

    assert isinstance(fetch.future.exception(0), Cancelled)


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


def test_source_that_begins_too_far_is_not_believed(
    store: WatchedStore, download: DownloadHarness
) -> None:
    class BeginsLater(Fault):
        def begins_at(self, start: int) -> int | None:
            return start + 1

    store.registry.faults.append(BeginsLater())

    assert isinstance(download.alone().exception(), ProtocolViolation)


def test_disk_that_refuses_a_write_is_final(store: WatchedStore, download: DownloadHarness) -> None:
    download.writer.close()

    assert isinstance(download.alone().exception(), StoreError)

    assert store.registry.requests == {"GET blob": 1}


def test_disk_that_refuses_the_last_step_is_final(
    store: WatchedStore, download: DownloadHarness
) -> None:
    download.final.mkdir()

    assert isinstance(download.alone().exception(), StoreError)

    assert store.registry.served == SIZE


def test_error_nobody_thought_of_is_an_error_with_a_name(
    store: WatchedStore, download: DownloadHarness, caplog: pytest.LogCaptureFixture
) -> None:
    store.on_read = lambda position: 1 // 0

    error = download.alone().exception()

    assert type(error) is ConcilError
    assert "ZeroDivisionError" in str(error)
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert not download.final.exists()


def test_positions_go_up_to_the_size_and_losses_are_told(
    store: WatchedStore, download: DownloadHarness
) -> None:
    store.registry.faults.append(BreaksRead(at=12_345))

    assert download.alone(ALONE).exception() is None

    assert download.sink.states() == [State.RETRYING]
    [lost] = [event for event in download.sink.events if event.state is State.RETRYING]
    assert lost.position == 12_345
    assert "12345" in lost.detail


def test_error_of_one_thread_ends_the_others_within_a_block(
    store: WatchedStore, download: DownloadHarness
) -> None:
    together = threading.Barrier(2)
    ended = threading.Event()
    failed = AccessDenied("no more")

    def read(position: int) -> None:
        if position in (BLOCK, RANGE):  # the primary has submitted the helper
            together.wait(WAIT)
        if position == RANGE:
            raise failed
        if position == BLOCK:
            # The other thread has failed by the time that its writer has the stretch again.
            assert ended.wait(WAIT)

    store.on_read = read
    give_back = download.writer.release_range

    def given_back(start: int, stop: int) -> None:
        give_back(start, stop)
        ended.set()

    download.writer.release_range = given_back  # type: ignore[method-assign]
    with create_pool(2, replace(CONFIG, helpers=1)) as pool:
        assert download.on(pool).exception() is failed

    assert download.writer.bytes_filled <= 4 * BLOCK  # and not all of the range


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_interrupt_is_not_turned_into_an_error_of_the_blob(
    store: WatchedStore, download: DownloadHarness, error: type[BaseException]
) -> None:
    def interrupt(position: int) -> None:
        raise error

    store.on_read = interrupt

    assert isinstance(download.alone().exception(), error)

    assert not download.final.exists()
