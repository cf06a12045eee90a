"""Local files as a place that content is read from."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from concil.config import MIB
from concil.errors import Cancelled, FileChanged, StoreError, UsageError
from concil.fs.local_file import FileBlobReader, LocalFile, disk_error
from concil.oci.manifest import Digest
from tests.support.images import make_blob

CONTENT = make_blob(1, 2 * MIB + 7)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a file of two blocks and a bit."""
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    return path


def drain(blob: FileBlobReader) -> bytes:
    """Read to the end and close."""
    content, buffer = bytearray(), memoryview(bytearray(100_000))
    with blob:
        while count := blob.readinto(buffer):
            content += buffer[:count]
    return bytes(content)


@pytest.mark.parametrize(
    ("start", "stop"),
    [(0, None), (1, None), (MIB, MIB + 1), (5, 5), (len(CONTENT), None), (0, len(CONTENT))],
)
def test_range_of_a_file_has_just_its_bytes(path: Path, start: int, stop: int | None) -> None:
    blob = LocalFile(path).open(start, stop)

    assert blob.start == start
    assert drain(blob) == CONTENT[start:stop]


@pytest.mark.parametrize(("start", "stop"), [(-1, None), (5, 4), (0, len(CONTENT) + 1)])
def test_range_outside_the_file_is_refused(path: Path, start: int, stop: int | None) -> None:
    with pytest.raises(UsageError):
        LocalFile(path).open(start, stop)


def test_empty_file_has_no_bytes_and_a_digest(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    file = LocalFile(tmp_path / "empty")

    assert file.size == 0
    assert drain(file.open()) == b""
    assert file.compute_digest() == Digest.from_bytes(b"")


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_digest_is_that_of_the_content(path: Path, algorithm: str) -> None:
    assert LocalFile(path).compute_digest(algorithm) == Digest.from_bytes(CONTENT, algorithm)


def test_digest_reports_its_position(path: Path) -> None:
    positions: list[int] = []

    LocalFile(path).compute_digest(progress=positions.append)

    assert positions == [MIB, 2 * MIB, len(CONTENT)]


def test_digest_stops_when_asked_to(path: Path) -> None:
    cancel, positions = threading.Event(), list[int]()

    def stop_at_once(position: int) -> None:
        positions.append(position)
        cancel.set()

    with pytest.raises(Cancelled):
        LocalFile(path).compute_digest(cancel=cancel, progress=stop_at_once)

    assert positions == [MIB]


def test_identity_names_the_file_behind_a_link(path: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(path)

    assert LocalFile(tmp_path / "link").identity == LocalFile(path).identity
    assert LocalFile(path).identity.path == str(path.resolve())
    assert LocalFile(path).identity.size == LocalFile(path).size == len(CONTENT)


def test_missing_file_is_an_error(tmp_path: Path) -> None:
    for name in ("absent", "absent/below", "nul\0"):
        with pytest.raises(UsageError) as excinfo:
            LocalFile(tmp_path / name)
        assert excinfo.value.remedy


def test_path_through_a_file_is_an_error(path: Path) -> None:
    with pytest.raises(UsageError):
        LocalFile(path / "below")


def test_directory_and_pipe_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(UsageError, match="is a directory"):
        LocalFile(tmp_path)
    with pytest.raises(UsageError, match="not a regular file"):
        LocalFile(tmp_path / "pipe")


def test_file_that_was_written_to_is_noticed(path: Path) -> None:
    file = LocalFile(path)
    file.check_unchanged()
    with path.open("ab") as more:
        more.write(b"more")

    with pytest.raises(FileChanged, match=f"{len(CONTENT) + 4} bytes"):
        file.check_unchanged()
    with pytest.raises(FileChanged):
        file.open()


def test_file_that_was_replaced_by_one_of_its_size_is_noticed(path: Path, tmp_path: Path) -> None:
    file = LocalFile(path)
    (tmp_path / "other").write_bytes(bytes(len(CONTENT)))
    (tmp_path / "other").replace(path)

    with pytest.raises(FileChanged, match="replaced"):
        file.check_unchanged()


def test_file_that_was_removed_is_noticed(path: Path) -> None:
    file = LocalFile(path)
    path.unlink()

    with pytest.raises(FileChanged):
        file.check_unchanged()


def test_file_that_changes_while_it_is_hashed_has_no_digest(path: Path) -> None:
    def overwrite(position: int) -> None:
        path.write_bytes(bytes(len(CONTENT)))

    with pytest.raises(FileChanged):
        LocalFile(path).compute_digest(progress=overwrite)


def test_file_that_gets_shorter_is_no_shorter_content(path: Path) -> None:
    with LocalFile(path).open() as blob:
        os.truncate(path, 10)
        assert blob.readinto(memoryview(bytearray(100))) == 10

        with pytest.raises(FileChanged, match="ended at byte 10"):
            blob.readinto(memoryview(bytearray(100)))


def test_closed_file_differs_from_an_empty_one(path: Path) -> None:
    blob = LocalFile(path).open()
    blob.close()
    blob.close()

    with pytest.raises(StoreError, match="cannot read"):
        blob.readinto(memoryview(bytearray(100)))


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "space"),
        (errno.EFBIG, "ulimit -f"),
        (errno.EACCES, "permissions"),
        (errno.EIO, "disk"),
    ],
)
def test_refusal_of_the_disk_names_cause_and_remedy(number: int, remedy: str) -> None:
    error = disk_error("cannot write", "some/file", OSError(number, os.strerror(number)))

    assert str(error) == f"cannot write 'some/file': {os.strerror(number)}"
    assert remedy in error.remedy
