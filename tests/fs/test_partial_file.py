"""A partial file is filled in any order, and appears only when it is whole and right."""

from __future__ import annotations

import os
import random
import stat
import threading
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from concil.config import MIB
from concil.errors import DigestMismatch, SizeMismatch, StoreError
from concil.fs.partial_file import PartialFile
from concil.fs.resume_state import WriterState
from tests.support.store_contract import Blob
from tests.transfer.transfer_setup import WAIT, run_concurrently

BLOB = Blob.random(1000)


def begin(directory: Path, blob: Blob = BLOB, resume: WriterState | None = None) -> PartialFile:
    """Open a partial file for a blob."""
    return PartialFile(
        directory / "final",
        blob.descriptor.digest,
        len(blob.content),
        partial_path=directory / "x.partial",
        resume=resume,
    )


def fill(file: PartialFile, content: bytes, most: int = 300) -> None:
    """Write what nobody has taken."""
    while taken := file.reserve_range(most):
        file.write_at(taken[0], memoryview(content)[slice(*taken)])


def test_a_new_file_is_empty(tmp_path: Path) -> None:
    file = begin(tmp_path)

    assert (file.size, file.bytes_filled, file.is_complete) == (1000, 0, False)
    file.abort()


def test_whole_file_appears_and_its_partial_is_gone(tmp_path: Path) -> None:
    file = begin(tmp_path)
    fill(file, BLOB.content)
    assert file.is_complete
    assert not file.final_path.exists()

    file.commit()

    assert (tmp_path / "final").read_bytes() == BLOB.content
    assert [path.name for path in tmp_path.iterdir()] == ["final"]


def test_empty_blob_is_a_file_too(tmp_path: Path) -> None:
    file = begin(tmp_path, Blob.of(b""))

    assert file.reserve_range(10) is None
    file.commit()

    assert (tmp_path / "final").read_bytes() == b""


@settings(deadline=None, database=None, max_examples=150)
@given(size=st.integers(0, 400), choices=st.randoms(use_true_random=False))
def test_any_order_of_ranges_covers_the_blob_once(
    tmp_path_factory: pytest.TempPathFactory, size: int, choices: random.Random
) -> None:
    blob = Blob.random(size, seed=size)
    directory = tmp_path_factory.mktemp("any")
    file = begin(directory, blob)
    owned: list[tuple[int, int]] = []
    written: list[int] = []

    while file.bytes_filled < size or owned:
        step = choices.random()
        taken = file.reserve_range(choices.randint(1, 90)) if step < 0.4 or not owned else None
        if taken is not None:
            assert not any(taken[0] < stop and start < taken[1] for start, stop in owned)
            owned.append(taken)
            continue
        start, stop = owned.pop(choices.randrange(len(owned)))
        # Like a connection that breaks somewhere: a part is written, the rest given back.
        reached = stop if choices.random() < 0.6 else choices.randint(start, stop)
        file.write_at(start, memoryview(blob.content)[start:reached])
        written += range(start, reached)
        file.release_range(reached, stop)

    assert sorted(written) == list(range(size))
    assert file.reserve_range(1) is None
    file.commit()
    assert (directory / "final").read_bytes() == blob.content


def test_pieces_from_the_end_to_the_beginning_are_hashed_from_the_disk(tmp_path: Path) -> None:
    size = 20 * MIB + 7  # more than a thread hashes before it goes back to its socket
    blob = Blob.random(size)
    file = begin(tmp_path, blob)

    for start in reversed(range(0, size, MIB)):
        file.write_at(start, memoryview(blob.content)[start : start + MIB])
    file.commit()

    assert (tmp_path / "final").read_bytes() == blob.content


@pytest.mark.parametrize("threads", [2, 8])
def test_many_threads_fill_one_file(tmp_path: Path, threads: int) -> None:
    blob = Blob.random(2 * MIB + 333)
    file = begin(tmp_path, blob)
    start_line = threading.Barrier(threads)
    view = memoryview(blob.content)

    def take_part(seed: int) -> None:
        choices = random.Random(seed)
        start_line.wait(WAIT)
        while taken := file.reserve_range(choices.randint(1, 40_000)):
            reached = choices.randint(*taken)
            file.write_at(taken[0], view[taken[0] : reached])
            file.release_range(reached, taken[1])

    run_concurrently(*(partial(take_part, seed) for seed in range(threads)))
    # What a thread gave back after the others had left.
    fill(file, blob.content, MIB)
    file.commit()

    assert (tmp_path / "final").read_bytes() == blob.content


def test_wrong_bytes_stay_invisible_and_a_restart_mends_them(tmp_path: Path) -> None:
    file = begin(tmp_path)
    fill(file, bytes(1000))

    with pytest.raises(DigestMismatch):
        file.commit()
    assert not (tmp_path / "final").exists()
    file.restart()
    assert file.bytes_filled == 0
    fill(file, BLOB.content)
    file.commit()

    assert (tmp_path / "final").read_bytes() == BLOB.content


def test_old_content_under_the_final_name_stays_until_the_new_is_right(tmp_path: Path) -> None:
    (tmp_path / "final").write_bytes(b"old")
    file = begin(tmp_path)
    fill(file, bytes(1000))

    with pytest.raises(DigestMismatch):
        file.commit()
    file.abort()

    assert (tmp_path / "final").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["final"]


def test_missing_bytes_stay_invisible(tmp_path: Path) -> None:
    file = begin(tmp_path)
    file.write_at(0, memoryview(BLOB.content)[:999])

    with pytest.raises(SizeMismatch):
        file.commit()

    assert not (tmp_path / "final").exists()
    file.abort()


def test_file_that_was_truncated_is_an_error(tmp_path: Path) -> None:
    file = begin(tmp_path)
    file.write_at(500, memoryview(BLOB.content)[500:])
    os.truncate(file.path, 600)

    with pytest.raises(StoreError, match="was truncated"):
        file.write_at(0, memoryview(BLOB.content)[:500])
    file.abort()


def test_closed_file_keeps_its_bytes_and_takes_no_more(tmp_path: Path) -> None:
    file = begin(tmp_path)
    file.write_at(0, memoryview(BLOB.content)[:10])

    file.close()
    file.close()
    file.abort()

    with pytest.raises(StoreError):
        file.write_at(10, memoryview(b"x"))
    assert (tmp_path / "x.partial").read_bytes() == BLOB.content[:10]


def test_aborted_file_leaves_nothing_even_if_it_was_gone(tmp_path: Path) -> None:
    file = begin(tmp_path)
    file.path.unlink()

    file.abort()

    assert list(tmp_path.iterdir()) == []


def test_link_under_the_partial_name_is_refused_and_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / "x.partial").symlink_to(victim)

    with pytest.raises(StoreError):
        begin(tmp_path)

    assert victim.read_bytes() == b"precious"


def test_directory_under_the_partial_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.partial").mkdir()

    with pytest.raises(StoreError):
        begin(tmp_path)


def test_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="missing"):
        begin(tmp_path / "missing")


def test_directory_under_the_final_name_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "final").mkdir()
    file = begin(tmp_path)
    fill(file, BLOB.content)

    with pytest.raises(StoreError, match="final"):
        file.commit()

    assert file.path.exists()  # the bytes can still be had
    file.abort()


def test_file_that_is_being_filled_is_left_alone(tmp_path: Path) -> None:
    first, second = begin(tmp_path), begin(tmp_path)
    assert first.path != second.path
    first.write_at(0, memoryview(BLOB.content)[:500])

    fill(second, BLOB.content)
    second.commit()
    fill(first, BLOB.content)
    first.write_at(0, memoryview(BLOB.content))
    first.commit()

    assert (tmp_path / "final").read_bytes() == BLOB.content
    assert [path.name for path in tmp_path.iterdir()] == ["final"]


def test_file_that_a_dead_process_left_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / "x.partial").write_bytes(bytes(5000))

    file = begin(tmp_path)

    assert file.path == tmp_path / "x.partial"
    fill(file, BLOB.content)
    file.commit()
    assert (tmp_path / "final").read_bytes() == BLOB.content


def test_names_that_dead_processes_took_are_swept(tmp_path: Path) -> None:
    left = [tmp_path / "x.partial.71-1", tmp_path / "x.partial.72-10"]
    kept = [tmp_path / name for name in ("x.partial.71-x", "y.partial.71-1", "x.partialX71-1")]
    for path in (*left, *kept):
        path.write_bytes(b"half")
    (tmp_path / "x.partial.73-1").symlink_to(kept[0])

    first = begin(tmp_path)
    second = begin(tmp_path)  # has a name of its own, and is being filled
    third = begin(tmp_path)

    assert not any(path.exists() for path in left)
    assert all(path.read_bytes() == b"half" for path in kept)
    assert len({first.path, second.path, third.path}) == 3
    for file in (first, second, third):
        assert file.path.exists()
        file.abort()


def test_after_a_hundred_names_in_use_it_is_an_error(tmp_path: Path) -> None:
    others = [begin(tmp_path) for _ in range(100)]

    with pytest.raises(StoreError, match="hundred"):
        begin(tmp_path)

    for other in others:
        other.abort()
    assert list(tmp_path.iterdir()) == []


def test_new_file_has_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    file = begin(tmp_path)
    fill(file, BLOB.content)
    file.commit()
    (tmp_path / "ordinary").touch()

    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("final", "ordinary")]

    assert modes[0] == modes[1]


def test_pipe_under_the_partial_name_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.partial")

    with pytest.raises(StoreError, match="regular file"):
        begin(tmp_path)
