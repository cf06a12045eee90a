"""Compressions are undone a piece at a time, and within bounds."""

from __future__ import annotations

import bz2
import gzip
import lzma
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from concil.config import MIB
from concil.errors import ContentError, StoreError
from concil.store.inflate import Inflater
from concil.store.packing import MAGIC_SIZE, packing_of
from tests.lab.images import make_blob
from tests.store.layouts import told

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


def unpacked(packed: bytes, step: int, floor: int = 10 * MIB) -> bytes:
    packing = packing_of(packed[:MAGIC_SIZE])
    assert packing is not None
    inflater = Inflater(len(packed), "layer", packing, floor=floor)
    out: list[bytes] = []
    for start in range(0, len(packed), step):
        out += inflater.feed(packed[start : start + step])
    inflater.end()
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


def test_more_than_is_honest_is_refused() -> None:
    with pytest.raises(ContentError) as caught:
        unpacked(gzip.compress(bytes(2 * MIB)), 1000, floor=MIB)
    assert told(caught.value, "unpacks to more than 1048576 bytes")


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
def test_damaged_streams_are_told_in_a_line(packed: bytes, words: str) -> None:
    with pytest.raises(ContentError) as caught:
        unpacked(packed, 1000)
    assert told(caught.value, words)


@pytest.mark.parametrize("name", PACKERS)
@pytest.mark.parametrize("step", [1, 7, 10_000])
def test_every_compression_is_known_by_its_first_bytes_and_undone(name: str, step: int) -> None:
    content = make_blob(1, 3000) + bytes(3000)
    packed = PACKERS[name](content)

    packing = packing_of(packed[:MAGIC_SIZE])

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
def test_damage_to_every_compression_is_told_in_a_line(name: str) -> None:
    packed = PACKERS[name](make_blob(1, 5000))

    with pytest.raises(ContentError) as cut:
        unpacked(packed[:-1], 1000)
    assert told(cut.value, f"middle of its {name}")
    with pytest.raises(ContentError) as behind:
        unpacked(packed + b"rubbish, and more of it", 1000)
    assert told(behind.value, "damaged")


@pytest.mark.parametrize("name", PACKERS)
def test_a_bomb_of_every_compression_is_refused_early(name: str) -> None:
    packed = PACKERS[name](bytes(50 * MIB))

    with pytest.raises(ContentError) as caught:
        unpacked(packed, 1_000_000, floor=MIB)
    assert told(caught.value, "unpacks to more than")


def test_a_frame_that_is_skipped_may_come_first_and_last() -> None:
    """As pzstd and zstd:chunked write it."""
    skipped = b"\x50\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"abcd"

    assert unpacked(skipped + zstd.compress(b"one") + skipped, 3) == b"one"


def test_a_window_that_needs_gigabytes_is_refused() -> None:
    window_log = 31
    header = b"\x28\xb5\x2f\xfd\x00" + bytes([(window_log - 10) << 3]) + b"\x01\x00\x00"

    with pytest.raises(ContentError) as caught:
        unpacked(header, 1000)
    assert told(caught.value, "damaged")


def test_the_name_of_a_file_in_a_plain_tar_is_no_compression() -> None:
    assert packing_of(b"BZh9.txt\0\0") is None
    assert packing_of(b"BZh") is None


MEASURED = """
import resource, sys
from concil.store.inflate import Inflater
from concil.store.packing import packing_of

packed = open(sys.argv[1], "rb").read()
inflater = Inflater(len(packed), "layer", packing_of(packed[:10]))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for start in range(0, len(packed), 65536):
    for out in inflater.feed(packed[start : start + 65536]):
        pass
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.parametrize("name", PACKERS)
def test_memory_does_not_grow_with_what_comes_out(name: str, tmp_path: Path) -> None:
    (tmp_path / "packed").write_bytes(PACKERS[name](bytes(300 * MIB)))

    done = subprocess.run(
        [sys.executable, "-c", MEASURED, str(tmp_path / "packed")],
        capture_output=True,
        check=True,
    )

    assert int(done.stdout) < 30 * 1024  # KiB


def test_a_python_without_a_compression_says_what_brings_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "compression", None)
    monkeypatch.setitem(sys.modules, "backports", None)
    monkeypatch.setitem(sys.modules, "backports.zstd", None)

    with pytest.raises(StoreError) as caught:
        unpacked(b"\x28\xb5\x2f\xfd" + bytes(20), 1000)

    assert told(caught.value, "packed with zstd", "cannot unpack")
    assert caught.value.remedy == "pip install 'concil[zstd]', or unpack it first"
