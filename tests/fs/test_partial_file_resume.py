"""A partial file goes on with what an earlier process left, as far as that can be."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from concil.errors import DigestMismatch
from concil.fs.resume_state import WriterState
from tests.fs.test_partial_file import BLOB, begin, fill
from tests.support.images import make_blob
from tests.support.scale import at_most
from tests.support.store_contract import Blob


@settings(deadline=None, database=None, max_examples=at_most(100))
@given(
    size=st.integers(1, 400),
    stretches=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 400)), max_size=6),
    there=st.integers(0, 500),
    damage=st.booleans(),
)
def test_whatever_the_journal_says_ends_in_the_blob_or_in_a_mismatch(
    tmp_path_factory: pytest.TempPathFactory,
    size: int,
    stretches: list[tuple[int, int]],
    there: int,
    damage: bool,
) -> None:
    blob = Blob.random(size, seed=size)
    directory = tmp_path_factory.mktemp("journal")
    left = make_blob(1, there) if damage else blob.content[:there]
    (directory / "x.partial").write_bytes(left)
    state = WriterState(str(directory / "x.partial"), 0, 0, tuple(stretches))

    file = begin(directory, blob, state)
    fill(file, blob.content)
    try:
        file.commit()
    except DigestMismatch:
        assert damage
        file.restart()
        fill(file, blob.content)
        file.commit()

    assert (directory / "final").read_bytes() == blob.content


def test_stretches_of_an_earlier_process_are_kept(tmp_path: Path) -> None:
    first = begin(tmp_path)
    for start, stop in ((100, 200), (200, 250), (600, 1000)):
        first.write_at(start, memoryview(BLOB.content)[start:stop])
    state = first.state()
    first.close()

    second = begin(tmp_path, resume=state)

    assert (state.offset, state.ranges) == (550, ((100, 250), (600, 1000)))
    assert second.bytes_filled == 550
    assert [second.reserve_range(1000) for _ in range(3)] == [(0, 100), (250, 600), None]
    for start, stop in ((0, 100), (250, 600)):
        second.write_at(start, memoryview(BLOB.content)[start:stop])
    second.commit()
    assert (tmp_path / "final").read_bytes() == BLOB.content


def test_stretches_that_the_file_has_lost_are_fetched_again(tmp_path: Path) -> None:
    first = begin(tmp_path)
    first.write_at(0, memoryview(BLOB.content))
    state = first.state()
    first.close()
    os.truncate(tmp_path / "x.partial", 300)

    second = begin(tmp_path, resume=state)

    assert second.reserve_range(1000) == (300, 1000)
    second.abort()


@pytest.mark.parametrize("stretches", [(), ((0, 1001),), ((5, 5),), ((-1, 5),)])
def test_state_that_does_not_fit_means_an_empty_file(
    tmp_path: Path, stretches: tuple[tuple[int, int], ...]
) -> None:
    (tmp_path / "x.partial").write_bytes(bytes(900))

    file = begin(tmp_path, resume=WriterState(str(tmp_path / "x.partial"), 0, 0, ranges=stretches))

    assert file.reserve_range(1000) == (0, 1000)
    assert file.path.stat().st_size == 0
    file.abort()


def test_state_of_another_file_means_an_empty_file(tmp_path: Path) -> None:
    file = begin(tmp_path, resume=WriterState("elsewhere", 0, 0, ranges=((0, 10),)))

    assert file.reserve_range(1000) == (0, 1000)
    file.abort()


def test_a_file_under_a_name_of_its_own_is_gone_on_with(tmp_path: Path) -> None:
    other = begin(tmp_path)
    first = begin(tmp_path)
    first.write_at(0, memoryview(BLOB.content)[:600])
    state = first.state()
    first.close()
    other.close()

    second = begin(tmp_path, resume=state)

    assert second.path == first.path != tmp_path / "x.partial"
    assert second.bytes_filled == 600
    fill(second, BLOB.content)
    second.commit()
    assert (tmp_path / "final").read_bytes() == BLOB.content
