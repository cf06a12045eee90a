"""Compressions are undone a piece at a time, and within bounds."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from concil.config import MIB
from concil.errors import ContentError, StoreError
from concil.store.archive import decompress
from concil.store.archive.decompress import (
    MAGIC_SIZE,
    BoundedDecompressor,
    detect_compression,
    open_decompressed,
)
from tests.support.images import make_blob
from tests.support.layouts import has_message

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstd.compress,
}


def unpacked(packed: bytes, step: int) -> bytes:
    packing = detect_compression(packed[:MAGIC_SIZE])
    assert packing is not None
    inflater = BoundedDecompressor(packing, "layer", size=len(packed))
    out: list[bytes] = []
    for start in range(0, len(packed), step):
        out += inflater.feed(packed[start : start + step])
    inflater.check_complete()
    assert all(0 < len(piece) <= MIB for piece in out)
    return b"".join(out)


@pytest.mark.parametrize("step", [1, 7, 10_000])
def test_pieces_of_any_size_come_to_the_same(step: int) -> None:
    content = make_blob(1, 3000) + bytes(3000)

    assert unpacked(gzip.compress(content), step) == content


def test_much_comes_out_of_little_a_piece_at_a_time() -> None:
    content = bytes(5 * MIB + 3)

    assert unpacked(gzip.compress(content), 100_000) == content


def test_several_members_and_zeros_behind_them_are_one_stream() -> None:
    packed = gzip.compress(b"one") + gzip.compress(b"") + gzip.compress(b"two") + bytes(100)

    for step in (1, 5, 1000):
        assert unpacked(packed, step) == b"onetwo"


def test_more_than_is_honest_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decompress, "MIN_OUTPUT_LIMIT", MIB)

    with pytest.raises(ContentError) as excinfo:
        unpacked(gzip.compress(bytes(2 * MIB)), 1000)
    assert has_message(excinfo.value, "decompresses to more than 1048576 bytes")


@pytest.mark.parametrize(
    ("packed", "words"),
    [
        (gzip.compress(b"x" * 1000)[:-1], "middle of its gzip"),
        (gzip.compress(b"x" * 1000)[:12], "middle of its gzip"),
        (gzip.compress(b"x" * 1000) + b"rubbish", "damaged"),
        (gzip.compress(b"x" * 1000)[:-8] + bytes(8), "damaged"),
    ],
    ids=["cut", "cut early", "rubbish behind", "wrong sum"],
)
def test_damaged_streams_are_an_error_in_one_line(packed: bytes, words: str) -> None:
    with pytest.raises(ContentError) as excinfo:
        unpacked(packed, 1000)
    assert has_message(excinfo.value, words)


@pytest.mark.parametrize("name", PACKERS)
@pytest.mark.parametrize("step", [1, 7, 10_000])
def test_every_compression_is_known_by_its_first_bytes_and_undone(name: str, step: int) -> None:
    content = make_blob(1, 3000) + bytes(3000)
    packed = PACKERS[name](content)

    packing = detect_compression(packed[:MAGIC_SIZE])

    assert packing is not None
    assert packing.name == name
    assert unpacked(packed, step) == content


@pytest.mark.parametrize("name", PACKERS)
def test_several_streams_of_every_compression_are_one(name: str) -> None:
    pack = PACKERS[name]
    packed = pack(b"one") + pack(b"") + pack(b"two") + bytes(100)

    for step in (1, 5, 1000):
        assert unpacked(packed, step) == b"onetwo"


@pytest.mark.parametrize("name", PACKERS)
def test_damage_in_every_compression_is_an_error_in_one_line(name: str) -> None:
    packed = PACKERS[name](make_blob(1, 5000))

    with pytest.raises(ContentError) as cut:
        unpacked(packed[:-1], 1000)
    assert has_message(cut.value, f"middle of its {name}")
    with pytest.raises(ContentError) as behind:
        unpacked(packed + b"rubbish, and more of it", 1000)
    assert has_message(behind.value, "damaged")


@pytest.mark.parametrize("name", PACKERS)
def test_truncated_stream_is_an_error(name: str) -> None:
    stream = PACKERS[name](make_blob(1, 5000))

    for length in (len(stream) - 1, len(stream) // 2, MAGIC_SIZE):
        for before in (b"", stream):
            with pytest.raises(ContentError) as excinfo:
                unpacked(before + stream[:length], 1000)
            assert has_message(excinfo.value, "is truncated", f"middle of its {name}")


@pytest.mark.parametrize("name", PACKERS)
def test_a_layer_is_read_as_a_file_to_the_end_of_its_last_stream(name: str) -> None:
    """What follows is none of its content, and is verified by who reads the blob."""
    content = make_blob(1, 200_000) + bytes(200_000)
    half = len(content) // 2
    packed = PACKERS[name](content[:half]) + PACKERS[name](content[half:])

    for behind in (b"", bytes(100), b"?", b"something else that is no stream"):
        with open_decompressed(io.BytesIO(packed + behind), "layer") as stream:  # type: ignore[arg-type]
            assert stream.read() == content
    with (
        open_decompressed(io.BytesIO(packed[:-1]), "layer") as stream,  # type: ignore[arg-type]
        pytest.raises(ContentError, match="is truncated"),
    ):
        stream.read()


@pytest.mark.parametrize("content", [b"", b"{}", bytes(3000)], ids=["empty", "short", "tar"])
def test_a_layer_without_compression_is_read_as_it_is(content: bytes) -> None:
    with open_decompressed(io.BytesIO(content), "layer") as stream:  # type: ignore[arg-type]
        assert stream.read() == content


@pytest.mark.parametrize("name", PACKERS)
def test_a_bomb_of_every_compression_is_refused_early(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decompress, "MIN_OUTPUT_LIMIT", MIB)
    packed = PACKERS[name](bytes(50 * MIB))

    with pytest.raises(ContentError) as excinfo:
        unpacked(packed, 1_000_000)
    assert has_message(excinfo.value, "decompresses to more than")


def test_a_frame_that_is_skipped_may_come_first_and_last() -> None:
    """As pzstd and zstd:chunked write it."""
    skipped = b"\x50\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"abcd"

    assert unpacked(skipped + zstd.compress(b"one") + skipped, 3) == b"one"


def test_a_window_that_needs_gigabytes_is_refused() -> None:
    window_log = 31
    header = b"\x28\xb5\x2f\xfd\x00" + bytes([(window_log - 10) << 3]) + b"\x01\x00\x00"

    with pytest.raises(ContentError) as excinfo:
        unpacked(header, 1000)
    assert has_message(excinfo.value, "damaged")


def test_the_name_of_a_file_in_a_plain_tar_is_no_compression() -> None:
    assert detect_compression(b"BZh9.txt\0\0") is None
    assert detect_compression(b"BZh") is None


MEASURED = """
import resource, sys
from concil.store.archive.decompress import BoundedDecompressor, detect_compression

packed = open(sys.argv[1], "rb").read()
inflater = BoundedDecompressor(detect_compression(packed[:10]), "layer", size=len(packed))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for start in range(0, len(packed), 65536):
    for out in inflater.feed(packed[start : start + 65536]):
        pass
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.process
@pytest.mark.parametrize("name", PACKERS)
def test_memory_does_not_grow_with_what_comes_out(name: str, tmp_path: Path) -> None:
    (tmp_path / "packed").write_bytes(PACKERS[name](bytes(120 * MIB)))

    result = subprocess.run(
        [sys.executable, "-c", MEASURED, str(tmp_path / "packed")],
        capture_output=True,
        check=True,
    )

    assert int(result.stdout) < 30 * 1024  # KiB


def test_a_python_without_a_compression_says_what_brings_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "compression", None)
    monkeypatch.setitem(sys.modules, "backports", None)
    monkeypatch.setitem(sys.modules, "backports.zstd", None)

    with pytest.raises(StoreError) as excinfo:
        unpacked(b"\x28\xb5\x2f\xfd" + bytes(20), 1000)

    assert has_message(excinfo.value, "compressed with zstd", "cannot decompress")
    assert excinfo.value.remedy == "pip install 'concil[zstd]', or decompress it first"


def test_a_tar_archive_that_lacks_most_of_a_huge_file_is_refused_soon(tmp_path: Path) -> None:
    header = tarfile.TarInfo("huge")
    header.size = 2**60
    path = tmp_path / "layer"
    path.write_bytes(header.tobuf(tarfile.GNU_FORMAT) + bytes(1024))

    with path.open("rb", buffering=0) as file:
        layer = open_decompressed(file, "layer")
        with (
            tarfile.open(fileobj=layer, mode="r|") as archive,
            pytest.raises(ContentError, match="truncated"),
        ):
            archive.getnames()
