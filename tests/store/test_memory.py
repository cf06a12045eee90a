"""The losses of the store in memory, which tests of the engine build on."""

from __future__ import annotations

import pytest

from concil.errors import (
    AccessDenied,
    ConnectionLost,
    DigestMismatch,
    ProtocolViolation,
    SessionLost,
)
from concil.oci.manifest import Digest
from tests.support.memory_store import MemoryHost, MemoryStore, MemoryWriter
from tests.support.store_contract import CHUNK, Blob, Window, put_image, read, write
from tests.support.store_faults import (
    BreaksRead,
    Corrupts,
    IgnoresRange,
    LosesChunk,
    LosesCommitAnswer,
    LosesSession,
    RefusesRequests,
)

BLOB = Blob.random(3 * CHUNK + 7)
DIGEST = BLOB.descriptor.digest


@pytest.fixture
def host() -> MemoryHost:
    """Return a registry without faults."""
    return MemoryHost(chunk_size=CHUNK)


@pytest.fixture
def store(host: MemoryHost) -> MemoryStore:
    """Return a repository of it."""
    return host.repository("a")


def append(writer: MemoryWriter) -> None:
    """Send the next chunk."""
    writer.append(Window(BLOB.content[writer.offset : writer.offset + CHUNK]))


def finish(writer: MemoryWriter) -> None:
    """Send what is missing, and commit."""
    while writer.offset < len(BLOB.content):
        append(writer)
    writer.commit(DIGEST)
    writer.close()


@pytest.mark.parametrize(("keeping", "kept"), [(None, CHUNK + 5), (3, CHUNK + 3), (0, CHUNK)])
def test_lost_chunk_leaves_its_accepted_part(
    host: MemoryHost, store: MemoryStore, keeping: int | None, kept: int
) -> None:
    host.faults.append(LosesChunk(at=CHUNK + 5, keeping=keeping))
    writer = store.begin_blob(len(BLOB.content))
    append(writer)

    with pytest.raises(ConnectionLost):
        append(writer)

    assert writer.resync() == kept
    # A chunk begins where the registry is; its size stays what it was.
    finish(writer)
    assert read(store, BLOB.descriptor) == BLOB.content
    assert host.received == len(BLOB.content)


def test_append_after_a_loss_without_resync_fails_the_test(
    host: MemoryHost, store: MemoryStore
) -> None:
    host.faults.append(LosesChunk(at=0))
    writer = store.begin_blob(len(BLOB.content))
    with pytest.raises(ConnectionLost):
        append(writer)

    with pytest.raises(AssertionError, match="resync"):
        append(writer)


def test_lost_session_begins_again_at_zero(host: MemoryHost, store: MemoryStore) -> None:
    host.faults.append(LosesSession(after=2 * CHUNK))
    writer = store.begin_blob(len(BLOB.content))
    append(writer)
    append(writer)

    with pytest.raises(SessionLost):
        append(writer)

    assert writer.resync() == 0
    finish(writer)
    assert read(store, BLOB.descriptor) == BLOB.content


def test_lost_answer_to_a_commit_leaves_the_blob_visible(
    host: MemoryHost, store: MemoryStore
) -> None:
    host.faults.append(LosesCommitAnswer())

    with pytest.raises(ConnectionLost):
        finish(store.begin_blob(len(BLOB.content)))

    assert store.has_blob(BLOB.descriptor)


def test_broken_read_serves_what_came_before(host: MemoryHost, store: MemoryStore) -> None:
    write(store, BLOB.content, DIGEST)
    host.faults.append(BreaksRead(at=100))
    reader = store.open_blob(BLOB.descriptor)
    buffer = memoryview(bytearray(1000))

    assert reader.readinto(buffer) == 100
    with pytest.raises(ConnectionLost):
        reader.readinto(buffer)

    assert read(store, BLOB.descriptor, 100) == BLOB.content[100:]


def test_ignored_range_begins_at_zero(host: MemoryHost, store: MemoryStore) -> None:
    write(store, BLOB.content, DIGEST)
    host.faults.append(IgnoresRange())

    assert store.open_blob(BLOB.descriptor, 50, 60).start == 0
    assert store.open_blob(BLOB.descriptor, 50, 60).start == 50


def test_corrupt_byte_is_served_once(host: MemoryHost, store: MemoryStore) -> None:
    write(store, BLOB.content, DIGEST)
    host.faults.append(Corrupts(at=7))

    assert Digest.from_bytes(read(store, BLOB.descriptor)) != DIGEST
    assert Digest.from_bytes(read(store, BLOB.descriptor)) == DIGEST


def test_refused_requests_are_counted(host: MemoryHost, store: MemoryStore) -> None:
    fault = RefusesRequests("HEAD blob", AccessDenied("no"), times=2)
    host.faults.append(fault)

    for _ in range(2):
        with pytest.raises(AccessDenied):
            store.has_blob(BLOB.descriptor)

    assert fault.fired
    assert not store.has_blob(BLOB.descriptor)
    assert host.requests == {"HEAD blob": 3}


def test_chunk_of_another_size_fails_the_test(store: MemoryStore) -> None:
    with pytest.raises(AssertionError, match="bytes instead of"):
        store.begin_blob(10 * CHUNK).append(Window(bytes(CHUNK - 1)))


def test_manifest_before_its_blobs_is_refused(host: MemoryHost, store: MemoryStore) -> None:
    manifest = put_image(store, 1, "v1")

    with pytest.raises(ProtocolViolation):
        host.repository("b").put_manifest(manifest, "v1")


def test_mount_takes_a_blob_without_its_bytes(host: MemoryHost, store: MemoryStore) -> None:
    write(store, BLOB.content, DIGEST)
    received, sibling = host.received, host.repository("b")
    host.faults.append(RefusesRequests("POST mount"))

    assert not sibling.mount(BLOB.descriptor, "a").is_mounted
    assert sibling.mount(BLOB.descriptor, "a").is_mounted
    assert read(sibling, BLOB.descriptor) == BLOB.content
    assert host.received == received


def test_wrong_digest_ends_the_session(host: MemoryHost, store: MemoryStore) -> None:
    with pytest.raises(DigestMismatch):
        write(store, BLOB.content, Digest.from_bytes(b"another"))

    assert host.sessions == {}
    assert store.blobs == {}
