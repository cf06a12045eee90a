"""File objects, pairs and functions in place of paths; and what their errors do."""

from __future__ import annotations

import io
import os
import tarfile
import threading
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from concil import Engine, Event
from concil.errors import Cancelled, ConcilError, DigestMismatch, UsageError
from concil.progress.events import State
from concil.transfer.journal import Journal
from tests.engine.engine_setup import CHUNK, QUICK, Registry, engine_of
from tests.engine.relayed_registries import MIDDLE, SIZE, RelayedRegistry
from tests.support.faults import Fault
from tests.support.images import digest_of, get_blob, make_blob, put_blob

CONTENT = make_blob(8, SIZE)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "files" / "file"  # beside the storage of the registry
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def address(registry: Registry, repository: str) -> str:
    return f"{registry.url}/{repository}"


class Writer:
    """Keeps what is written; the n-th write may fail, or accept little or nothing."""

    def __init__(self, answers: dict[int, int | Exception | None] | None = None) -> None:
        self.content = bytearray()
        self._answers = answers or {}
        self._count = 0

    def write(self, data: memoryview, /) -> int | None:
        answer = self._answers.get(self._count, len(data))
        self._count += 1
        if isinstance(answer, Exception):
            raise answer
        self.content += data[: answer or 0]
        return answer


class RawWriter(io.RawIOBase):
    """A stream without a buffer, which would block now and then."""

    def __init__(self) -> None:
        super().__init__()
        self.content = bytearray()
        self._count = 0

    def writable(self) -> bool:
        return True

    def write(self, data: memoryview, /) -> int | None:  # type: ignore[override]
        self._count += 1
        if self._count % 3 == 0:
            return None
        self.content += data[:50_000]
        return min(len(data), 50_000)


class TestPushBlob:
    def test_interrupted_upload_of_an_open_file_is_resumed(
        self, relayed_registry: RelayedRegistry, path: Path, tmp_path: Path
    ) -> None:
        """As that of a path, because nothing was read of the file."""
        address = f"{relayed_registry.relay.url}/app"
        relayed_registry.relay.add_fault(Fault(action="rst", after=MIDDLE, direction="up"))
        journal = Journal(tmp_path / "journal.sqlite")
        once = replace(QUICK, retry=replace(QUICK.retry, max_attempts=1))
        with path.open("rb") as file:
            with engine_of(once, journal=journal) as engine, pytest.raises(ConcilError):
                engine.push_blob(file, address)
            file.seek(0)
            with engine_of(journal=journal) as engine:
                engine.push_blob(file, address)
            assert file.tell() == 0  # the file was read by its path
        journal.close()

        assert get_blob(relayed_registry.registry.url, "app", digest_of(CONTENT)) == CONTENT
        assert relayed_registry.sent() <= SIZE + CHUNK

    def test_file_without_a_name_and_part_of_a_file(
        self, engine: Engine, address: str, path: Path
    ) -> None:
        with path.open("rb") as file:
            path.unlink()
            assert str(engine.push_blob(file, address).digest) == digest_of(CONTENT)
        path.write_bytes(CONTENT)
        with path.open("rb", buffering=0) as file:
            file.seek(5)
            assert str(engine.push_blob(file, address).digest) == digest_of(CONTENT[5:])
            assert file.read() == b""

    def test_stream_that_ends_too_early_is_found_by_the_digest(
        self, engine: Engine, address: str
    ) -> None:
        with pytest.raises(DigestMismatch):
            engine.push_blob(io.BytesIO(CONTENT[:-1]), address, digest=digest_of(CONTENT))

    def test_very_exception_of_a_callback_is_raised(
        self, registry: Registry, repository: str
    ) -> None:
        raised = LookupError("mine")

        def broken(event: Event) -> None:
            if event.state is State.MOVING:
                raise raised

        address = f"{registry.url}/{repository}"
        with engine_of(progress=broken) as engine:
            for content in (CONTENT, io.BytesIO(CONTENT)):
                with pytest.raises(LookupError) as excinfo:
                    engine.push_blob(content, address)
                assert excinfo.value is raised


class TestPullBlob:
    def test_writer_that_raises_is_not_hidden(
        self, engine: Engine, registry: Registry, repository: str
    ) -> None:
        put_blob(registry.url, repository, CONTENT)
        error = BrokenPipeError(32, "mine")

        with pytest.raises(BrokenPipeError) as excinfo:
            engine.pull_blob(
                f"{registry.url}/{repository}@{digest_of(CONTENT)}", Writer({2: error})
            )

        assert excinfo.value is error

    def test_writers_that_accept_little(
        self, engine: Engine, registry: Registry, repository: str
    ) -> None:
        put_blob(registry.url, repository, CONTENT)
        address = f"{registry.url}/{repository}@{digest_of(CONTENT)}"
        short, raw = Writer({0: 7, 1: 0, 2: 0, 3: 100}), RawWriter()

        engine.pull_blob(address, short)
        engine.pull_blob(address, raw)

        assert short.content == CONTENT
        assert raw.content == CONTENT

    def test_waiting_for_a_writer_is_cancelled(
        self, engine: Engine, registry: Registry, repository: str
    ) -> None:
        put_blob(registry.url, repository, CONTENT)
        cancel = threading.Event()

        class Full(Writer):
            def write(self, data: memoryview, /) -> int | None:
                cancel.set()
                return 0

        with pytest.raises(Cancelled):
            engine.pull_blob(
                f"{registry.url}/{repository}@{digest_of(CONTENT)}", Full(), cancel=cancel
            )

    def test_pipe_whose_reader_is_gone(
        self, engine: Engine, registry: Registry, repository: str
    ) -> None:
        put_blob(registry.url, repository, CONTENT)
        reader, writer = os.pipe()
        os.close(reader)
        with os.fdopen(writer, "wb", buffering=0) as pipe, pytest.raises(BrokenPipeError):
            engine.pull_blob(f"{registry.url}/{repository}@{digest_of(CONTENT)}", pipe)

    def test_very_exception_of_a_callback_is_raised(
        self, registry: Registry, repository: str, tmp_path: Path
    ) -> None:
        put_blob(registry.url, repository, CONTENT)
        raised = LookupError("mine")

        def broken(event: Event) -> None:
            if event.state is State.MOVING:
                raise raised

        address = f"{registry.url}/{repository}@{digest_of(CONTENT)}"
        with engine_of(progress=broken) as engine:
            for target in (Writer(), tmp_path / "file"):
                with pytest.raises(LookupError) as excinfo:
                    engine.pull_blob(address, target)
                assert excinfo.value is raised
        assert not (tmp_path / "file").exists()


class TestFiles:
    def test_pairs_come_back_in_memory(self, engine: Engine, address: str, path: Path) -> None:
        with path.open("rb") as file:
            engine.push_files(
                [("bytes", b"some"), ("open/file", file), ("path", path)], f"{address}:1"
            )
        files: dict[str, io.BytesIO] = {}

        pulled = engine.pull_files(
            f"{address}:1", lambda title: files.setdefault(title, io.BytesIO())
        )

        contents = {title: stream.getvalue() for title, stream in files.items()}
        assert contents == {"bytes": b"some", "open/file": CONTENT, "path": CONTENT}
        assert [(file.title, str(file.path)) for file in pulled.files] == [
            (title, title) for title in contents
        ]

    def test_one_pair_and_one_of_several_files(self, engine: Engine, address: str) -> None:
        engine.push_files(("a", b"single"), f"{address}:1")
        engine.push_files([("a", b"1"), ("b", b"2"), ("c", b"3")], f"{address}:2")
        single, b = Writer(), Writer()

        engine.pull_files(f"{address}:1", lambda _title: single)
        pulled = engine.pull_files(f"{address}:2", {"b": b}.get)

        assert single.content == b"single"
        assert b.content == b"2"
        assert [file.title for file in pulled.files] == ["b"]

    def test_two_paths_are_not_a_pair(self, engine: Engine, address: str, path: Path) -> None:
        pushed = engine.push_files((str(path), str(path.parent)), f"{address}:1")

        assert [file.annotations["org.opencontainers.image.title"] for file in pushed.files] == [
            "file",
            path.parent.name,
        ]

    @pytest.mark.parametrize("files", [[("a", b"", 1)], [(b"a", b"")], [b"a"], [("a", 1)]])
    def test_other_things_are_refused(
        self, engine: Engine, address: str, files: list[object]
    ) -> None:
        with pytest.raises(TypeError):
            engine.push_files(files, f"{address}:1")  # type: ignore[arg-type]

    def test_titles_of_pairs_are_checked(self, engine: Engine, address: str) -> None:
        with pytest.raises(UsageError):
            engine.push_files([("../a", b"")], f"{address}:1")

    @pytest.mark.parametrize("call", ["opener", "writer"])
    def test_errors_of_functions_and_writers_are_raised(
        self, engine: Engine, address: str, call: str
    ) -> None:
        engine.push_files([("a", b"1"), ("b", b"2")], f"{address}:1")
        error = LookupError("mine")

        def opener(title: str) -> Writer:
            if title == "b" and call == "opener":
                raise error
            return Writer({0: error} if title == "b" else None)

        with pytest.raises(LookupError) as excinfo:
            engine.pull_files(f"{address}:1", opener)
        assert excinfo.value is error

    def test_very_exception_of_a_callback_is_raised(self, address: str, tmp_path: Path) -> None:
        with engine_of() as engine:
            engine.push_files([("a", CONTENT)], f"{address}:1")
        raised = LookupError("mine")

        def broken(event: Event) -> None:
            if event.kind == "blob" and event.state is State.MOVING:
                raise raised

        calls: list[Callable[[Engine], object]] = [
            lambda engine: engine.push_files([("a", CONTENT[1:])], f"{address}:2"),
            lambda engine: engine.pull_files(f"{address}:1", tmp_path / "out"),
            lambda engine: engine.pull_files(f"{address}:1", lambda _title: Writer()),
        ]
        for call in calls:
            with engine_of(progress=broken) as engine:
                with pytest.raises(LookupError) as excinfo:
                    call(engine)
                assert excinfo.value is raised
        assert not (tmp_path / "out" / "a").exists()


class TestOpenBlob:
    """`open_blob` returns what `io` calls a buffered reader."""

    def test_it_is_a_binary_file(self, engine: Engine, registry: Registry, repository: str) -> None:
        put_blob(registry.url, repository, CONTENT)
        buffer = bytearray(1000)
        with engine.open_blob(f"{registry.url}/{repository}@{digest_of(CONTENT)}") as file:
            assert isinstance(file, io.BufferedIOBase)
            assert (file.readable(), file.seekable(), file.writable()) == (True, True, False)
            assert file.readinto(buffer) == 1000
            assert buffer == CONTENT[:1000]
            assert file.peek(1)[:1] == CONTENT[1000:1001]
            assert len(file.read1(10)) == 10
            assert file.seek(-3, os.SEEK_END) == SIZE - 3
            assert file.readinto(buffer) == 3
            assert file.read(1) == b""
            assert file.seek(SIZE + 10) == SIZE + 10
            assert file.read() == b""
            assert file.tell() == SIZE + 10
            with pytest.raises(OSError, match="fileno"):
                file.fileno()
            with pytest.raises(io.UnsupportedOperation):
                file.write(b"")
        file.close()
        with pytest.raises(ValueError, match="closed"):
            file.read()

    def test_zip_and_tar_archives(
        self, engine: Engine, registry: Registry, repository: str
    ) -> None:
        members = {f"dir/{number}": make_blob(number, 200_000 + number) for number in range(8)}
        packed_zip, packed_tar, packed_gzip = io.BytesIO(), io.BytesIO(), io.BytesIO()
        with zipfile.ZipFile(packed_zip, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        for file, mode in ((packed_tar, "w"), (packed_gzip, "w:gz")):
            with tarfile.open(fileobj=file, mode=mode) as tar:  # type: ignore[call-overload]
                for name, content in members.items():
                    member = tarfile.TarInfo(name)
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
        address = f"{registry.url}/{repository}"
        digests = [
            engine.push_blob(file.getvalue(), address).digest
            for file in (packed_zip, packed_tar, packed_gzip)
        ]

        with engine.open_blob(f"{address}@{digests[0]}") as blob, zipfile.ZipFile(blob) as archive:
            assert archive.testzip() is None
            assert archive.read("dir/3") == members["dir/3"]
            blob.verify()
        for digest in digests[1:]:
            with engine.open_blob(f"{address}@{digest}") as blob, tarfile.open(fileobj=blob) as tar:
                last = tar.extractfile("dir/7")
                first = tar.extractfile("dir/0")
                assert last is not None
                assert first is not None
                assert last.read() == members["dir/7"]
                assert first.read() == members["dir/0"]
                blob.verify()
                assert blob.verified

    def test_a_file_that_is_pushed_again(
        self, engine: Engine, registry: Registry, repository: str
    ) -> None:
        put_blob(registry.url, repository, CONTENT)
        with engine.open_blob(f"{registry.url}/{repository}@{digest_of(CONTENT)}") as file:
            pushed = engine.push_blob(file, f"{registry.url}/{repository}-copy")

        assert str(pushed.digest) == digest_of(CONTENT)
        assert get_blob(registry.url, f"{repository}-copy", digest_of(CONTENT)) == CONTENT
