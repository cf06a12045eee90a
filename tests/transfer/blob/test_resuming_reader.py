"""A reader goes on after a loss, and a window shows a stretch of it as a request body."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from unittest import mock

import pytest

from concil.config import KIB, RetryPolicy, TransferConfig
from concil.errors import AccessDenied, Cancelled, ConnectionLost, DigestMismatch
from concil.oci.blob_reader import BlobReader
from concil.transfer.blob.request_body import ChunkBody
from concil.transfer.blob.resuming_reader import ResumingReader
from concil.transfer.context import TransferContext
from tests.support.images import make_blob
from tests.transfer.transfer_setup import CONFIG, BytesReader

CONTENT = make_blob(1, 5_000)


class Opener:
    """Opens the content; each reader breaks where it is told to."""

    def __init__(self, *breaks: int | None, ranges: bool = True) -> None:
        self.breaks = list(breaks)
        self.ranges = ranges
        self.readers: list[BytesReader] = []
        self.starts: list[int] = []

    def __call__(self, start: int, /) -> BlobReader:
        breaks = self.breaks.pop(0) if self.breaks else None
        self.starts.append(start)
        self.readers.append(BytesReader(CONTENT, start if self.ranges else 0, breaks=breaks))
        return self.readers[-1]


def reader_of(
    opener: Callable[[int], BlobReader], config: TransferConfig = CONFIG
) -> ResumingReader:
    """Return a reader of the content."""
    return ResumingReader(opener, len(CONTENT), TransferContext(config), "the blob")


def read_all(reader: ResumingReader, most: int = 700) -> bytes:
    """Read to the end."""
    content, buffer = bytearray(), memoryview(bytearray(most))
    while count := reader.readinto(buffer):
        content += buffer[:count]
    return bytes(content)


def test_nothing_is_opened_before_the_first_read() -> None:
    opener = Opener()

    reader_of(opener).close()

    assert opener.starts == []


def test_reader_goes_on_at_the_next_byte() -> None:
    opener = Opener(1, 1_000, 4_999)
    reader = reader_of(opener)

    assert read_all(reader) == CONTENT

    assert opener.starts == [0, 1, 1_000, 4_999]
    reader.close()
    assert all(each.closed for each in opener.readers)


def test_end_is_known_without_asking() -> None:
    opener = Opener()
    reader = reader_of(opener)
    read_all(reader)

    assert reader.readinto(memoryview(bytearray(1))) == 0
    assert opener.starts == [0]
    reader.close()


def test_seek_to_where_it_stands_is_free_and_elsewhere_opens_again() -> None:
    opener = Opener()
    reader = reader_of(opener)
    buffer = memoryview(bytearray(100))
    reader.readinto(buffer)

    reader.seek(100)
    reader.readinto(buffer)
    reader.seek(50)
    reader.readinto(buffer)

    assert bytes(buffer) == CONTENT[50:150]
    assert opener.starts == [0, 50]
    reader.close()


def test_place_that_cannot_begin_in_the_middle_is_read_from_its_start() -> None:
    opener = Opener(3_000, ranges=False)
    reader = reader_of(opener)

    assert read_all(reader) == CONTENT

    assert opener.starts == [0, 3_000]
    reader.close()


def test_source_that_ends_too_early_is_a_loss_like_any_other() -> None:
    reader = ResumingReader(Opener(), len(CONTENT) + 1, TransferContext(CONFIG), "the blob")

    with pytest.raises(ConnectionLost, match="ended at byte 5000 of 5001"):
        read_all(reader)


def test_final_error_is_raised_at_once() -> None:
    def refuse(start: int, /) -> BlobReader:
        starts.append(start)
        raise AccessDenied("no")

    starts: list[int] = []

    with pytest.raises(AccessDenied):
        reader_of(refuse).readinto(memoryview(bytearray(1)))

    assert starts == [0]


def test_losses_in_a_row_without_a_byte_are_bounded() -> None:
    opener = Opener(*[2_000] * 99)
    reader = reader_of(opener, replace(CONFIG, retry=RetryPolicy(backoff_base=0, max_attempts=5)))

    with pytest.raises(ConnectionLost, match="byte 2000"):
        read_all(reader)

    assert opener.starts == [0, 2_000, 2_000, 2_000, 2_000]


def test_abandoned_reader_reads_no_more() -> None:
    run = TransferContext(CONFIG)
    reader = ResumingReader(Opener(), len(CONTENT), run, "the blob")
    reader.readinto(memoryview(bytearray(1)))
    run.abandon.set()

    with pytest.raises(Cancelled):
        reader.readinto(memoryview(bytearray(1)))
    reader.close()


def window_of(reader: ResumingReader, length: int, block: int = 1 << 20) -> ChunkBody:
    """Return a window on the next bytes."""
    return ChunkBody(reader, length, memoryview(bytearray(block)), lambda piece, start: None)


def test_windows_follow_each_other() -> None:
    reader = reader_of(Opener())
    seen: list[tuple[int, int]] = []
    content = b""

    for length in (1, 2_000, 2_999):
        buffer = memoryview(bytearray(900))
        window = ChunkBody(
            reader, length, buffer, lambda piece, start: seen.append((start, len(piece)))
        )
        assert len(window) == length
        while piece := window.read(800):
            assert len(piece) <= 800
            content += piece
        assert bytes(window.read()) == b""
        assert len(window) == length

    assert content == CONTENT
    assert [start for start, _ in seen] == sorted({start for start, _ in seen})
    assert sum(count for _, count in seen) == 5_000
    reader.close()


def test_window_knows_whether_its_source_failed() -> None:
    def refuse(piece: memoryview, start: int) -> None:
        raise DigestMismatch("wrong")

    reader = reader_of(Opener())
    window = ChunkBody(reader, 10, memoryview(bytearray(10)), refuse)

    with pytest.raises(DigestMismatch):
        window.read()

    assert isinstance(window.source_error, DigestMismatch)
    reader.close()


class Endless:
    """A blob of zeros."""

    start = 0

    def readinto(self, buffer: memoryview, /) -> int:
        return len(buffer)

    def close(self) -> None:
        """Nothing is open."""


def blocks(took: float, count: int = 12, source: float = 0) -> list[int]:
    """Return the sizes of the blocks that a window gives.

    Args:
        took: seconds until each is taken.
        source: seconds that the source needs for each.
    """
    now = [0.0]

    class Slow(Endless):
        def readinto(self, buffer: memoryview, /) -> int:
            now[0] += source
            return super().readinto(buffer)

    reader = ResumingReader(lambda start: Slow(), 1 << 40, TransferContext(CONFIG), "zeros")
    sizes = []
    with mock.patch("time.monotonic", side_effect=lambda: now[0]):
        window = window_of(reader, 1 << 40)
        for _ in range(count):
            now[0] += took
            sizes.append(len(window.read()))
    return sizes


def test_block_grows_on_a_fast_link_up_to_the_buffer() -> None:
    assert blocks(took=0.01)[:4] == [512 * KIB, 1024 * KIB, 1024 * KIB, 1024 * KIB]


def test_block_shrinks_on_a_slow_link_so_that_each_is_written_in_time() -> None:
    assert blocks(took=2)[:6] == [size * KIB for size in (128, 64, 32, 16, 16, 16)]


def test_block_stays_where_it_is_right() -> None:
    assert set(blocks(took=0.5)) == {256 * KIB}


def test_block_does_not_shrink_because_the_source_is_slow() -> None:
    assert blocks(took=0.01, source=5) == blocks(took=0.01)


def test_it_can_be_opened_before_its_bytes_are_wanted() -> None:
    opener = Opener()
    reader = reader_of(opener)
    reader.seek(100)

    reader.open()
    reader.open()

    assert opener.starts == [100]
    assert read_all(reader) == CONTENT[100:]
    assert opener.starts == [100]
    reader.close()


def test_an_opening_that_fails_is_repeated_as_a_read_is() -> None:
    opener, failures = Opener(), [ConnectionLost("one"), ConnectionLost("two")]

    def fail_first(start: int, /) -> BlobReader:
        if failures:
            raise failures.pop()
        return opener(start)

    reader = reader_of(fail_first)

    reader.open()

    assert (opener.starts, failures) == ([0], [])
    reader.close()
