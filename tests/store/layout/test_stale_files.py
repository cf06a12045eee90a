"""Temporary files that killed processes leave in a layout."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import signal
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from concil.fs.nofollow_tree import NoFollowTree
from concil.server import EmbeddedRegistry
from concil.store.layout.store import LayoutDirectory

SPAWN = multiprocessing.get_context("spawn")
NAME = "0123456789abcdef.new"


def write_and_stop(place: Path, told: Connection) -> None:
    """Begin to replace a file, say so when its temporary file is there, and never end."""

    def stop(*_: object) -> None:
        told.send([path.name for path in (place / ".concil").glob("*.new")])
        signal.pause()

    os.fsync = stop  # type: ignore[assignment]
    NoFollowTree(place).replace("index.json", b"never")


def temporary(place: Path) -> list[str]:
    """The temporary files there are."""
    return [path.name for path in (place / ".concil").glob("*.new")]


def test_file_of_a_killed_process_is_removed_and_that_of_a_living_one_is_not(
    layout_path: Path,
) -> None:
    listener, told = SPAWN.Pipe(duplex=False)
    process = SPAWN.Process(target=write_and_stop, args=(layout_path, told))
    process.start()
    told.close()
    assert listener.poll(60)
    left = listener.recv()
    assert len(left) == 1

    LayoutDirectory(layout_path, create=True)
    assert temporary(layout_path) == left

    process.kill()
    process.join()
    LayoutDirectory(layout_path)  # only to read
    assert temporary(layout_path) == left
    LayoutDirectory(layout_path, create=True)
    assert temporary(layout_path) == []


def test_server_removes_it(layout_path: Path) -> None:
    (layout_path / ".concil" / NAME).write_bytes(b"half")

    with EmbeddedRegistry(layout_path):
        assert temporary(layout_path) == []


@pytest.mark.parametrize("name", ["0123456789abcdef.old", "notes.new", "x.new"])
def test_files_of_other_names_stay(layout_path: Path, name: str) -> None:
    (layout_path / ".concil" / name).write_bytes(b"mine")

    LayoutDirectory(layout_path, create=True)

    assert (layout_path / ".concil" / name).exists()


def test_link_of_that_name_stays_and_leads_nowhere(layout_path: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").write_bytes(b"precious")
    (layout_path / ".concil" / NAME).symlink_to(tmp_path / "outside")

    LayoutDirectory(layout_path, create=True)

    assert (tmp_path / "outside").read_bytes() == b"precious"


def test_file_that_is_removed_before_it_is_locked_is_created_again(
    layout_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process sweeps between the making of a temporary file and its lock."""
    flock, swept = fcntl.flock, list[str]()

    def sweep_first(descriptor: int, operation: int) -> None:
        if not swept:
            swept.extend(temporary(layout_path))
            for name in swept:
                (layout_path / ".concil" / name).unlink()
        flock(descriptor, operation)

    monkeypatch.setattr("concil.fs.file_lock.fcntl.flock", sweep_first)
    NoFollowTree(layout_path).replace("new-file", b"content")

    assert len(swept) == 1
    assert (layout_path / "new-file").read_bytes() == b"content"
    assert temporary(layout_path) == []
