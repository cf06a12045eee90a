"""A blob is pushed by chunks, and wrong bytes are never committed."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from concil.config import RetryPolicy
from concil.errors import Cancelled, DigestMismatch
from concil.progress.events import State
from concil.transfer.blob.push import BlobUpload
from concil.transfer.context import TransferContext
from tests.support.store_contract import Blob
from tests.support.store_faults import BreaksRead, Corrupts, InTurn, LosesChunk
from tests.transfer.transfer_setup import BLOCK, CONFIG, meter_of, source_of
from tests.transfer.uploads import BLOB, CHUNK, DIGEST, SIZE, Monolith, UploadHarness


def test_blob_is_read_once_and_sent_once(upload: UploadHarness) -> None:
    assert upload.push() == DIGEST

    upload.assert_committed()
    assert upload.source.registry.requests == {"GET blob": 1}
    assert upload.host.requests == {"POST upload": 1, "PATCH upload": 8, "PUT upload": 1}
    assert (upload.source.registry.served, upload.host.received) == (SIZE, SIZE)


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK])
def test_every_size_arrives(size: int) -> None:
    copy = UploadHarness(Blob.random(size))

    copy.push()

    copy.assert_committed()
    assert copy.host.requests["PATCH upload"] == max(1, -(-size // CHUNK))


def test_unknown_digest_is_that_of_the_bytes(upload: UploadHarness) -> None:
    writer = upload.target.begin_blob(SIZE)
    push = BlobUpload(
        source_of(upload.open, SIZE, None),
        writer,
        meter_of(BLOB.descriptor),
        TransferContext(CONFIG),
    )

    assert push.run() == DIGEST

    upload.assert_committed()


def test_sha512_is_verified_as_such() -> None:
    copy = UploadHarness(Blob.random(SIZE, algorithm="sha512"))

    assert copy.push().algorithm == "sha512"

    copy.assert_committed()


@pytest.mark.parametrize("at", [0, CHUNK, SIZE - 1])
def test_wrong_bytes_are_never_committed_and_the_session_is_thrown_away(
    upload: UploadHarness, at: int
) -> None:
    upload.source.registry.faults.append(Corrupts(at=at, times=2))

    with pytest.raises(DigestMismatch, match="a second attempt gave the same bytes") as caught:
        upload.push()

    assert "the content of the source is damaged" in caught.value.remedy

    upload.assert_not_committed()
    assert upload.host.sessions == {}
    # The last bytes never left: not even a registry that checks nothing has all of them.
    assert upload.host.requests["PUT upload"] == 0
    assert upload.host.received < 2 * SIZE


@pytest.mark.parametrize("at", [0, CHUNK, SIZE - 1])
def test_bytes_that_arrive_wrong_once_are_sent_once_more_in_a_new_session(
    upload: UploadHarness, at: int
) -> None:
    upload.source.registry.faults.append(Corrupts(at=at))

    assert upload.push() == DIGEST

    upload.assert_committed()
    assert SIZE < upload.host.received < 2 * SIZE
    assert upload.host.requests["PUT upload"] == 1


def test_bytes_that_are_wrong_in_two_ways_are_the_lines(upload: UploadHarness) -> None:
    upload.source.registry.faults.append(InTurn(0, SIZE - 1))

    with pytest.raises(DigestMismatch, match="an earlier attempt hashed to sha256:") as caught:
        upload.push()

    upload.assert_not_committed()
    assert "the source or the network" in caught.value.remedy
    assert upload.host.sessions == {}


@pytest.mark.parametrize("at", [0, SIZE - 1])
def test_writer_that_commits_with_the_bytes_never_gets_wrong_ones(
    upload: UploadHarness, at: int
) -> None:
    upload.source.registry.faults.append(Corrupts(at=at, times=2))
    writer = Monolith(SIZE)

    with pytest.raises(DigestMismatch):
        BlobUpload(
            source_of(upload.open, SIZE, DIGEST),
            writer,
            meter_of(BLOB.descriptor),
            TransferContext(CONFIG),
        ).run()

    assert writer.committed is None
    assert writer.aborted


def test_cancel_lets_the_chunk_end_and_keeps_the_session(upload: UploadHarness) -> None:
    run = TransferContext(CONFIG)

    def cancel(position: int) -> None:
        if position > 2 * CHUNK:
            run.cancel.set()

    upload.source.on_read = cancel

    with pytest.raises(Cancelled):
        upload.push(run)

    upload.assert_not_committed()
    [session] = upload.host.sessions.values()
    assert len(session.content) == 3 * CHUNK


def test_abandoned_push_stops_in_the_middle_of_a_chunk(upload: UploadHarness) -> None:
    run = TransferContext(CONFIG)

    def abandon(position: int) -> None:
        if position > 2 * CHUNK:
            run.cancel.set()
            run.abandon.set()

    upload.source.on_read = abandon

    with pytest.raises(Cancelled):
        upload.push(run)

    [session] = upload.host.sessions.values()
    assert 2 * CHUNK < len(session.content) < 3 * CHUNK


def test_cancel_while_waiting_to_try_again_ends_the_wait(upload: UploadHarness) -> None:
    upload.host.faults.append(LosesChunk(at=CHUNK))
    run = TransferContext(replace(CONFIG, retry=RetryPolicy(backoff_base=3600, max_backoff=3600)))
    threading.Timer(0.05, run.cancel.set).start()

    with pytest.raises(Cancelled):
        upload.push(run)

    upload.assert_not_committed()


def test_positions_are_those_of_the_destination(upload: UploadHarness) -> None:
    upload.host.faults.append(LosesChunk(at=2 * CHUNK + 500, keeping=100))

    upload.push()

    at = [event.state for event in upload.sink.events].index(State.RETRYING)
    lost, found = upload.sink.events[at : at + 2]
    assert lost.position == 2 * CHUNK
    assert "broke after 100" in lost.detail
    assert (found.state, found.position) == (State.MOVING, 2 * CHUNK + 100)


def test_a_loss_is_told_before_the_wait_for_another_try(upload: UploadHarness) -> None:
    run = TransferContext(replace(CONFIG, retry=RetryPolicy(backoff_base=3600, max_backoff=3600)))
    upload.host.faults.append(LosesChunk(at=CHUNK))

    def stop() -> None:
        if upload.sink.events[-1].state is State.RETRYING:
            run.cancel.set()

    upload.sink.on_event = stop

    with pytest.raises(Cancelled):
        upload.push(run)

    assert upload.sink.states() == [State.RETRYING]


def test_a_loss_of_the_source_is_told(upload: UploadHarness) -> None:
    upload.source.registry.faults.append(BreaksRead(at=CHUNK + 10))

    upload.push()

    [lost] = [event for event in upload.sink.events if event.state is State.RETRYING]
    assert lost.detail
    assert upload.host.requests["PATCH upload"] == 8
