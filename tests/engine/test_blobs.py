"""Files become blobs and blobs become files, whatever registry there is."""

from __future__ import annotations

import itertools
import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from concil.config import RetryPolicy, TransferConfig
from concil.engine.engine import Engine
from concil.errors import (
    AccessDenied,
    Cancelled,
    DigestMismatch,
    InvalidReference,
    NotFound,
    StatusError,
    Unreachable,
    UsageError,
)
from concil.fs.resume_state import WriterState
from concil.oci.descriptor import Descriptor
from concil.oci.manifest import Digest
from concil.oci.media_types import OCTET_STREAM
from concil.progress.events import State
from concil.server import (
    Chunk,
    EmbeddedRegistry,
    ErrorResponse,
    RegistryBehavior,
    Request,
    Response,
)
from concil.transfer.journal import Journal
from tests.engine.engine_setup import CHUNK, WAIT, Registry, blob_path, engine_of, file_of
from tests.support.behaviors import FirstChunkOnly
from tests.support.images import get_blob, make_image, put_blob, write_layout
from tests.support.relay import Relay
from tests.support.request_log import RequestLog
from tests.transfer.transfer_setup import Sink

SIZES = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 5 * CHUNK + 7]


@pytest.mark.parametrize("size", SIZES)
def test_file_is_pushed_and_pulled_byte_for_byte(
    engine: Engine, registry: Registry, repository: str, tmp_path: Path, size: int
) -> None:
    content = file_of(tmp_path, size)

    pushed = engine.push_blob(content.path, f"{registry.url}/{repository}")
    pulled = engine.pull_blob(f"{registry.url}/{repository}@{content.digest}", tmp_path / "pulled")

    assert pushed == pulled == Descriptor(OCTET_STREAM, Digest.parse(content.digest), size)
    assert get_blob(registry.url, repository, content.digest) == content.bytes
    assert (tmp_path / "pulled").read_bytes() == content.bytes
    assert {path.name for path in tmp_path.iterdir()} <= {"content-1", "pulled", "embedded"}


def test_present_blob_is_not_sent(
    engine: Engine, registry: Registry, repository: str, tmp_path: Path
) -> None:
    content = file_of(tmp_path, 3 * CHUNK)
    log = RequestLog()
    with Relay(registry.host, observer=log) as relay:
        address = f"{relay.url}/{repository}"
        engine.push_blob(content.path, address, digest=Digest.parse(content.digest))
        log.clear()

        engine.push_blob(content.path, address, digest=Digest.parse(content.digest))

    assert [request.method for request in log.requests] == ["HEAD"]


def flip(path: Path, position: int = 0) -> None:
    """Damage a byte of a file, and set its time back."""
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(position)
        byte = file.read(1)[0]
        file.seek(position)
        file.write(bytes([byte ^ 255]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize(
    ("known", "damage"),
    list(itertools.product(["there", "pushed before"], ["a byte", "shorter", "longer"])),
)
def test_given_digest_is_compared_with_the_file_even_if_the_blob_is_present(
    engine: Engine, registry: Registry, tmp_path: Path, known: str, damage: str
) -> None:
    content = file_of(tmp_path, 3 * CHUNK, seed=len(known + damage))
    repository = "engine/given"
    address = f"{registry.url}/{repository}"
    if known == "there":
        put_blob(registry.url, repository, content.bytes)
    else:
        engine.push_blob(content.path, address)
    if damage == "a byte":
        flip(content.path, CHUNK)
    else:
        os.truncate(content.path, content.size + (1 if damage == "longer" else -1))

    with pytest.raises(DigestMismatch) as excinfo:
        engine.push_blob(content.path, address, digest=content.digest)

    assert "damaged" in excinfo.value.remedy


def test_a_digest_is_given_as_a_text_or_a_digest(
    engine: Engine, registry: Registry, repository: str, tmp_path: Path
) -> None:
    content = file_of(tmp_path, CHUNK)
    address = f"{registry.url}/{repository}"

    first = engine.push_blob(content.path, address, digest=content.digest)
    second = engine.push_blob(content.path, address, digest=Digest.parse(content.digest))

    assert first == second
    assert str(first.digest) == content.digest


def test_a_file_that_changed_and_kept_its_size_and_time_is_read_again(
    embedded: EmbeddedRegistry, config: TransferConfig, tmp_path: Path
) -> None:
    content = file_of(tmp_path, 3 * CHUNK)
    journal = Journal(tmp_path / "journal.sqlite")
    with engine_of(config, journal=journal) as engine:
        before = engine.push_blob(content.path, f"{embedded.url}/x")
        flip(content.path)

        after = engine.push_blob(content.path, f"{embedded.url}/x")

    journal.close()
    assert after.digest == Digest.from_bytes(content.bytes) != before.digest
    assert get_blob(embedded.url, "x", str(after.digest)) == content.bytes


@pytest.mark.parametrize("given", [True, False])
def test_file_that_changed_before_its_upload_resumes_is_not_committed(
    config: TransferConfig, tmp_path: Path, given: bool
) -> None:
    content = file_of(tmp_path, 4 * CHUNK)
    digest = content.digest if given else None
    behavior = FirstChunkOnly()
    impatient = replace(config, retry=RetryPolicy(max_attempts=1))
    journal = Journal(tmp_path / "journal.sqlite")
    with EmbeddedRegistry(tmp_path / "served", behavior=behavior) as registry:
        address = f"{registry.url}/x"
        with engine_of(impatient, journal=journal) as engine, pytest.raises(StatusError):
            engine.push_blob(content.path, address, digest=digest)
        assert journal.list_unfinished()
        behavior.is_mended = True
        flip(content.path)

        with engine_of(config, journal=journal) as engine:
            if given:
                with pytest.raises(DigestMismatch):
                    engine.push_blob(content.path, address, digest=digest)
            else:
                pushed = engine.push_blob(content.path, address)
                assert pushed.digest == Digest.from_bytes(content.bytes)
                assert get_blob(registry.url, "x", str(pushed.digest)) == content.bytes
            with pytest.raises(NotFound):
                engine.pull_blob(f"{address}@{content.digest}", tmp_path / "pulled")
    journal.close()


def test_pushed_file_is_sent_once(engine: Engine, registry: Registry, tmp_path: Path) -> None:
    content = file_of(tmp_path, 5 * CHUNK + 7)
    log = RequestLog()

    with Relay(registry.host, observer=log) as relay:
        engine.push_blob(content.path, f"{relay.url}/engine/once")

    assert log.body_bytes() == content.size
    assert [request.body_size for request in log.matching("PATCH")] == [CHUNK] * 5 + [7]


def test_pulled_blob_is_received_once(engine: Engine, registry: Registry, tmp_path: Path) -> None:
    content = file_of(tmp_path, 5 * CHUNK + 7)
    put_blob(registry.url, "engine/pulled", content.bytes)

    with Relay(registry.host) as relay:
        engine.pull_blob(f"{relay.url}/engine/pulled@{content.digest}", tmp_path / "file")
        received = relay.bytes_down

    assert (tmp_path / "file").read_bytes() == content.bytes
    assert content.size <= received < content.size + 20_000  # heads


def test_blob_of_a_layout_is_pulled_too(engine: Engine, tmp_path: Path) -> None:
    image = make_image(1, (70_000,))
    write_layout(tmp_path / "layout", {"v1": image})
    digest, blob = max(image.blobs.items(), key=lambda item: len(item[1]))

    engine.pull_blob(f"oci:{tmp_path}/layout@{digest}", tmp_path / "file")

    assert (tmp_path / "file").read_bytes() == blob


def test_wrong_digest_is_never_committed(
    engine: Engine, registry: Registry, repository: str, tmp_path: Path
) -> None:
    content = file_of(tmp_path, 3 * CHUNK)
    wrong = Digest.from_bytes(b"something else")
    put_blob(registry.url, repository, b"so that the repository is there")

    with pytest.raises(DigestMismatch):
        engine.push_blob(content.path, f"{registry.url}/{repository}", digest=wrong)

    with pytest.raises(NotFound):
        engine.pull_blob(f"{registry.url}/{repository}@{wrong}", tmp_path / "x")


def test_damaged_blob_never_becomes_a_file(
    engine: Engine, embedded: EmbeddedRegistry, tmp_path: Path
) -> None:
    content = file_of(tmp_path, 3 * CHUNK)
    put_blob(embedded.url, "damaged", content.bytes)
    with blob_path(tmp_path / "embedded", content.digest).open("r+b") as file:
        file.seek(2 * CHUNK)
        file.write(b"damage")

    with pytest.raises(DigestMismatch):
        engine.pull_blob(f"{embedded.url}/damaged@{content.digest}", tmp_path / "file")

    assert {path.name for path in tmp_path.iterdir()} == {"content-1", "embedded"}


def test_missing_blob_is_an_error(
    engine: Engine, registry: Registry, repository: str, tmp_path: Path
) -> None:
    missing = Digest.from_bytes(b"nowhere")
    put_blob(registry.url, repository, b"something")

    with pytest.raises(NotFound, match=str(missing)):
        engine.pull_blob(f"{registry.url}/{repository}@{missing}", tmp_path / "file")

    assert not (tmp_path / "file").exists()


def test_unreachable_host_is_an_error(engine: Engine, tmp_path: Path) -> None:
    content = file_of(tmp_path, 10)
    with Relay("127.0.0.1:9") as relay:
        relay.stop_accepting()

        with pytest.raises(Unreachable):
            engine.push_blob(content.path, f"{relay.url}/x")


@pytest.mark.parametrize(
    ("path", "repository", "error"),
    [
        ("missing", "http://127.0.0.1:9/x", UsageError),
        (".", "http://127.0.0.1:9/x", UsageError),
        ("file", "oci:somewhere", UsageError),
        ("file", "http://127.0.0.1:9/UPPER", InvalidReference),
    ],
)
def test_push_that_cannot_be_meant_is_refused(
    engine: Engine, tmp_path: Path, path: str, repository: str, error: type[Exception]
) -> None:
    (tmp_path / "file").write_bytes(b"x")

    with pytest.raises(error):
        engine.push_blob(tmp_path / path, repository)


DIGEST = Digest.from_bytes(b"x")


def test_pull_that_cannot_be_meant_is_refused(
    engine: Engine, embedded: EmbeddedRegistry, tmp_path: Path
) -> None:
    put_blob(embedded.url, "x", b"x")
    address = f"{embedded.url}/x@{DIGEST}"

    with pytest.raises(UsageError, match="no digest"):
        engine.pull_blob(f"{embedded.url}/x:v1", tmp_path / "file")
    with pytest.raises(UsageError, match="is a directory"):
        engine.pull_blob(address, tmp_path)
    with pytest.raises(UsageError, match="not a directory"):
        engine.pull_blob(address, tmp_path / "missing" / "file")

    assert not (tmp_path / "file").exists()


def test_progress_says_positions_up_to_the_end(
    config: TransferConfig, registry: Registry, repository: str, tmp_path: Path
) -> None:
    content = file_of(tmp_path, 3 * CHUNK)
    sink = Sink()

    with engine_of(config, progress=sink) as engine:
        engine.push_blob(content.path, f"{registry.url}/{repository}")
        engine.push_blob(
            content.path, f"{registry.url}/{repository}", digest=Digest.parse(content.digest)
        )
        engine.pull_blob(f"{registry.url}/{repository}@{content.digest}", tmp_path / "file")

    states = [event.state for event in sink.events if event.state.is_final]
    assert states == [State.DONE, State.PRESENT, State.DONE]
    assert all(event.total == content.size for event in sink.events)
    ends = [event.position for event in sink.events if event.state.is_final]
    assert ends == [content.size] * 3


def test_failed_pull_sends_a_failed_event(
    config: TransferConfig, embedded: EmbeddedRegistry, tmp_path: Path
) -> None:
    content = file_of(tmp_path, CHUNK)
    put_blob(embedded.url, "x", content.bytes)
    blob_path(tmp_path / "embedded", content.digest).write_bytes(bytes(CHUNK))
    sink = Sink()

    with engine_of(config, progress=sink) as engine, pytest.raises(DigestMismatch):
        engine.pull_blob(f"{embedded.url}/x@{content.digest}", tmp_path / "file")

    assert sink.events[-1].state is State.FAILED
    assert content.digest in sink.events[-1].detail


def test_cancelled_calls_end_soon_and_leave_no_thread(
    embedded: EmbeddedRegistry, tmp_path: Path
) -> None:
    content = file_of(tmp_path, 20 * CHUNK)
    put_blob(embedded.url, "x", content.bytes)
    before = threading.active_count()

    with Relay(embedded.host, rate=4 * CHUNK) as relay, engine_of() as engine:
        timer = threading.Timer(0.2, engine.cancel)
        timer.start()
        with pytest.raises(Cancelled):
            engine.pull_blob(f"{relay.url}/x@{content.digest}", tmp_path / "file")
        timer.join(WAIT)
        with pytest.raises(Cancelled):
            engine.push_blob(content.path, f"{relay.url}/y")

    assert not (tmp_path / "file").exists()
    assert threading.active_count() <= before + 1  # a connection that the server is closing


def test_block_that_raises_ends_what_runs(embedded: EmbeddedRegistry, tmp_path: Path) -> None:
    content = file_of(tmp_path, CHUNK)
    put_blob(embedded.url, "x", content.bytes)

    with (
        pytest.raises(ZeroDivisionError),
        Engine(journal=Journal(None)) as engine,
    ):
        raise ZeroDivisionError

    with pytest.raises(Cancelled):
        engine.pull_blob(f"{embedded.url}/x@{content.digest}", tmp_path / "file")
    assert {path.name for path in tmp_path.iterdir()} == {"content-1", "embedded"}


def test_pull_replaces_an_older_file_only_when_it_is_right(
    engine: Engine, embedded: EmbeddedRegistry, tmp_path: Path
) -> None:
    content = file_of(tmp_path, CHUNK)
    put_blob(embedded.url, "x", content.bytes)
    (tmp_path / "file").write_bytes(b"older")

    engine.pull_blob(f"{embedded.url}/x@{content.digest}", tmp_path / "file")

    assert (tmp_path / "file").read_bytes() == content.bytes


def test_pull_puts_no_file_in_the_place_of_a_pipe(
    engine: Engine, embedded: EmbeddedRegistry, tmp_path: Path
) -> None:
    put_blob(embedded.url, "x", b"x")
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(UsageError, match="not a regular file"):
        engine.pull_blob(f"{embedded.url}/x@{DIGEST}", tmp_path / "pipe")

    assert not (tmp_path / "pipe").is_file()


def test_journal_of_the_caller_stays_open(embedded: EmbeddedRegistry, tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite")
    content = file_of(tmp_path, 3 * CHUNK)

    for _ in range(2):
        with engine_of(journal=journal) as engine:
            engine.push_blob(content.path, f"{embedded.url}/x")

    identity = os.path.realpath(content.path)
    journal.save_digest(identity, "identity", DIGEST)
    assert journal.find_digest(identity, "identity") == DIGEST
    journal.close()


class TakesNoChunks(RegistryBehavior):
    """A registry that refuses every PATCH, as Google's do."""

    def check_chunk(self, chunk: Chunk) -> None:
        if chunk.method == "PATCH":
            raise ErrorResponse("UNSUPPORTED", "no chunks here")


def test_file_is_hashed_after_all_where_chunks_are_refused(
    config: TransferConfig, tmp_path: Path
) -> None:
    content = file_of(tmp_path, 3 * CHUNK)

    with (
        EmbeddedRegistry(tmp_path / "served", behavior=TakesNoChunks()) as registry,
        engine_of(config) as engine,
    ):
        pushed = engine.push_blob(content.path, f"{registry.url}/x")

        assert str(pushed.digest) == content.digest
        assert get_blob(registry.url, "x", content.digest) == content.bytes


class BeginsNothing(RegistryBehavior):
    """A registry that opens no upload."""

    def before_request(self, request: Request) -> Response | None:
        if request.method == "POST":
            raise ErrorResponse("DENIED", "read only", status=403)
        return None


def test_push_that_is_refused_leaves_what_the_journal_knows_to_others(
    config: TransferConfig, tmp_path: Path
) -> None:
    content = file_of(tmp_path, 2 * CHUNK)
    journal = Journal(tmp_path / "journal.sqlite")

    with (
        EmbeddedRegistry(tmp_path / "served", behavior=BeginsNothing()) as registry,
        engine_of(config, journal=journal) as engine,
    ):
        earlier = journal.claim_transfer(f"{registry.url}/x", content.digest, content.size)
        earlier.save(WriterState(f"{registry.url}/v2/x/blobs/uploads/gone", CHUNK, CHUNK))
        earlier.release()
        with pytest.raises(AccessDenied):
            engine.push_blob(content.path, f"{registry.url}/x", digest=Digest.parse(content.digest))

    [left] = journal.list_unfinished()
    assert not left.is_running
    journal.close()
