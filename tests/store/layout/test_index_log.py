"""Changes of a large layout's index that a server logs before it writes the index."""

from __future__ import annotations

import multiprocessing
import os
import signal
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from concil.errors import ConcilError, StoreError
from concil.fs.nofollow_tree import NoFollowTree, StatSignature
from concil.oci.descriptor import Descriptor
from concil.oci.manifest import Digest
from concil.oci.media_types import OCI_MANIFEST
from concil.store.layout import index_file
from concil.store.layout.index_change import IndexChange
from concil.store.layout.store import LayoutDirectory
from tests.support.layouts import NEW, OLD

SPAWN = multiprocessing.get_context("spawn")
WAIT = 60.0  # seconds until a test that hangs is failed


def settle_late() -> None:
    """Let every layout count as large, and its index be written twice in an hour at most."""
    index_file._FEW = 0
    index_file._WAIT = 3600.0


@pytest.fixture(autouse=True)
def _late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do the same in this process."""
    monkeypatch.setattr(index_file, "_FEW", 0)
    monkeypatch.setattr(index_file, "_WAIT", 3600.0)
    monkeypatch.setattr(index_file, "_SHARE", 1e9)


def logs(place: Path) -> list[Path]:
    """The logs there are."""
    return list((place / ".concil").glob("*.log"))


def log_and_wait(place: Path, told: Connection, count: int) -> None:
    """Set some names, tell each when it is on the disk, and never end."""
    settle_late()
    index_file._SHARE = 1e9
    layout = LayoutDirectory(place).logging()
    for number in range(count):
        layout.set_entry(
            f"v{number}", Descriptor(OCI_MANIFEST, Digest.from_bytes(b"%d" % number), 1)
        )
        told.send(f"v{number}")
    layout.set_entry("v0", NEW)
    layout.remove_entry("v1")
    told.send("end")
    signal.pause()


def killed(place: Path, count: int = 5) -> None:
    """Leave the log of a process that was killed after it had told all of its changes."""
    listener, told = SPAWN.Pipe(duplex=False)
    process = SPAWN.Process(target=log_and_wait, args=(place, told, count))
    process.start()
    told.close()
    for name in (*(f"v{number}" for number in range(count)), "end"):
        assert listener.poll(WAIT)
        assert listener.recv() == name
    process.kill()
    process.join()
    assert logs(place)


def test_changes_are_in_the_index_when_the_layout_is_closed(layout_path: Path) -> None:
    layout = LayoutDirectory(layout_path).logging()
    layout.set_entry("first", OLD)  # nothing was written shortly before
    assert set(LayoutDirectory(layout_path).names()) == {"first"}

    for number in range(20):
        layout.set_entry(f"v{number}", OLD)
    layout.remove_entry("v7")

    assert set(layout.names()) == {"first", *(f"v{n}" for n in range(20) if n != 7)}
    assert set(LayoutDirectory(layout_path).names()) == {"first"}
    assert len(logs(layout_path)) == 1
    layout.index_file.close()
    assert set(LayoutDirectory(layout_path).names()) == set(layout.names())
    assert logs(layout_path) == []


def test_changes_logged_by_a_killed_process_are_applied(layout_path: Path) -> None:
    killed(layout_path)

    layout = LayoutDirectory(layout_path)

    assert set(layout.names()) == {"v0", "v2", "v3", "v4"}
    assert layout.find_entry("v0") == LayoutDirectory(layout_path).find_entry("v0")
    found = layout.find_entry("v0")
    assert found is not None
    assert found.digest == NEW.digest
    assert logs(layout_path) == []


def test_a_layout_that_is_open_finds_it_before_it_changes_something(layout_path: Path) -> None:
    layout = LayoutDirectory(layout_path)
    killed(layout_path)

    layout.remove_entry("v3")

    assert set(LayoutDirectory(layout_path).names()) == {"v0", "v2", "v4"}


def test_log_of_a_living_process_is_left_alone(layout_path: Path) -> None:
    layout = LayoutDirectory(layout_path).logging()
    layout.set_entry("first", OLD)
    layout.set_entry("second", OLD)

    LayoutDirectory(layout_path).set_entry("theirs", NEW)

    assert len(logs(layout_path)) == 1
    layout.index_file.close()
    assert set(LayoutDirectory(layout_path).names()) == {"first", "second", "theirs"}


def test_line_that_was_not_written_to_its_end_does_not_count(layout_path: Path) -> None:
    killed(layout_path)
    with logs(layout_path)[0].open("ab") as file:
        file.write(IndexChange("torn", OLD).line()[:-9])

    assert set(LayoutDirectory(layout_path).names()) == {"v0", "v2", "v3", "v4"}


@pytest.mark.parametrize(
    "line",
    [
        b"\x00" * 100,
        b"[]\n",
        b'{"name": 7}\n',
        b'{"name": "a", "entry": {"digest": "sha256:../../x"}}\n',
        b'{"digest": "sha256:zz"}\n',
        b"{}\n",
    ],
)
def test_invalid_log_is_ignored(layout_path: Path, line: bytes) -> None:
    (layout_path / ".concil" / f"{'0' * 16}-00000000.log").write_bytes(line)

    assert list(LayoutDirectory(layout_path).names()) == []


def test_linked_log_is_not_followed(layout_path: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(IndexChange("a", OLD).line())
    (layout_path / ".concil" / f"{'0' * 16}-00000000.log").symlink_to(outside)

    assert list(LayoutDirectory(layout_path).names()) == []
    assert outside.exists()


def test_index_that_cannot_be_written_is_written_later(
    layout_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout, write = LayoutDirectory(layout_path).logging(), NoFollowTree.replace
    layout.set_entry("first", OLD)
    layout.set_entry("second", OLD)

    def refuse(tree: NoFollowTree, name: str, content: bytes) -> StatSignature:
        if name == "index.json":
            raise StoreError("cannot write: No space left", remedy="free some")
        return write(tree, name, content)

    with monkeypatch.context() as patch:
        patch.setattr(NoFollowTree, "replace", refuse)
        layout.index_file.save()
        assert set(layout.names()) == {"first", "second"}
        layout.set_entry("third", OLD)

    layout.index_file.close()
    assert set(LayoutDirectory(layout_path).names()) == {"first", "second", "third"}
    assert logs(layout_path) == []


def test_layout_that_cannot_be_written_is_read_without_it(
    layout_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    LayoutDirectory(layout_path).set_entry("first", OLD)
    killed(layout_path)

    def refuse(*_: object) -> StatSignature:
        raise StoreError("cannot write: Read-only file system", remedy="choose another")

    monkeypatch.setattr(NoFollowTree, "replace", refuse)

    assert "first" in set(LayoutDirectory(layout_path).names())
    (line,) = [record.getMessage() for record in caplog.records]
    assert "killed server" in line
    assert logs(layout_path)


@pytest.mark.parametrize(
    "change", [IndexChange("a", OLD), IndexChange(None, NEW), IndexChange("a"), IndexChange()]
)
def test_change_is_what_its_line_says(change: IndexChange) -> None:
    assert IndexChange.of_line(change.line()) == change


def test_lines_of_other_forms_are_refused() -> None:
    for line in (b"", b"7\n", b'{"entry": []}\n', os.urandom(20)):
        with pytest.raises(ConcilError):
            IndexChange.of_line(line)
