"""Changes of a large layout's index that a server logs before it writes the index."""

from __future__ import annotations

import multiprocessing
import os
import signal
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from concil.content import OCI_MANIFEST, Descriptor, Digest
from concil.errors import ConcilError, StoreError
from concil.store import layout_index_file
from concil.store.layout import Layout
from concil.store.layout_change import IndexChange
from concil.store.layout_disk import State, Tree
from tests.store.layouts import NEW, OLD

SPAWN = multiprocessing.get_context("spawn")
WAIT = 60.0  # seconds until a test that hangs is failed


def settle_late() -> None:
    """Let every layout count as large, and its index be written twice in an hour at most."""
    layout_index_file._FEW = 0
    layout_index_file._WAIT = 3600.0


@pytest.fixture(autouse=True)
def _late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do the same in this process."""
    monkeypatch.setattr(layout_index_file, "_FEW", 0)
    monkeypatch.setattr(layout_index_file, "_WAIT", 3600.0)
    monkeypatch.setattr(layout_index_file, "_SHARE", 1e9)


def logs(place: Path) -> list[Path]:
    """The logs there are."""
    return list((place / ".concil").glob("*.log"))


def log_and_wait(place: Path, told: Connection, count: int) -> None:
    """Set some names, tell each when it is on the disk, and never end."""
    settle_late()
    layout_index_file._SHARE = 1e9
    layout = Layout(place).logging()
    for number in range(count):
        layout.set_entry(f"v{number}", Descriptor(OCI_MANIFEST, Digest.of(b"%d" % number), 1))
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


def test_changes_are_in_the_index_when_the_layout_is_closed(place: Path) -> None:
    layout = Layout(place).logging()
    layout.set_entry("first", OLD)  # nothing was written shortly before
    assert set(Layout(place).names()) == {"first"}

    for number in range(20):
        layout.set_entry(f"v{number}", OLD)
    layout.remove_entry("v7")

    assert set(layout.names()) == {"first", *(f"v{n}" for n in range(20) if n != 7)}
    assert set(Layout(place).names()) == {"first"}
    assert len(logs(place)) == 1
    layout.index_file.close()
    assert set(Layout(place).names()) == set(layout.names())
    assert logs(place) == []


def test_what_a_killed_process_has_logged_is_there(place: Path) -> None:
    killed(place)

    layout = Layout(place)

    assert set(layout.names()) == {"v0", "v2", "v3", "v4"}
    assert layout.find("v0") == Layout(place).find("v0")
    found = layout.find("v0")
    assert found is not None
    assert found.digest == NEW.digest
    assert logs(place) == []


def test_a_layout_that_is_open_finds_it_before_it_changes_something(place: Path) -> None:
    layout = Layout(place)
    killed(place)

    layout.remove_entry("v3")

    assert set(Layout(place).names()) == {"v0", "v2", "v4"}


def test_log_of_a_living_process_is_left_alone(place: Path) -> None:
    layout = Layout(place).logging()
    layout.set_entry("first", OLD)
    layout.set_entry("second", OLD)

    Layout(place).set_entry("theirs", NEW)

    assert len(logs(place)) == 1
    layout.index_file.close()
    assert set(Layout(place).names()) == {"first", "second", "theirs"}


def test_line_that_was_not_written_to_its_end_does_not_count(place: Path) -> None:
    killed(place)
    with logs(place)[0].open("ab") as file:
        file.write(IndexChange("torn", OLD).line()[:-9])

    assert set(Layout(place).names()) == {"v0", "v2", "v3", "v4"}


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
def test_log_of_a_stranger_does_no_harm(place: Path, line: bytes) -> None:
    (place / ".concil" / f"{'0' * 16}-00000000.log").write_bytes(line)

    assert list(Layout(place).names()) == []


def test_linked_log_is_not_followed(place: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(IndexChange("a", OLD).line())
    (place / ".concil" / f"{'0' * 16}-00000000.log").symlink_to(outside)

    assert list(Layout(place).names()) == []
    assert outside.exists()


def test_index_that_cannot_be_written_is_written_later(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout, write = Layout(place).logging(), Tree.replace
    layout.set_entry("first", OLD)
    layout.set_entry("second", OLD)

    def refuse(tree: Tree, name: str, content: bytes) -> State:
        if name == "index.json":
            raise StoreError("cannot write: No space left", remedy="free some")
        return write(tree, name, content)

    with monkeypatch.context() as patch:
        patch.setattr(Tree, "replace", refuse)
        layout.index_file.save()
        assert set(layout.names()) == {"first", "second"}
        layout.set_entry("third", OLD)

    layout.index_file.close()
    assert set(Layout(place).names()) == {"first", "second", "third"}
    assert logs(place) == []


def test_layout_that_cannot_be_written_is_read_without_it(
    place: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    Layout(place).set_entry("first", OLD)
    killed(place)

    def refuse(*_: object) -> State:
        raise StoreError("cannot write: Read-only file system", remedy="choose another")

    monkeypatch.setattr(Tree, "replace", refuse)

    assert "first" in set(Layout(place).names())
    (line,) = [record.getMessage() for record in caplog.records]
    assert "killed server" in line
    assert logs(place)


@pytest.mark.parametrize(
    "change", [IndexChange("a", OLD), IndexChange(None, NEW), IndexChange("a"), IndexChange()]
)
def test_change_is_what_its_line_says(change: IndexChange) -> None:
    assert IndexChange.of_line(change.line()) == change


def test_lines_of_other_forms_are_refused() -> None:
    for line in (b"", b"7\n", b'{"entry": []}\n', os.urandom(20)):
        with pytest.raises(ConcilError):
            IndexChange.of_line(line)
