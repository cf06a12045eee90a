"""An upload that must begin again does so a few times, and counts what it gains from there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from concil.config import RetryPolicy
from concil.errors import (
    AccessDenied,
    ConnectionLost,
    DigestMismatch,
    ProtocolViolation,
    SessionLost,
)
from concil.fs.resume_state import WriterState
from concil.oci.blob_reader import BlobReader
from concil.oci.manifest import Body, Digest
from concil.progress.events import State
from concil.transfer.blob.push import BlobUpload
from concil.transfer.blob.resuming_reader import ResumingReader
from concil.transfer.context import TransferContext
from concil.transfer.journal import Journal, JournalEntry
from tests.support.store_faults import Fault, LosesSession
from tests.transfer.transfer_setup import (
    ALWAYS,
    BLOCK,
    CONFIG,
    BreaksEvery,
    BytesReader,
    meter_of,
    source_of,
)
from tests.transfer.uploads import BLOB, CHUNK, DIGEST, SIZE, LosesEvery, Monolith, UploadHarness


class ForgetsBroken(Fault):
    """A broken chunk costs the session, as in distribution 2.8."""

    def __init__(self, copy: UploadHarness, *places: int) -> None:
        super().__init__(ALWAYS)
        self.copy = copy
        self.places = list(places)

    def kept(self, offset: int, length: int) -> int | None:
        if not self.places or not offset <= self.places[0] < offset + length:
            return None
        self.places.pop(0)
        self.copy.host.sessions.clear()
        return 0


def test_registry_that_cannot_survive_a_broken_chunk_gets_a_new_session(
    upload: UploadHarness,
) -> None:
    upload.host.faults.append(ForgetsBroken(upload, 5 * CHUNK, 2 * CHUNK, 6 * CHUNK))

    upload.push()

    upload.assert_committed()
    assert upload.host.received == SIZE + (5 + 2 + 6) * CHUNK
    restarts = [event for event in upload.sink.events if event.state is State.RESTARTING]
    assert [(event.position, event.detail) for event in restarts] == [(0, "session lost")] * 3


def test_sessions_that_come_no_further_are_counted_also_when_only_a_chunk_broke(
    upload: UploadHarness,
) -> None:
    upload.host.faults.append(ForgetsBroken(upload, *[2 * CHUNK] * 99))

    with pytest.raises(SessionLost, match="without progress"):
        upload.push()

    # CONFIG allows three restarts.
    assert upload.host.received == 4 * 2 * CHUNK
    upload.assert_not_committed()


def test_sessions_that_come_further_each_time_are_progress(upload: UploadHarness) -> None:
    upload.host.faults.append(ForgetsBroken(upload, *range(CHUNK, SIZE, CHUNK)))

    upload.push()

    upload.assert_committed()


def test_source_that_goes_on_is_patient_also_after_a_restart_of_the_destination(
    upload: UploadHarness,
) -> None:
    upload.host.faults.append(LosesSession(after=6 * CHUNK))
    upload.source.registry.faults.append(BreaksEvery(2_500))

    upload.push(TransferContext(replace(CONFIG, retry=RetryPolicy(backoff_base=0, max_attempts=3))))

    upload.assert_committed()


def test_destination_that_goes_on_is_given_time_also_after_a_restart(upload: UploadHarness) -> None:
    class LosesAfterwards(LosesEvery):
        def kept(self, offset: int, length: int) -> int | None:
            return super().kept(offset, length) if lost.fired else None

    lost = LosesSession(after=6 * CHUNK)
    upload.host.faults += [lost, LosesAfterwards(CHUNK // 3)]

    upload.push(TransferContext(replace(CONFIG, retry=RetryPolicy(backoff_base=0, max_attempts=3))))

    upload.assert_committed()


def test_empty_blob_with_the_digest_of_another_is_never_committed() -> None:
    writer = Monolith(0)
    meter = meter_of(BLOB.descriptor)

    with pytest.raises(DigestMismatch):
        BlobUpload(
            source_of(lambda start: BytesReader(b""), 0, DIGEST),
            writer,
            meter,
            TransferContext(CONFIG),
        ).run()

    assert writer.committed is None


def test_destination_that_claims_more_than_was_sent_is_not_believed(upload: UploadHarness) -> None:
    class Boaster(Monolith):
        def append(self, body: Body, /) -> None:
            raise ConnectionLost("broke off")

        def resync(self) -> int:
            self.offset = 4 * CHUNK
            return self.offset

    writer = Boaster(SIZE)

    with pytest.raises(ProtocolViolation):
        BlobUpload(
            source_of(upload.open, SIZE, DIGEST),
            writer,
            meter_of(BLOB.descriptor),
            TransferContext(CONFIG),
        ).run()

    assert upload.source.left_open == 0


def test_source_that_begins_too_far_is_not_believed() -> None:
    reader = ResumingReader(
        lambda start: BytesReader(b"x" * 99, start + 1), 99, TransferContext(CONFIG), "x"
    )

    with pytest.raises(ProtocolViolation):
        reader.readinto(memoryview(bytearray(10)))


def test_upload_whose_source_is_gone_can_be_gone_on_with_later(
    upload: UploadHarness, tmp_path: Path
) -> None:
    journal = Journal(tmp_path / "journal")
    left = journal.claim_transfer("to/a", "a file", SIZE)
    session = upload.host.open_session()
    session.content += BLOB.content[:CHUNK]
    left.save(WriterState(session.location, CHUNK, CHUNK))
    left.release()
    entry = journal.claim_transfer("to/a", "a file", SIZE)
    writer = upload.target.begin_blob(SIZE, None, entry.state)

    def refuse(start: int, /) -> BlobReader:
        raise AccessDenied("no")

    with pytest.raises(AccessDenied):
        BlobUpload(
            source_of(refuse, SIZE, None),
            writer,
            meter_of(BLOB.descriptor),
            TransferContext(CONFIG),
            entry,
        ).run()

    again = journal.claim_transfer("to/a", "a file", SIZE)
    assert again.state is not None
    journal.close()


def test_upload_of_an_unknown_digest_goes_on_in_another_process(
    upload: UploadHarness, tmp_path: Path
) -> None:
    journal = Journal(tmp_path / "journal")
    first = journal.claim_transfer("to/a", "a file", SIZE)
    upload.source.registry.faults.append(StopsAt(4 * CHUNK + BLOCK))
    with pytest.raises(ConnectionLost):
        push_unknown(upload, first)
    upload.source.registry.faults.clear()
    served = upload.source.registry.served

    found = push_unknown(upload, journal.claim_transfer("to/a", "a file", SIZE))

    assert found == DIGEST
    upload.assert_committed()
    assert upload.source.registry.served - served <= SIZE - 4 * CHUNK
    assert journal.list_unfinished() == []
    journal.close()


class StopsAt(Fault):
    """No body gets beyond a byte."""

    def __init__(self, at: int) -> None:
        super().__init__(ALWAYS)
        self.at = at

    def read_until(self, start: int) -> int | None:
        return self.at


def push_unknown(copy: UploadHarness, entry: JournalEntry) -> Digest:
    """Push without knowing the digest."""
    writer = copy.target.begin_blob(SIZE, None, entry.state)
    push = BlobUpload(
        source_of(copy.open, SIZE, None),
        writer,
        meter_of(BLOB.descriptor),
        TransferContext(CONFIG),
        entry,
    )
    return push.run()


def test_blob_that_somebody_else_brought_meanwhile_needs_no_more_bytes(
    upload: UploadHarness,
) -> None:
    class HasIt(Monolith):
        """Its connection broke, and its place says that the blob is there."""

        def append(self, body: Body, /) -> None:
            body.read(10)
            self.offset = SIZE
            self.committed = b"by another"

    writer = HasIt(SIZE)
    push = BlobUpload(
        source_of(upload.open, SIZE, DIGEST),
        writer,
        meter_of(BLOB.descriptor),
        TransferContext(CONFIG),
    )

    assert push.run() == DIGEST

    assert not writer.aborted


def test_chunk_that_was_acknowledged_unread_is_not_believed(upload: UploadHarness) -> None:
    class Hasty(Monolith):
        def append(self, body: Body, /) -> None:
            body.read(10)
            self.offset += len(body)

    writer = Hasty(SIZE)
    writer.chunk_size = CHUNK

    with pytest.raises(ProtocolViolation):
        BlobUpload(
            source_of(upload.open, SIZE, DIGEST),
            writer,
            meter_of(BLOB.descriptor),
            TransferContext(CONFIG),
        ).run()


def test_bytes_of_an_earlier_process_that_the_hash_lacks_are_read_once_more(
    upload: UploadHarness, tmp_path: Path
) -> None:
    journal = Journal(tmp_path / "journal")
    session = upload.host.open_session()
    session.content += BLOB.content[: 2 * CHUNK]
    entry = journal.claim_transfer("to/a", "a file", SIZE)
    # Its last chunk arrived, and the process died before it could write down the hash.
    entry.state = WriterState(session.location, 2 * CHUNK, CHUNK, hash_state="nonsense")

    assert push_unknown(upload, entry) == DIGEST

    upload.assert_committed()
    assert upload.source.registry.served == SIZE
    assert upload.host.received == SIZE - 2 * CHUNK
    journal.close()


def test_wrong_bytes_of_an_earlier_process_are_sent_again(
    upload: UploadHarness, tmp_path: Path
) -> None:
    session = upload.host.open_session()
    session.content += bytes(2 * CHUNK)
    writer = upload.target.begin_blob(SIZE, DIGEST, WriterState(session.location, 2 * CHUNK, CHUNK))

    found = BlobUpload(
        source_of(upload.open, SIZE, DIGEST),
        writer,
        meter_of(BLOB.descriptor),
        TransferContext(CONFIG),
    ).run()

    assert found == DIGEST
    upload.assert_committed()
    assert upload.host.received == 2 * SIZE - 2 * CHUNK
