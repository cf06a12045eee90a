"""Temporary files that killed processes leave in a layout."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import signal
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from concil.server import EmbeddedRegistry
from concil.store.layout import Layout
from concil.store.layout_disk import Tree

SPAWN = multiprocessing.get_context("spawn")
NAME = "0123456789abcdef.new"


def write_and_stop(place: Path, told: Connection) -> None:
    """Begin to replace a file, say so when its temporary file is there, and never end."""

    def stop(*_: object) -> None:
        told.send([path.name for path in (place / ".concil").glob("*.new")])
        signal.pause()

    os.fsync = stop  # type: ignore[assignment]
    Tree(place).replace("index.json", b"never")


def temporary(place: Path) -> list[str]:
    """The temporary files there are."""
    return [path.name for path in (place / ".concil").glob("*.new")]


def test_file_of_a_killed_process_is_removed_and_that_of_a_living_one_is_not(place: Path) -> None:
    listener, told = SPAWN.Pipe(duplex=False)
    process = SPAWN.Process(target=write_and_stop, args=(place, told))
    process.start()
    told.close()
    assert listener.poll(60)
    left = listener.recv()
    assert len(left) == 1

    Layout(place, create=True)
    assert temporary(place) == left

    process.kill()
    process.join()
    Layout(place)  # only to read
    assert temporary(place) == left
    Layout(place, create=True)
    assert temporary(place) == []


def test_server_removes_it(place: Path) -> None:
    (place / ".concil" / NAME).write_bytes(b"half")

    with EmbeddedRegistry(place):
        assert temporary(place) == []


@pytest.mark.parametrize("name", ["0123456789abcdef.old", "notes.new", "x.new"])
def test_files_of_other_names_stay(place: Path, name: str) -> None:
    (place / ".concil" / name).write_bytes(b"mine")

    Layout(place, create=True)

    assert (place / ".concil" / name).exists()


def test_link_of_that_name_stays_and_leads_nowhere(place: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").write_bytes(b"precious")
    (place / ".concil" / NAME).symlink_to(tmp_path / "outside")

    Layout(place, create=True)

    assert (tmp_path / "outside").read_bytes() == b"precious"


def test_file_that_is_taken_before_it_is_locked_is_made_anew(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process sweeps between the making of a temporary file and its lock."""
    flock, swept = fcntl.flock, list[str]()

    def sweep_first(descriptor: int, operation: int) -> None:
        if not swept:
            swept.extend(temporary(place))
            for name in swept:
                (place / ".concil" / name).unlink()
        flock(descriptor, operation)

    monkeypatch.setattr("concil.fs.file_lock.fcntl.flock", sweep_first)
    Tree(place).replace("new-file", b"content")

    assert len(swept) == 1
    assert (place / "new-file").read_bytes() == b"content"
    assert temporary(place) == []
