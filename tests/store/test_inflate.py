"""Gzip is undone a piece at a time, and within bounds."""

from __future__ import annotations

import gzip

import pytest

from concil.config import MIB
from concil.errors import ContentError
from concil.store.inflate import Inflater
from tests.lab.images import make_blob
from tests.store.layouts import told


def unpacked(packed: bytes, step: int, floor: int = 10 * MIB) -> bytes:
    inflater = Inflater(len(packed), "layer", floor=floor)
    out: list[bytes] = []
    for start in range(0, len(packed), step):
        out += inflater.feed(packed[start : start + step])
    out += inflater.end()
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
