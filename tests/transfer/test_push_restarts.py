"""An upload that must begin again does so a few times, and counts what it gains from there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from concil.config import RetryPolicy
from concil.content import Body, Digest
from concil.errors import (
    AccessDenied,
    ConnectionLost,
    DigestMismatch,
    ProtocolViolation,
    SessionLost,
)
from concil.store.protocol import BlobReader, WriterState
from concil.transfer.journal import Entry, Journal
from concil.transfer.push import Push, ResumingReader
from concil.transfer.run import Run
from tests.store.faults import Fault, LosesSession
from tests.transfer.pushing import BLOB, CHUNK, DIGEST, SIZE, LosesEvery, Monolith, PushedCopy
from tests.transfer.world import (
    ALWAYS,
    BLOCK,
    CONFIG,
    BreaksEvery,
    BytesReader,
    meter_of,
)


class ForgetsBroken(Fault):
    """A broken chunk costs the session, as in distribution 2.8."""

    def __init__(self, copy: PushedCopy, *places: int) -> None:
        super().__init__(ALWAYS)
        self.copy = copy
        self.places = list(places)

    def kept(self, offset: int, length: int) -> int | None:
        if not self.places or not offset <= self.places[0] < offset + length:
            return None
        self.places.pop(0)
        self.copy.host.sessions.clear()
        return 0


def test_registry_that_cannot_survive_a_broken_chunk_gets_a_new_session(copy: PushedCopy) -> None:
    copy.host.faults.append(ForgetsBroken(copy, 5 * CHUNK, 2 * CHUNK, 6 * CHUNK))

    copy.push()

    copy.assert_right()
    assert copy.host.received == SIZE + (5 + 2 + 6) * CHUNK


def test_sessions_that_come_no_further_are_counted_also_when_only_a_chunk_broke(
    copy: PushedCopy,
) -> None:
    copy.host.faults.append(ForgetsBroken(copy, *[2 * CHUNK] * 99))

    with pytest.raises(SessionLost, match="came no further"):
        copy.push()

    # CONFIG allows three restarts.
    assert copy.host.received == 4 * 2 * CHUNK
    copy.assert_nothing()


def test_sessions_that_come_further_each_time_are_progress(copy: PushedCopy) -> None:
    copy.host.faults.append(ForgetsBroken(copy, *range(CHUNK, SIZE, CHUNK)))

    copy.push()

    copy.assert_right()


def test_source_that_goes_on_is_patient_also_after_a_restart_of_the_destination(
    copy: PushedCopy,
) -> None:
    copy.host.faults.append(LosesSession(after=6 * CHUNK))
    copy.source.registry.faults.append(BreaksEvery(2_500))

    copy.push(Run(replace(CONFIG, retry=RetryPolicy(base=0, attempts=3))))

    copy.assert_right()


def test_destination_that_goes_on_is_given_time_also_after_a_restart(copy: PushedCopy) -> None:
    class LosesAfterwards(LosesEvery):
        def kept(self, offset: int, length: int) -> int | None:
            return super().kept(offset, length) if lost.fired else None

    lost = LosesSession(after=6 * CHUNK)
    copy.host.faults += [lost, LosesAfterwards(CHUNK // 3)]

    copy.push(Run(replace(CONFIG, retry=RetryPolicy(base=0, attempts=3))))

    copy.assert_right()


def test_empty_blob_with_the_digest_of_another_is_never_committed() -> None:
    writer = Monolith(0)
    meter = meter_of(BLOB.descriptor)

    with pytest.raises(DigestMismatch):
        Push(lambda start: BytesReader(b""), writer, meter, Run(CONFIG)).run(0, DIGEST, "x")

    assert writer.committed is None


def test_destination_that_claims_more_than_was_sent_is_not_believed(copy: PushedCopy) -> None:
    class Boaster(Monolith):
        def append(self, body: Body, /) -> None:
            raise ConnectionLost("broke off")

        def resync(self) -> int:
            self.offset = 4 * CHUNK
            return self.offset

    writer = Boaster(SIZE)

    with pytest.raises(ProtocolViolation):
        Push(copy.open, writer, meter_of(BLOB.descriptor), Run(CONFIG)).run(SIZE, DIGEST, "x")

    assert copy.source.left_open == 0


def test_source_that_begins_too_far_is_not_believed() -> None:
    reader = ResumingReader(lambda start: BytesReader(b"x" * 99, start + 1), 99, Run(CONFIG), "x")

    with pytest.raises(ProtocolViolation):
        reader.readinto(memoryview(bytearray(10)))


def test_upload_whose_source_is_gone_can_be_gone_on_with_later(
    copy: PushedCopy, tmp_path: Path
) -> None:
    journal = Journal(tmp_path / "journal")
    left = journal.entry("to/a", "a file", SIZE)
    session = copy.host.open_session()
    session.content += BLOB.content[:CHUNK]
    left.save(WriterState(session.location, CHUNK, CHUNK))
    left.release()
    entry = journal.entry("to/a", "a file", SIZE)
    writer = copy.target.begin_blob(SIZE, None, entry.state)

    def refuse(start: int, /) -> BlobReader:
        raise AccessDenied("no")

    with pytest.raises(AccessDenied):
        Push(refuse, writer, meter_of(BLOB.descriptor), Run(CONFIG), entry).run(SIZE, None, "x")

    again = journal.entry("to/a", "a file", SIZE)
    assert again.state is not None
    journal.close()


def test_upload_of_an_unknown_digest_goes_on_in_another_process(
    copy: PushedCopy, tmp_path: Path
) -> None:
    journal = Journal(tmp_path / "journal")
    first = journal.entry("to/a", "a file", SIZE)
    copy.source.registry.faults.append(StopsAt(4 * CHUNK + BLOCK))
    with pytest.raises(ConnectionLost):
        push_unknown(copy, first)
    copy.source.registry.faults.clear()
    served = copy.source.registry.served

    found = push_unknown(copy, journal.entry("to/a", "a file", SIZE))

    assert found == DIGEST
    copy.assert_right()
    assert copy.source.registry.served - served <= SIZE - 4 * CHUNK
    assert journal.unfinished() == []
    journal.close()


class StopsAt(Fault):
    """No body gets beyond a byte."""

    def __init__(self, at: int) -> None:
        super().__init__(ALWAYS)
        self.at = at

    def read_until(self, start: int) -> int | None:
        return self.at


def push_unknown(copy: PushedCopy, entry: Entry) -> Digest:
    """Push without knowing the digest."""
    writer = copy.target.begin_blob(SIZE, None, entry.state)
    push = Push(copy.open, writer, meter_of(BLOB.descriptor), Run(CONFIG), entry)
    return push.run(SIZE, None, "x")


def test_blob_that_somebody_else_brought_meanwhile_needs_no_more_bytes(copy: PushedCopy) -> None:
    class HasIt(Monolith):
        """Its connection broke, and its place says that the blob is there."""

        def append(self, body: Body, /) -> None:
            body.read(10)
            self.offset = SIZE
            self.committed = b"by another"

    writer = HasIt(SIZE)
    push = Push(copy.open, writer, meter_of(BLOB.descriptor), Run(CONFIG))

    assert push.run(SIZE, DIGEST, "x") == DIGEST

    assert not writer.aborted


def test_chunk_that_was_acknowledged_unread_is_not_believed(copy: PushedCopy) -> None:
    class Hasty(Monolith):
        def append(self, body: Body, /) -> None:
            body.read(10)
            self.offset += len(body)

    writer = Hasty(SIZE)
    writer.chunk_size = CHUNK

    with pytest.raises(ProtocolViolation):
        Push(copy.open, writer, meter_of(BLOB.descriptor), Run(CONFIG)).run(SIZE, DIGEST, "x")


def test_bytes_of_an_earlier_process_that_the_hash_lacks_are_read_once_more(
    copy: PushedCopy, tmp_path: Path
) -> None:
    journal = Journal(tmp_path / "journal")
    session = copy.host.open_session()
    session.content += BLOB.content[: 2 * CHUNK]
    entry = journal.entry("to/a", "a file", SIZE)
    # Its last chunk arrived, and the process died before it could write down the hash.
    entry.state = WriterState(session.location, 2 * CHUNK, CHUNK, hashed="nonsense")

    assert push_unknown(copy, entry) == DIGEST

    copy.assert_right()
    assert copy.source.registry.served == SIZE
    assert copy.host.received == SIZE - 2 * CHUNK
    journal.close()


def test_wrong_bytes_of_an_earlier_process_are_sent_again(copy: PushedCopy, tmp_path: Path) -> None:
    session = copy.host.open_session()
    session.content += bytes(2 * CHUNK)
    writer = copy.target.begin_blob(SIZE, DIGEST, WriterState(session.location, 2 * CHUNK, CHUNK))

    found = Push(copy.open, writer, meter_of(BLOB.descriptor), Run(CONFIG)).run(SIZE, DIGEST, "x")

    assert found == DIGEST
    copy.assert_right()
    assert copy.host.received == 2 * SIZE - 2 * CHUNK
