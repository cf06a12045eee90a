"""An archive that grows beside its place."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from concil.errors import StoreError
from concil.store.archive.tar_builder import TarBuilder
from tests.support.images import make_blob
from tests.support.layouts import has_message

LARGE = 2_500_000  # bytes; more than is moved at once
# Begins an archive, says so, and is killed while it waits.
CHILD = """
import sys
from pathlib import Path
from concil.store.archive.tar_builder import TarBuilder

draft = TarBuilder(Path(sys.argv[1]))
draft.add_file("index.json", b"x" * 100_000)
print("ready", flush=True)
sys.stdin.read()
"""


def contents(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        found = {one.name: tar.extractfile(one) for one in tar.getmembers()}
        return {name: file.read() if file is not None else b"" for name, file in found.items()}


@pytest.fixture
def final(tmp_path: Path) -> Path:
    return tmp_path / "images.tar"


def test_members_grow_at_the_same_time_and_appear_with_the_commit(final: Path) -> None:
    first, second = make_blob(1, LARGE), make_blob(2, 1000)
    draft = TarBuilder(final)
    one, two = draft.reserve("one", len(first)), draft.reserve("two", len(second))
    for start in range(0, LARGE, 500_000):
        draft.write_at(one, start, first[start : start + 500_000])
        draft.write_at(two, start // 2500, second[start // 2500 :][:200])
    one.is_complete = two.is_complete = True
    with draft.open_region(two) as blob:
        assert blob.size == 1000
    assert not final.exists()

    draft.commit()

    assert contents(final) == {"one": first, "two": second}
    assert list(final.parent.iterdir()) == [final]


def test_what_is_not_whole_is_left_out_and_its_room_is_closed(final: Path) -> None:
    large = make_blob(1, LARGE)
    draft = TarBuilder(final)
    lost = [draft.reserve("lost", 700)]
    draft.write_at(lost[0], 0, b"z" * 700)
    draft.add_file("large", large)
    lost.append(draft.reserve("lost too", 10_000_000))
    draft.add_file("small", b"s" * 700)
    draft.add_file("empty", b"")
    lost.append(draft.reserve("last", 5000))
    draft.write_at(lost[2], 0, b"z" * 5000)

    draft.commit()

    assert contents(final) == {"large": large, "small": b"s" * 700, "empty": b""}
    assert final.stat().st_size < LARGE + 30_000
    assert not final.read_bytes()[-1024:].strip(b"\0")


def test_names_and_sizes_that_need_more_than_a_header_are_written(final: Path) -> None:
    name = f"blobs/sha512/{'ab' * 64}"
    draft = TarBuilder(final)
    draft.add_file(name, b"long")
    draft.reserve("nine gigabytes", 9 * 1024**3)

    draft.commit()

    assert contents(final) == {name: b"long"}


def test_an_archive_stays_as_it_was_until_the_next_is_whole(final: Path) -> None:
    final.write_bytes(b"before")
    draft = TarBuilder(final)
    draft.add_file("a", b"1")
    assert final.read_bytes() == b"before"

    draft.abort()

    assert final.read_bytes() == b"before"
    assert list(final.parent.iterdir()) == [final]


def test_a_link_stays_and_leads_to_the_new_archive(final: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    real = tmp_path / "elsewhere" / "real.tar"
    final.symlink_to(real)

    draft = TarBuilder(final)
    draft.add_file("a", b"1")
    draft.commit()

    assert final.is_symlink()
    assert contents(real) == {"a": b"1"}


def test_unwritable_directory_is_an_error_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(StoreError) as excinfo:
        TarBuilder(tmp_path / "missing" / "a.tar")
    assert has_message(excinfo.value, "cannot write", "a.tar")


def test_a_killed_process_leaves_no_archive_and_the_next_sweeps_up(final: Path) -> None:
    command = [sys.executable, "-c", CHILD, str(final)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        (theirs,) = final.parent.iterdir()

        TarBuilder(final).abort()
        assert list(final.parent.iterdir()) == [theirs]  # somebody is at it
        child.kill()
        child.wait()
    assert not final.exists()

    draft = TarBuilder(final)
    draft.add_file("a", b"1")
    draft.commit()

    assert list(final.parent.iterdir()) == [final]
