"""One blob, read by several lanes: right bytes for each, and few from the source."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from concil.errors import Cancelled, ConnectionLost, StoreError
from concil.oci.blob_reader import BlobReader
from concil.oci.descriptor import Descriptor
from concil.oci.digest import Digest
from concil.transfer.fan_out import fan_out as fan_out_module
from concil.transfer.fan_out.fan_out import FanOut
from concil.transfer.fan_out.spool import SLOT_SIZE, Spool
from tests.support.served_bytes import ServedBytes, ServedReader
from tests.transfer.transfer_setup import WAIT

CONTENT = os.urandom(4 * SLOT_SIZE + 12_345)
BLOB = Descriptor("application/octet-stream", Digest.from_bytes(CONTENT), len(CONTENT))
BLOCK = SLOT_SIZE // 4 + 1  # bytes of one read


class Source(ServedBytes):
    """Serves the blob, and counts what it has served. Any thread."""

    def __init__(self, content: bytes = CONTENT) -> None:
        super().__init__()
        self.content = content
        self.requests: list[tuple[int, int | None]] = []

    def open(self, start: int, stop: int | None = None, /) -> ServedReader:
        with self.lock:
            self.requests.append((start, stop))
        return self.serve(self.content, start, stop)


class Harness:
    """A fan-out of one blob."""

    def __init__(self, directory: Path, lanes: str = "ab", *, slots: int = 100) -> None:
        self.source = Source()
        self.spool = Spool(directory, slots * SLOT_SIZE)
        self.cancel = threading.Event()
        self.fan_out = FanOut(self.spool, self.cancel)
        self.image = self.fan_out.add_image(lanes)

    def open(self, lane: str, start: int = 0, stop: int | None = None) -> BlobReader:
        return self.fan_out.open_blob(self.image, lane, BLOB, self.source.open, start, stop)

    def read(self, lane: str, start: int = 0, stop: int | None = None) -> bytes:
        """Read a range of a lane to its end."""
        return read_all(self.open(lane, start, stop))

    def close(self) -> None:
        self.fan_out.close()
        self.spool.close()

    def release(self, lane: str) -> None:
        self.fan_out.release_blob(self.image, lane, BLOB.digest)

    def finish(self, lane: str) -> None:
        self.fan_out.finish(self.image, lane)


def read_all(reader: BlobReader) -> bytes:
    result = bytearray()
    buffer = memoryview(bytearray(BLOCK))
    while count := reader.readinto(buffer):
        result += buffer[:count]
    return bytes(result)


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[Harness]:
    harness = Harness(tmp_path)
    yield harness
    harness.close()
    assert harness.source.open_count == 0


@pytest.fixture
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """No lane waits for another one: a single thread reads all."""
    monkeypatch.setattr(fan_out_module, "_STALL_TIME", -1.0)


def test_the_second_lane_reads_from_the_spool(harness: Harness) -> None:
    assert harness.read("a") == CONTENT
    assert harness.read("b") == CONTENT
    assert harness.source.served == len(CONTENT)
    assert harness.source.requests == [(0, None)]


def test_lanes_take_turns_at_one_connection(harness: Harness) -> None:
    readers = [harness.open("a"), harness.open("b")]
    buffer = memoryview(bytearray(BLOCK))
    results = [bytearray(), bytearray()]

    while any(len(result) < len(CONTENT) for result in results):
        for reader, result in zip(readers, results, strict=True):
            for _ in range(2):
                result.extend(buffer[: reader.readinto(buffer)])

    assert results == [CONTENT, CONTENT]
    assert harness.source.requests == [(0, None)]


def test_lanes_that_resume_at_different_bytes_read_what_is_missing_once(harness: Harness) -> None:
    far, near = 3 * SLOT_SIZE, SLOT_SIZE // 2

    assert harness.read("a", far) == CONTENT[far:]
    assert harness.read("b", near) == CONTENT[near:]

    assert harness.source.served == len(CONTENT) - near
    assert harness.source.requests == [(far, None), (near, far)]


def test_what_no_other_lane_needs_is_not_stored(harness: Harness) -> None:
    harness.release("b")

    assert harness.read("a") == CONTENT
    assert harness.spool.acquire() == 0  # nobody has used a slot before


def test_slots_are_released_with_the_last_lane(harness: Harness) -> None:
    harness.read("a")
    harness.release("a")
    harness.read("b", 0, SLOT_SIZE)
    assert harness.spool.acquire() == 5
    harness.spool.release(5)

    harness.finish("b")

    assert {harness.spool.acquire() for _ in range(6)} == {*range(6)}


@pytest.mark.usefixtures("no_waits")
@pytest.mark.parametrize("slots", [0, 1, 3])
def test_what_does_not_fit_is_read_again(tmp_path: Path, slots: int) -> None:
    harness = Harness(tmp_path, slots=slots)

    assert harness.read("a") == CONTENT
    assert harness.read("b") == CONTENT

    assert harness.source.served == 2 * len(CONTENT) - slots * SLOT_SIZE
    harness.close()


def test_a_full_spool_is_used_again_as_the_slowest_lane_moves(tmp_path: Path) -> None:
    """The fast lane waits for the slow one, so each byte is read once."""
    harness = Harness(tmp_path, slots=2)
    with ThreadPoolExecutor(2) as executor:
        slow = harness.open("b")
        first = memoryview(bytearray(BLOCK))
        first = first[: slow.readinto(first)]
        fast = executor.submit(harness.read, "a")
        rest = executor.submit(read_all, slow)

        assert fast.result(WAIT) == CONTENT
        assert bytes(first) + rest.result(WAIT) == CONTENT
    assert harness.source.served == len(CONTENT)
    harness.close()


def test_a_wait_for_a_very_slow_lane_is_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fan_out_module, "_MAX_WAIT", 0.1)
    harness = Harness(tmp_path, slots=1)
    slow = harness.open("b")  # has just begun: it is waited for
    with ThreadPoolExecutor(1) as executor:
        assert executor.submit(harness.read, "a").result(WAIT) == CONTENT
    assert read_all(slow) == CONTENT
    harness.close()


def test_a_wait_is_cancelled(tmp_path: Path) -> None:
    harness = Harness(tmp_path, slots=1)
    harness.open("b")  # has just begun: it is waited for
    with ThreadPoolExecutor(1) as executor:
        fast = executor.submit(harness.read, "a")
        harness.cancel.set()

        with pytest.raises(Cancelled):
            fast.result(WAIT)
    harness.close()


def test_a_lane_that_has_ended_is_not_waited_for(tmp_path: Path) -> None:
    harness = Harness(tmp_path, slots=1)
    harness.open("b")
    with ThreadPoolExecutor(1) as executor:
        fast = executor.submit(harness.read, "a")
        harness.finish("b")

        assert fast.result(WAIT) == CONTENT
    harness.close()


def test_wrong_bytes_are_not_given_to_a_lane_that_starts_over(harness: Harness) -> None:
    harness.source.content = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])
    assert harness.read("a") == harness.source.content
    harness.source.content = CONTENT

    assert harness.read("a") == CONTENT
    assert harness.read("b") == CONTENT


def test_unverified_bytes_are_not_given_to_a_lane_that_starts_over(harness: Harness) -> None:
    """Bytes from the middle on are hashed by nobody here."""
    right, half = harness.source.content, 2 * SLOT_SIZE
    harness.source.content = bytes(len(CONTENT))
    assert harness.read("a", half) == bytes(len(CONTENT) - half)
    harness.source.content = right

    assert harness.read("a") == CONTENT


def test_verified_bytes_are_read_again_from_the_spool(harness: Harness) -> None:
    """A lane whose upload session was lost starts over."""
    assert harness.read("a") == CONTENT
    assert harness.read("a") == CONTENT
    assert harness.source.served == len(CONTENT)


def test_a_source_without_ranges(harness: Harness) -> None:
    harness.source.has_ranges = False

    assert harness.read("a", SLOT_SIZE) == CONTENT[SLOT_SIZE:]
    assert harness.read("b") == CONTENT


def test_the_lane_that_reads_the_source_gets_its_error(harness: Harness) -> None:
    harness.source.breaks_at = 2 * BLOCK
    reader = harness.open("a")
    with pytest.raises(ConnectionLost, match="broken"):
        read_all(reader)

    assert harness.read("b") == CONTENT
    assert harness.read("a", 2 * BLOCK) == CONTENT[2 * BLOCK :]
    assert harness.source.served == len(CONTENT)


def test_a_disk_that_fails_costs_bytes_only(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_arguments: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", fail)

    assert harness.read("a") == CONTENT
    assert harness.read("b") == CONTENT
    assert [record.message.partition(";")[0] for record in caplog.records] == [
        f"cannot write to the spool in '{harness.spool._directory}': No space left on device"
    ]


def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    harness = Harness(tmp_path / "missing")

    assert harness.read("a") == CONTENT
    assert harness.read("b") == CONTENT
    assert not (tmp_path / "missing").exists()
    harness.close()


def test_many_lanes_at_once(tmp_path: Path) -> None:
    lanes = "abcdefgh"
    harness = Harness(tmp_path, lanes, slots=2)
    with ThreadPoolExecutor(len(lanes)) as executor:
        futures = [executor.submit(harness.read, lane) for lane in lanes]

        assert [future.result(WAIT) for future in futures] == len(lanes) * [CONTENT]
    harness.close()
    assert harness.source.open_count == 0


def test_threads_that_go_on_after_the_end_touch_no_other_file(
    harness: Harness, tmp_path: Path
) -> None:
    """The descriptor of the spool may be that of another file by then."""
    reader = harness.open("a")
    buffer = memoryview(bytearray(BLOCK))
    reader.readinto(buffer)
    other_lane = harness.open("b")

    harness.close()
    with (tmp_path / "other").open("wb+") as other:
        with pytest.raises(StoreError, match="closed"):
            harness.spool.read(0, 0, buffer)
        with pytest.raises(StoreError, match="closed"):
            harness.spool.write(0, 0, buffer)
        assert read_all(reader) == CONTENT[BLOCK:]
        assert read_all(other_lane) == CONTENT
        assert other.read() == b""


def test_a_spool_is_closed_after_its_last_user(tmp_path: Path) -> None:
    spool = Spool(tmp_path, SLOT_SIZE)
    slot = spool.acquire()
    assert slot == 0
    with spool._use() as descriptor:
        spool.close()
        assert os.fstat(descriptor).st_size == 0
    with pytest.raises(OSError, match="descriptor"):
        os.fstat(descriptor)
    assert spool.acquire() is None


@pytest.mark.usefixtures("no_waits")
class TestAnyOrder:
    @given(
        st.lists(
            st.tuples(
                st.sampled_from("abc"),
                st.integers(0, len(CONTENT)),
                st.integers(1, 2 * SLOT_SIZE),
                st.booleans(),
            ),
            max_size=30,
        ),
        st.integers(0, 4),
    )
    def test_every_lane_gets_the_bytes_of_the_blob(
        self,
        tmp_path_factory: pytest.TempPathFactory,
        steps: list[tuple[str, int, int, bool]],
        slots: int,
    ) -> None:
        """Lanes read here and there, release the blob and come back."""
        harness = Harness(tmp_path_factory.getbasetemp(), "abc", slots=slots)
        for lane, start, size, is_released in steps:
            stop = min(start + size, len(CONTENT))
            assert harness.read(lane, start, stop) == CONTENT[start:stop]
            if is_released:
                harness.release(lane)
        for lane in "abc":
            harness.finish(lane)
        assert harness.source.open_count == 0
        free = [harness.spool.acquire() for _ in range(slots + 1)]
        assert set(free[:slots]) == {*range(slots)}
        assert free[slots] is None
        harness.close()
