"""Each side of a push resumes on its own, as long as there is any progress."""

from __future__ import annotations

from dataclasses import replace

import pytest

from concil.config import RetryPolicy
from concil.errors import (
    AccessDenied,
    ConcilError,
    ConnectionLost,
    FileChanged,
    NotFound,
    SessionLost,
)
from concil.progress.events import State
from concil.transfer.blob.push import BlobUpload
from concil.transfer.context import TransferContext
from tests.support.store_faults import (
    BreaksRead,
    IgnoresRange,
    LosesChunk,
    LosesCommitAnswer,
    LosesSession,
    RefusesRequests,
)
from tests.transfer.transfer_setup import ALWAYS, BLOCK, CONFIG, BreaksEvery, meter_of, source_of
from tests.transfer.uploads import BLOB, CHUNK, DIGEST, SIZE, LosesEvery, Monolith, UploadHarness


@pytest.mark.parametrize("at", [0, 1, CHUNK - 1, CHUNK, 3 * CHUNK + 77, SIZE - 1])
def test_lost_chunk_is_sent_from_where_the_destination_is(upload: UploadHarness, at: int) -> None:
    upload.host.faults.append(LosesChunk(at=at))

    upload.push()

    upload.assert_committed()
    assert upload.host.received == SIZE
    assert State.RETRYING in upload.sink.states()


@pytest.mark.parametrize("kept", [0, 1, 5_000])
def test_source_is_read_again_only_as_far_as_the_destination_lost(
    upload: UploadHarness, kept: int
) -> None:
    upload.host.faults.append(LosesChunk(at=4 * CHUNK - 1, keeping=kept))

    upload.push()

    upload.assert_committed()
    lost = CHUNK - 1 - kept  # bytes that had arrived and were thrown away
    assert upload.host.received == SIZE
    # What was in the hands of the sender when the connection broke is read again too.
    assert upload.source.registry.served - SIZE <= lost + BLOCK


def test_lost_source_does_not_touch_the_upload(upload: UploadHarness) -> None:
    upload.source.registry.faults.append(BreaksEvery(3_456))

    upload.push()

    upload.assert_committed()
    assert upload.host.requests == {"POST upload": 1, "PATCH upload": 8, "PUT upload": 1}
    assert upload.source.registry.served == SIZE


def test_source_without_ranges_is_read_from_its_start_again(upload: UploadHarness) -> None:
    upload.source.registry.faults += [BreaksRead(at=2 * CHUNK), IgnoresRange(times=ALWAYS)]

    upload.push()

    upload.assert_committed()
    assert upload.source.registry.served == SIZE + 2 * CHUNK
    assert upload.host.received == SIZE


def test_both_sides_may_lose_at_once(upload: UploadHarness) -> None:
    upload.source.registry.faults.append(BreaksEvery(2_500))
    upload.host.faults += [
        LosesChunk(at=at, keeping=at // 3 % CHUNK) for at in range(0, SIZE, 7_777)
    ]

    upload.push()

    upload.assert_committed()
    assert upload.host.received <= SIZE + 10 * CHUNK


def test_lost_session_begins_again(upload: UploadHarness) -> None:
    upload.host.faults.append(LosesSession(after=5 * CHUNK))

    upload.push()

    upload.assert_committed()
    assert upload.host.received == SIZE + 5 * CHUNK


def test_sessions_that_are_always_lost_end_in_an_error(upload: UploadHarness) -> None:
    upload.host.faults.append(LosesSession(after=2 * CHUNK, times=ALWAYS))

    with pytest.raises(SessionLost):
        upload.push()

    upload.assert_not_committed()
    # CONFIG allows three restarts.
    assert upload.host.received == 4 * 2 * CHUNK


def test_lost_answer_to_the_commit_ends_in_the_blob(upload: UploadHarness) -> None:
    upload.host.faults.append(LosesCommitAnswer())

    upload.push()

    assert upload.target.blobs == {DIGEST: BLOB.content}


def test_destination_that_gains_nothing_ends_after_the_attempts(upload: UploadHarness) -> None:
    upload.host.faults.append(LosesChunk(at=3 * CHUNK, times=ALWAYS))

    with pytest.raises(ConnectionLost):
        upload.push(
            TransferContext(replace(CONFIG, retry=RetryPolicy(backoff_base=0, max_attempts=4)))
        )

    upload.assert_not_committed()
    assert upload.host.requests["PATCH upload"] == 3 + 4
    assert upload.source.registry.served <= 3 * CHUNK + 4 * (BLOCK + CHUNK)


def test_any_byte_gained_is_reason_to_go_on(upload: UploadHarness) -> None:
    upload.host.faults.append(LosesEvery(CHUNK // 2 + 1))

    upload.push(TransferContext(replace(CONFIG, retry=RetryPolicy(backoff_base=0, max_attempts=2))))

    upload.assert_committed()


def test_source_that_is_lost_for_good_says_so_itself(upload: UploadHarness) -> None:
    upload.source.registry.faults.append(BreaksRead(at=3 * CHUNK, times=ALWAYS))

    with pytest.raises(ConnectionLost, match=f"byte {3 * CHUNK}"):
        upload.push()

    upload.assert_not_committed()
    assert upload.host.requests["PATCH upload"] == 4


@pytest.mark.parametrize("error", [AccessDenied("no"), NotFound("gone")])
def test_final_error_of_the_source_is_not_repeated(
    upload: UploadHarness, error: ConcilError
) -> None:
    upload.source.registry.faults.append(RefusesRequests("GET blob", error))

    with pytest.raises(type(error)) as raised:
        upload.push()

    assert raised.value is error
    assert upload.source.registry.requests == {"GET blob": 1}
    upload.assert_not_committed()


def test_final_error_of_the_destination_is_not_repeated(upload: UploadHarness) -> None:
    upload.host.faults.append(RefusesRequests("PATCH upload", AccessDenied("read only")))

    with pytest.raises(AccessDenied):
        upload.push()

    assert upload.host.requests["PATCH upload"] == 1
    upload.assert_not_committed()


def test_source_that_changed_is_not_committed(upload: UploadHarness) -> None:
    def check() -> None:
        raise FileChanged("it was written to")

    writer = Monolith(SIZE)
    source = source_of(upload.open, SIZE, DIGEST, check_unchanged=check)
    push = BlobUpload(source, writer, meter_of(BLOB.descriptor), TransferContext(CONFIG))

    with pytest.raises(FileChanged):
        push.run()

    assert writer.committed is None
