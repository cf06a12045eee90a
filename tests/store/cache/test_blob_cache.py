"""Blobs are kept, verified, bounded, and read from the source if anything is wrong."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from concil.config import MIB
from concil.errors import ConnectionLost, StoreError, UsageError
from concil.oci.address import parse_address
from concil.oci.blob_reader import BlobReader
from concil.oci.descriptor import Descriptor
from concil.oci.digest import Digest, Verifier
from concil.oci.manifest import Manifest
from concil.store.base_store import BaseStore
from concil.store.cache import cache_file
from concil.store.cache.blob_cache import BlobCache
from concil.store.cache.cached_source import CachedSource
from tests.support.served_bytes import ServedBytes
from tests.transfer.transfer_setup import WAIT

CONTENT = os.urandom(MIB + 12_345)
BLOCK = 100_000  # bytes of one read


def descriptor_of(content: bytes) -> Descriptor:
    return Descriptor("application/octet-stream", Digest.from_bytes(content), len(content))


BLOB = descriptor_of(CONTENT)


class Source(ServedBytes, BaseStore):
    """Serves blobs, and counts the bytes. Any thread."""

    name = "source"
    host = "source.example"

    def __init__(self, *contents: bytes) -> None:
        super().__init__()
        self.contents = {Digest.from_bytes(content): content for content in contents}

    def find_manifest(self, reference: str) -> Descriptor | None:
        raise NotImplementedError

    def get_manifest(self, reference: str) -> Manifest:
        raise NotImplementedError

    def open_blob(self, blob: Descriptor, start: int = 0, stop: int | None = None) -> BlobReader:
        return self.serve(self.contents[blob.digest], start, stop)


class Harness:
    """A source with a cache; `restart` is what a later process sees."""

    def __init__(self, directory: Path, limit: int = 100 * MIB) -> None:
        self.directory = directory
        self.limit = limit
        self.source = Source(CONTENT)
        self.cache = BlobCache(directory, limit)

    def restart(self) -> None:
        self.cache.close()
        self.cache = BlobCache(self.directory, self.limit)
        self.source.served = 0

    def open(self, start: int = 0, stop: int | None = None, blob: Descriptor = BLOB) -> BlobReader:
        return CachedSource(self.source, self.cache).open_blob(blob, start, stop)

    def read(self, start: int = 0, stop: int | None = None, blob: Descriptor = BLOB) -> bytes:
        reader = self.open(start, stop, blob)
        try:
            return read_all(reader)
        finally:
            reader.close()

    @property
    def path(self) -> Path:
        return self.directory / "blobs" / "sha256" / BLOB.digest.hex

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(path.stat().st_size for path in self.directory.glob("*/**/*") if path.is_file())


def read_all(reader: BlobReader) -> bytes:
    result = bytearray()
    buffer = memoryview(bytearray(BLOCK))
    while count := reader.readinto(buffer):
        result += buffer[:count]
    return bytes(result)


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[Harness]:
    harness = Harness(tmp_path / "cache")
    yield harness
    harness.cache.close()
    assert harness.source.open_count == 0


def test_a_blob_is_read_from_the_source_once(harness: Harness) -> None:
    assert [harness.read(), harness.read(), harness.read(500, 90_000)] == [
        CONTENT,
        CONTENT,
        CONTENT[500:90_000],
    ]
    assert harness.source.served == len(CONTENT)

    harness.restart()

    assert harness.read() == CONTENT
    assert harness.source.served == 0


def test_a_blob_that_was_read_in_parts_is_complete(harness: Harness) -> None:
    parts = [harness.read(start, min(start + 2 * BLOCK, len(CONTENT))) for start in
             range(0, len(CONTENT), 2 * BLOCK)]  # fmt: skip

    assert b"".join(parts) == CONTENT
    assert harness.path.read_bytes() == CONTENT


def test_a_later_process_goes_on_where_a_killed_one_has_ended(harness: Harness) -> None:
    harness.source.breaks_at = 5 * BLOCK
    with pytest.raises(ConnectionLost):
        harness.read()
    harness.restart()

    assert harness.read() == CONTENT
    assert harness.source.served == len(CONTENT) - 5 * BLOCK
    assert harness.path.read_bytes() == CONTENT


def test_a_process_that_was_killed_before_the_last_step(harness: Harness) -> None:
    harness.read()
    name = f"{harness.cache._boot}-sha256-{BLOB.digest.hex}"
    harness.path.rename(harness.directory / "partial" / name)
    harness.restart()

    assert harness.read() == CONTENT
    assert harness.source.served == 0
    assert harness.path.read_bytes() == CONTENT


def test_an_upload_that_resumes_far_behind_reads_the_cache(harness: Harness) -> None:
    harness.source.breaks_at = 5 * BLOCK
    with pytest.raises(ConnectionLost):
        harness.read()

    assert harness.read(2 * BLOCK) == CONTENT[2 * BLOCK :]
    assert harness.source.served == len(CONTENT)
    assert harness.path.read_bytes() == CONTENT


def test_bytes_after_unknown_ones_are_not_kept(harness: Harness) -> None:
    assert harness.read(BLOCK) == CONTENT[BLOCK:]
    assert not harness.path.exists()
    assert harness.read() == CONTENT


def test_a_source_without_ranges(harness: Harness) -> None:
    harness.source.has_ranges = False
    harness.read(0, 3 * BLOCK)

    assert harness.read() == CONTENT
    assert harness.path.read_bytes() == CONTENT


@pytest.mark.parametrize("damage", ["flipped", "short", "long"])
def test_a_damaged_file_is_dropped(
    harness: Harness, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    harness.read()
    content = bytearray(CONTENT)
    content[-1] ^= 1
    changed = {"flipped": bytes(content), "short": CONTENT[:-1], "long": CONTENT + b"x"}
    harness.path.write_bytes(changed[damage])
    harness.restart()

    assert harness.read() == CONTENT
    assert harness.source.served == len(CONTENT)
    assert [record.message.partition("copy of")[0] for record in caplog.records] == [
        f"the cache in '{harness.directory}' has a damaged "
    ]
    assert harness.path.read_bytes() == CONTENT


def test_wrong_bytes_of_the_source_are_not_kept(harness: Harness) -> None:
    harness.source.contents[BLOB.digest] = bytes(len(CONTENT))
    assert harness.read() == bytes(len(CONTENT))
    harness.source.contents[BLOB.digest] = CONTENT

    assert harness.read() == CONTENT
    assert harness.path.read_bytes() == CONTENT


def test_a_wrong_beginning_heals(harness: Harness) -> None:
    """The beginning of a killed process is verified with the end."""
    name = f"{harness.cache._boot}-sha256-{BLOB.digest.hex}"
    (harness.directory / "partial" / name).write_bytes(bytes(BLOCK))

    assert harness.read() == bytes(BLOCK) + CONTENT[BLOCK:]
    assert harness.read() == CONTENT


def test_the_least_recently_used_blob_is_removed(tmp_path: Path) -> None:
    harness = Harness(tmp_path / "cache", limit=3_500)
    contents = [os.urandom(1_000) for _ in range(5)]
    harness.source = Source(*contents)
    blobs = [descriptor_of(content) for content in contents]
    for blob in blobs[:3]:
        harness.read(blob=blob)
    harness.read(blob=blobs[0])

    harness.read(blob=blobs[3])

    kept = {path.name for path in harness.path.parent.iterdir()}
    assert kept == {blobs[number].digest.hex for number in (0, 2, 3)}
    assert harness.size <= harness.limit
    harness.cache.close()


def test_a_blob_that_is_larger_than_the_cache_is_not_kept(tmp_path: Path) -> None:
    harness = Harness(tmp_path / "cache", limit=BLOCK)

    assert harness.read() == CONTENT
    assert harness.size == 0
    harness.cache.close()


def test_a_disk_that_is_full_is_said_once(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    other = os.urandom(5_000)
    harness.source = Source(CONTENT, other)

    def fail(*_arguments: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", fail)

    assert harness.read() == CONTENT
    assert harness.read(blob=descriptor_of(other)) == other
    [record] = caplog.records
    assert record.message == (
        f"cannot write to the cache in '{harness.directory}': No space left on device; the run "
        "goes on without it"
    )
    assert harness.size == 0


def test_two_processes_at_once(harness: Harness) -> None:
    """The second one leaves the file to the first, and reads the source itself."""
    other = BlobCache(harness.directory, harness.limit)
    reader = harness.open()
    buffer = memoryview(bytearray(BLOCK))
    first = bytes(buffer[: reader.readinto(buffer)])

    second = CachedSource(harness.source, other).open_blob(BLOB)
    assert read_all(second) == CONTENT
    second.close()
    assert first + read_all(reader) == CONTENT
    reader.close()

    assert other.open_blob(BLOB, 0, None) is not None
    other.close()


def test_many_threads_at_once(harness: Harness) -> None:
    with ThreadPoolExecutor(8) as executor:
        futures = [executor.submit(harness.read, number * 777) for number in range(24)]

        for number, future in enumerate(futures):
            assert future.result(WAIT) == CONTENT[number * 777 :]
    assert harness.read() == CONTENT
    assert harness.path.read_bytes() == CONTENT


def test_a_file_that_is_removed_while_it_is_written(harness: Harness) -> None:
    reader = harness.open()
    buffer = memoryview(bytearray(BLOCK))
    result = bytes(buffer[: reader.readinto(buffer)])
    for path in (harness.directory / "partial").iterdir():
        path.unlink()

    assert result + read_all(reader) == CONTENT
    reader.close()
    assert not harness.path.exists()
    assert harness.read() == CONTENT
    assert harness.path.read_bytes() == CONTENT


def test_a_file_that_is_hashed_keeps_nobody_from_other_blobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = (descriptor_of(bytes([number])) for number in range(200))
    other = next(each for each in others if hash(each.digest) % 64 != hash(BLOB.digest) % 64)
    cache = BlobCache(tmp_path / "cache", 100 * MIB)
    is_hashing, may_end = threading.Event(), threading.Event()
    hash_now = cache_file.hash_file

    def hash_slowly(fd: int, verifier: Verifier, size: int) -> None:
        if size == BLOB.size:
            is_hashing.set()
            assert may_end.wait(WAIT)
        hash_now(fd, verifier, size)

    monkeypatch.setattr(cache_file, "hash_file", hash_slowly)
    with ThreadPoolExecutor(2) as executor:
        slow = executor.submit(cache.begin_blob, BLOB)
        try:
            assert is_hashing.wait(WAIT)
            file = executor.submit(cache.begin_blob, other).result(WAIT)
        finally:
            may_end.set()

        assert file is not None
        assert file.blob == other
        assert slow.result(WAIT) is not None
    cache.close()


@pytest.mark.parametrize("index", ['{"manifests": [{}]}', "no JSON", "[]", None])
def test_a_directory_with_other_content_is_refused(tmp_path: Path, index: str | None) -> None:
    (tmp_path / ("index.json" if index is not None else "other")).write_text(index or "")

    with pytest.raises(UsageError, match="has other content"):
        BlobCache(tmp_path, MIB)


@pytest.mark.parametrize(
    "address",
    ["oci-archive:a.tar", "oci:a:v1", "docker.io/library/a", "/a", "https://u:hunter2@/A"],
)
def test_a_cache_is_a_directory(address: str) -> None:
    with pytest.raises(UsageError, match="a cache is a directory") as caught:
        BlobCache.from_address(address, MIB)

    assert "hunter2" not in str(caught.value)


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(StoreError, match="cannot write to the cache"):
        BlobCache(tmp_path / "file" / "cache", MIB)


def test_the_cache_is_no_destination(harness: Harness) -> None:
    with pytest.raises(UsageError, match="is the cache"):
        harness.cache.check_destination(parse_address(f"oci:{harness.directory}/../cache:v1"))
