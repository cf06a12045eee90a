"""Streams of unknown length are pushed in one pass, and leave nothing behind when they break."""

from __future__ import annotations

import hashlib
import io
import itertools
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import pytest

from concil import ArtifactFile, Engine
from concil.errors import Cancelled, ConcilError, DigestMismatch, NotFound, SessionLost, UsageError
from concil.oci.digest import Digest
from concil.registry.quirks import Quirks, Strategy
from concil.transfer.blob.stream import StreamReader
from concil.transfer.context import TransferContext
from tests.engine.engine_setup import CHUNK, QUICK, Registry, engine_of
from tests.engine.relayed_registries import MIDDLE, SIZE, RelayedRegistry
from tests.support.docker_registry import DockerRegistry
from tests.support.faults import Fault
from tests.support.images import get_blob, make_blob
from tests.support.relay import Relay
from tests.support.request_log import RequestLog


def sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@contextmanager
def pipe_of(content: bytes) -> Iterator[BinaryIO]:
    """A real pipe that another thread writes to."""
    reader, writer = os.pipe()

    def write() -> None:
        with os.fdopen(writer, "wb", buffering=0) as file:
            view = memoryview(content)
            while view:
                view = view[file.write(view) :]

    thread = threading.Thread(target=write)
    thread.start()
    with os.fdopen(reader, "rb", buffering=0) as file:
        yield file
    thread.join()


class Broken(io.RawIOBase):
    """A stream that fails after some bytes."""

    def __init__(self, content: bytes, error: Exception) -> None:
        super().__init__()
        self._content = io.BytesIO(content)
        self._error = error

    def read(self, size: int = -1, /) -> bytes:
        piece = self._content.read(size)
        if not piece:
            raise self._error
        return piece


@pytest.fixture
def session_count(registry: Registry, repository: str, tmp_path: Path) -> Callable[[], int]:
    """Return what counts the upload sessions that the registry has on its disk."""

    def count() -> int:
        if isinstance(registry, DockerRegistry):
            # Distribution 2.8 leaves an empty directory of a deleted session.
            return len(list(registry.storage.rglob(f"{repository}/_uploads/*/data")))
        return len(list((tmp_path / "embedded" / ".concil" / "uploads").iterdir()))

    return count


@pytest.mark.parametrize("size", [1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, SIZE])
def test_pipe_becomes_a_blob(
    engine: Engine, registry: Registry, session_count: Callable[[], int], repository: str, size: int
) -> None:
    content = make_blob(size, size)
    with pipe_of(content) as pipe:
        pushed = engine.push_blob(pipe, f"{registry.url}/{repository}")

    assert (str(pushed.digest), pushed.size) == (sha256(content), size)
    assert get_blob(registry.url, repository, sha256(content)) == content
    assert session_count() == 0


def test_pipe_is_sent_once_by_chunks(
    engine: Engine, relayed_registry: RelayedRegistry, repository: str
) -> None:
    content = make_blob(1, SIZE)
    with pipe_of(content) as pipe:
        engine.push_blob(pipe, f"{relayed_registry.relay.url}/{repository}")

    methods = [request.method for request in relayed_registry.log.requests]
    assert methods == ["POST", *["PATCH"] * 9, "PUT"]
    assert relayed_registry.sent() == SIZE


def test_buffered_file_in_memory_and_on_disk_become_blobs(
    engine: Engine, registry: Registry, repository: str, tmp_path: Path
) -> None:
    content = make_blob(2, 2 * CHUNK + 5)
    (tmp_path / "file").write_bytes(b"skipped" + content)
    address = f"{registry.url}/{repository}"
    with (tmp_path / "file").open("rb") as file:
        file.seek(7)
        pushed = engine.push_blob(file, address)

    assert str(pushed.digest) == sha256(content)
    assert str(engine.push_blob(io.BytesIO(content[1:]), address).digest) == sha256(content[1:])
    assert str(engine.push_blob(content[2:], address).digest) == sha256(content[2:])
    for start in range(3):
        assert get_blob(registry.url, repository, sha256(content[start:])) == content[start:]


@pytest.mark.parametrize(
    "size_and_error",
    list(itertools.product([0, 100, CHUNK, MIDDLE], [RuntimeError("mine"), OSError(5, "broken")])),
)
def test_stream_that_breaks_is_an_error_and_leaves_nothing(
    engine: Engine,
    registry: Registry,
    session_count: Callable[[], int],
    size_and_error: tuple[int, Exception],
    repository: str,
) -> None:
    size, error = size_and_error
    stream = Broken(make_blob(3, size), error)
    expected = ConcilError if isinstance(error, OSError) else RuntimeError

    with pytest.raises(expected, match=r"mine|broken"):
        engine.push_blob(stream, f"{registry.url}/{repository}")

    assert session_count() == 0


def test_stream_of_an_artifact_that_breaks_leaves_no_tag(
    engine: Engine,
    registry: Registry,
    session_count: Callable[[], int],
    repository: str,
    tmp_path: Path,
) -> None:
    address = f"{registry.url}/{repository}:1"
    files = [
        ArtifactFile(b"whole", "whole"),
        ArtifactFile(Broken(make_blob(3, MIDDLE), RuntimeError("mine")), "broken"),
    ]

    with pytest.raises(RuntimeError, match="mine"):
        engine.push_files(files, address)

    with pytest.raises(NotFound):
        engine.pull_files(address, tmp_path / "pulled")
    assert session_count() == 0


def test_empty_pipe_is_refused(engine: Engine, registry: Registry, repository: str) -> None:
    with pipe_of(b"") as pipe, pytest.raises(UsageError, match="empty"):
        engine.push_blob(pipe, f"{registry.url}/{repository}")


def test_text_stream_is_refused(engine: Engine, registry: Registry, repository: str) -> None:
    with pytest.raises(TypeError, match="binary"):
        engine.push_blob(io.StringIO("text"), f"{registry.url}/{repository}")  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [10, MIDDLE])
def test_stream_is_compared_with_the_digest_that_is_expected(
    engine: Engine, registry: Registry, session_count: Callable[[], int], repository: str, size: int
) -> None:
    content = make_blob(4, size)
    address = f"{registry.url}/{repository}"

    with pytest.raises(DigestMismatch):
        engine.push_blob(io.BytesIO(content), address, digest=Digest.from_bytes(b"another"))

    assert session_count() == 0
    engine.push_blob(io.BytesIO(content), address, digest=sha256(content))
    assert get_blob(registry.url, repository, sha256(content)) == content


@pytest.mark.parametrize("lost", ["a chunk", "an answer"])
def test_pipe_survives_a_lost_connection(
    engine: Engine, relayed_registry: RelayedRegistry, repository: str, lost: str
) -> None:
    content = make_blob(5, SIZE)
    up = Fault(action="rst", after=MIDDLE, direction="up")
    where = up if lost == "a chunk" else Fault(action="rst", after=900, direction="down")
    relayed_registry.relay.add_fault(where)
    with pipe_of(content) as pipe:
        engine.push_blob(pipe, f"{relayed_registry.relay.url}/{repository}")

    assert get_blob(relayed_registry.registry.url, repository, sha256(content)) == content


def test_pipe_whose_session_is_lost_is_an_error(
    relayed_docker_registry: RelayedRegistry, repository: str
) -> None:
    # This registry loses a session with a broken chunk, and the bytes cannot be read again.
    relayed_docker_registry.relay.add_fault(Fault(action="rst", after=MIDDLE, direction="up"))
    content = make_blob(6, SIZE)

    with engine_of() as engine, pytest.raises(SessionLost, match="cannot be read again"):
        engine.push_blob(io.BytesIO(content), f"{relayed_docker_registry.relay.url}/{repository}")


def test_registry_that_needs_the_digest_first_gets_a_file(
    registry: Registry, repository: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "concil.registry.quirks.declared_quirks", lambda _host: Quirks(Strategy.MONOLITHIC)
    )
    content = make_blob(7, SIZE)
    log = RequestLog()
    with (
        Relay(registry.host, observer=log) as relay,
        engine_of() as engine,
        pipe_of(content) as pipe,
    ):
        engine.push_blob(pipe, f"{relay.url}/{repository}")

    assert "PATCH" not in {request.method for request in log.requests}
    assert get_blob(registry.url, repository, sha256(content)) == content


def test_wait_for_a_silent_pipe_can_be_cancelled(registry: Registry, repository: str) -> None:
    stop = threading.Event()
    reader, writer = os.pipe()
    try:
        with engine_of() as engine, os.fdopen(reader, "rb", buffering=0) as pipe:
            stopper = threading.Timer(0.3, stop.set)
            stopper.start()
            with pytest.raises(Cancelled):
                engine.push_blob(pipe, f"{registry.url}/{repository}", cancel=stop)
            stopper.join()
    finally:
        os.close(writer)


@pytest.mark.parametrize("whole", [False, True])
def test_cancelled_stream_leaves_no_session(
    registry: Registry, session_count: Callable[[], int], repository: str, *, whole: bool
) -> None:
    stop = threading.Event()
    with engine_of() as engine:

        class Cancelling(io.BytesIO):
            """A stream during whose fourth chunk its call, or the whole engine, is cancelled."""

            def read(self, size: int | None = -1, /) -> bytes:
                if self.tell() > MIDDLE:
                    engine.cancel() if whole else stop.set()
                return super().read(size)

        with pytest.raises(Cancelled):
            engine.push_blob(
                Cancelling(make_blob(8, SIZE)), f"{registry.url}/{repository}", cancel=stop
            )

    assert session_count() == 0


def test_no_more_than_a_chunk_is_read_ahead() -> None:
    stream = io.BytesIO(bytes(100))
    reader = StreamReader(stream, TransferContext(replace(QUICK)), "stream")

    assert [len(reader.read_block(30)) for _ in range(5)] == [30, 30, 30, 10, 0]
    stream.seek(0)
    reader.read_block(30)
    assert stream.tell() == 30
