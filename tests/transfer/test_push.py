"""A blob is pushed by chunks, and wrong bytes are never committed."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from concil.config import RetryPolicy
from concil.errors import (
    Cancelled,
    DigestMismatch,
)
from concil.progress import State
from concil.transfer.push import Push
from concil.transfer.run import Run
from tests.store.contract import Blob
from tests.store.faults import BreaksRead, Corrupts, InTurn, LosesChunk
from tests.transfer.pushing import BLOB, CHUNK, DIGEST, SIZE, Monolith, PushedCopy
from tests.transfer.world import BLOCK, CONFIG, meter_of


def test_blob_is_read_once_and_sent_once(copy: PushedCopy) -> None:
    assert copy.push() == DIGEST

    copy.assert_right()
    assert copy.source.registry.requests == {"GET blob": 1}
    assert copy.host.requests == {"POST upload": 1, "PATCH upload": 8, "PUT upload": 1}
    assert (copy.source.registry.served, copy.host.received) == (SIZE, SIZE)


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK])
def test_every_size_arrives(size: int) -> None:
    copy = PushedCopy(Blob.random(size))

    copy.push()

    copy.assert_right()
    assert copy.host.requests["PATCH upload"] == max(1, -(-size // CHUNK))


def test_unknown_digest_is_that_of_the_bytes(copy: PushedCopy) -> None:
    writer = copy.target.begin_blob(SIZE)
    push = Push(copy.open, writer, meter_of(BLOB.descriptor), Run(CONFIG))

    assert push.run(SIZE, None, "the blob") == DIGEST

    copy.assert_right()


def test_sha512_is_verified_as_such() -> None:
    copy = PushedCopy(Blob.random(SIZE, algorithm="sha512"))

    assert copy.push().algorithm == "sha512"

    copy.assert_right()


@pytest.mark.parametrize("at", [0, CHUNK, SIZE - 1])
def test_wrong_bytes_are_never_committed_and_the_session_is_thrown_away(
    copy: PushedCopy, at: int
) -> None:
    copy.source.registry.faults.append(Corrupts(at=at, times=2))

    with pytest.raises(DigestMismatch, match="twice the same") as caught:
        copy.push()

    assert "the source holds damaged content" in caught.value.remedy

    copy.assert_nothing()
    assert copy.host.sessions == {}
    # The last bytes never left: not even a registry that checks nothing has all of them.
    assert copy.host.requests["PUT upload"] == 0
    assert copy.host.received < 2 * SIZE


@pytest.mark.parametrize("at", [0, CHUNK, SIZE - 1])
def test_bytes_that_arrive_wrong_once_are_sent_once_more_in_a_new_session(
    copy: PushedCopy, at: int
) -> None:
    copy.source.registry.faults.append(Corrupts(at=at))

    assert copy.push() == DIGEST

    copy.assert_right()
    assert SIZE < copy.host.received < 2 * SIZE
    assert copy.host.requests["PUT upload"] == 1


def test_bytes_that_are_wrong_in_two_ways_are_the_lines(copy: PushedCopy) -> None:
    copy.source.registry.faults.append(InTurn(0, SIZE - 1))

    with pytest.raises(DigestMismatch, match="and before to sha256:") as caught:
        copy.push()

    copy.assert_nothing()
    assert "the way from it" in caught.value.remedy
    assert copy.host.sessions == {}


@pytest.mark.parametrize("at", [0, SIZE - 1])
def test_writer_that_commits_with_the_bytes_never_gets_wrong_ones(
    copy: PushedCopy, at: int
) -> None:
    copy.source.registry.faults.append(Corrupts(at=at, times=2))
    writer = Monolith(SIZE)

    with pytest.raises(DigestMismatch):
        Push(copy.open, writer, meter_of(BLOB.descriptor), Run(CONFIG)).run(SIZE, DIGEST, "x")

    assert writer.committed is None
    assert writer.aborted


def test_cancel_lets_the_chunk_end_and_keeps_the_session(copy: PushedCopy) -> None:
    run = Run(CONFIG)

    def cancel(position: int) -> None:
        if position > 2 * CHUNK:
            run.cancel.set()

    copy.source.on_read = cancel

    with pytest.raises(Cancelled):
        copy.push(run)

    copy.assert_nothing()
    [session] = copy.host.sessions.values()
    assert len(session.content) == 3 * CHUNK


def test_abandoned_push_stops_in_the_middle_of_a_chunk(copy: PushedCopy) -> None:
    run = Run(CONFIG)

    def abandon(position: int) -> None:
        if position > 2 * CHUNK:
            run.cancel.set()
            run.abandon.set()

    copy.source.on_read = abandon

    with pytest.raises(Cancelled):
        copy.push(run)

    [session] = copy.host.sessions.values()
    assert 2 * CHUNK < len(session.content) < 3 * CHUNK


def test_cancel_while_waiting_to_try_again_ends_the_wait(copy: PushedCopy) -> None:
    copy.host.faults.append(LosesChunk(at=CHUNK))
    run = Run(replace(CONFIG, retry=RetryPolicy(base=3600, longest=3600)))
    threading.Timer(0.05, run.cancel.set).start()

    with pytest.raises(Cancelled):
        copy.push(run)

    copy.assert_nothing()


def test_positions_are_those_of_the_destination(copy: PushedCopy) -> None:
    copy.host.faults.append(LosesChunk(at=2 * CHUNK + 500, keeping=100))

    copy.push()

    at = [event.state for event in copy.sink.events].index(State.RETRYING)
    lost, found = copy.sink.events[at : at + 2]
    assert lost.position == 2 * CHUNK
    assert "broke after 100" in lost.detail
    assert (found.state, found.position) == (State.MOVING, 2 * CHUNK + 100)


def test_a_loss_is_told_before_the_wait_for_another_try(copy: PushedCopy) -> None:
    run = Run(replace(CONFIG, retry=RetryPolicy(base=3600, longest=3600)))
    copy.host.faults.append(LosesChunk(at=CHUNK))

    def stop() -> None:
        if copy.sink.events[-1].state is State.RETRYING:
            run.cancel.set()

    copy.sink.on_event = stop

    with pytest.raises(Cancelled):
        copy.push(run)

    assert copy.sink.states() == [State.RETRYING]


def test_a_loss_of_the_source_is_told(copy: PushedCopy) -> None:
    copy.source.registry.faults.append(BreaksRead(at=CHUNK + 10))

    copy.push()

    [lost] = [event for event in copy.sink.events if event.state is State.RETRYING]
    assert lost.detail
    assert copy.host.requests["PATCH upload"] == 8
