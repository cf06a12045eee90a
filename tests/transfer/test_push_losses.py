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
from concil.progress import State
from concil.transfer.push import Push
from concil.transfer.run import Run
from tests.store.faults import (
    BreaksRead,
    IgnoresRange,
    LosesChunk,
    LosesCommitAnswer,
    LosesSession,
    RefusesRequests,
)
from tests.transfer.pushing import BLOB, CHUNK, DIGEST, SIZE, LosesEvery, Monolith, PushedCopy
from tests.transfer.world import ALWAYS, BLOCK, CONFIG, BreaksEvery, meter_of


@pytest.mark.parametrize("at", [0, 1, CHUNK - 1, CHUNK, 3 * CHUNK + 77, SIZE - 1])
def test_lost_chunk_is_sent_from_where_the_destination_is(copy: PushedCopy, at: int) -> None:
    copy.host.faults.append(LosesChunk(at=at))

    copy.push()

    copy.assert_right()
    assert copy.host.received == SIZE
    assert State.RETRYING in copy.sink.states()


@pytest.mark.parametrize("kept", [0, 1, 5_000])
def test_source_is_read_again_only_as_far_as_the_destination_lost(
    copy: PushedCopy, kept: int
) -> None:
    copy.host.faults.append(LosesChunk(at=4 * CHUNK - 1, keeping=kept))

    copy.push()

    copy.assert_right()
    lost = CHUNK - 1 - kept  # bytes that had arrived and were thrown away
    assert copy.host.received == SIZE
    # What was in the hands of the sender when the connection broke is read again too.
    assert copy.source.registry.served - SIZE <= lost + BLOCK


def test_lost_source_does_not_touch_the_upload(copy: PushedCopy) -> None:
    copy.source.registry.faults.append(BreaksEvery(3_456))

    copy.push()

    copy.assert_right()
    assert copy.host.requests == {"POST upload": 1, "PATCH upload": 8, "PUT upload": 1}
    assert copy.source.registry.served == SIZE


def test_source_without_ranges_is_read_from_its_start_again(copy: PushedCopy) -> None:
    copy.source.registry.faults += [BreaksRead(at=2 * CHUNK), IgnoresRange(times=ALWAYS)]

    copy.push()

    copy.assert_right()
    assert copy.source.registry.served == SIZE + 2 * CHUNK
    assert copy.host.received == SIZE


def test_both_sides_may_lose_at_once(copy: PushedCopy) -> None:
    copy.source.registry.faults.append(BreaksEvery(2_500))
    copy.host.faults += [LosesChunk(at=at, keeping=at // 3 % CHUNK) for at in range(0, SIZE, 7_777)]

    copy.push()

    copy.assert_right()
    assert copy.host.received <= SIZE + 10 * CHUNK


def test_lost_session_begins_again(copy: PushedCopy) -> None:
    copy.host.faults.append(LosesSession(after=5 * CHUNK))

    copy.push()

    copy.assert_right()
    assert copy.host.received == SIZE + 5 * CHUNK


def test_sessions_that_are_always_lost_end_in_an_error(copy: PushedCopy) -> None:
    copy.host.faults.append(LosesSession(after=2 * CHUNK, times=ALWAYS))

    with pytest.raises(SessionLost):
        copy.push()

    copy.assert_nothing()
    # CONFIG allows three restarts.
    assert copy.host.received == 4 * 2 * CHUNK


def test_lost_answer_to_the_commit_ends_in_the_blob(copy: PushedCopy) -> None:
    copy.host.faults.append(LosesCommitAnswer())

    copy.push()

    assert copy.target.blobs == {DIGEST: BLOB.content}


def test_destination_that_gains_nothing_ends_after_the_attempts(copy: PushedCopy) -> None:
    copy.host.faults.append(LosesChunk(at=3 * CHUNK, times=ALWAYS))

    with pytest.raises(ConnectionLost):
        copy.push(Run(replace(CONFIG, retry=RetryPolicy(base=0, attempts=4))))

    copy.assert_nothing()
    assert copy.host.requests["PATCH upload"] == 3 + 4
    assert copy.source.registry.served <= 3 * CHUNK + 4 * (BLOCK + CHUNK)


def test_any_byte_gained_is_reason_to_go_on(copy: PushedCopy) -> None:
    copy.host.faults.append(LosesEvery(CHUNK // 2 + 1))

    copy.push(Run(replace(CONFIG, retry=RetryPolicy(base=0, attempts=2))))

    copy.assert_right()


def test_source_that_is_lost_for_good_says_so_itself(copy: PushedCopy) -> None:
    copy.source.registry.faults.append(BreaksRead(at=3 * CHUNK, times=ALWAYS))

    with pytest.raises(ConnectionLost, match=f"byte {3 * CHUNK}"):
        copy.push()

    copy.assert_nothing()
    assert copy.host.requests["PATCH upload"] == 4


@pytest.mark.parametrize("error", [AccessDenied("no"), NotFound("gone")])
def test_final_error_of_the_source_is_not_repeated(copy: PushedCopy, error: ConcilError) -> None:
    copy.source.registry.faults.append(RefusesRequests("GET blob", error))

    with pytest.raises(type(error)) as raised:
        copy.push()

    assert raised.value is error
    assert copy.source.registry.requests == {"GET blob": 1}
    copy.assert_nothing()


def test_final_error_of_the_destination_is_not_repeated(copy: PushedCopy) -> None:
    copy.host.faults.append(RefusesRequests("PATCH upload", AccessDenied("read only")))

    with pytest.raises(AccessDenied):
        copy.push()

    assert copy.host.requests["PATCH upload"] == 1
    copy.assert_nothing()


def test_source_that_changed_is_not_committed(copy: PushedCopy) -> None:
    def check() -> None:
        raise FileChanged("it was written to")

    writer = Monolith(SIZE)
    push = Push(copy.open, writer, meter_of(BLOB.descriptor), Run(CONFIG))

    with pytest.raises(FileChanged):
        push.run(SIZE, DIGEST, "x", check=check)

    assert writer.committed is None
