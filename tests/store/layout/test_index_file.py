"""Changes of a layout's index that are written later, together with others."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from concil.errors import NotFound
from concil.oci.manifest import Digest
from concil.store.layout import index_file
from concil.store.layout.store import LayoutDirectory
from tests.support.layouts import NEW, OLD

WAIT = 60.0  # seconds until a test that hangs is failed


@pytest.fixture
def late(layout_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LayoutDirectory]:
    """Return a layout whose index is not written before `save`."""
    monkeypatch.setattr(index_file, "_WAIT", 10 * WAIT)
    layout = LayoutDirectory(layout_path).deferring()
    yield layout
    layout.index_file.close()


def test_deferred_changes_are_seen_here_at_once_and_by_others_later(
    layout_path: Path, late: LayoutDirectory
) -> None:
    late.set_entry("v1", OLD)

    assert late.find_entry("v1") is not None
    assert LayoutDirectory(layout_path).find_entry("v1") is None

    late.index_file.save()
    assert LayoutDirectory(layout_path).find_entry("v1") is not None


def test_deferred_removal_is_written_with_the_rest(
    layout_path: Path, late: LayoutDirectory
) -> None:
    LayoutDirectory(layout_path).set_entry("old", OLD)
    late.remove_entry("old")
    with pytest.raises(NotFound):
        late.remove_entry("old")
    late.set_entry("new", NEW)
    assert set(LayoutDirectory(layout_path).names()) == {"old"}

    late.index_file.save()

    assert set(LayoutDirectory(layout_path).names()) == {"new"}


def test_a_change_at_once_writes_what_is_deferred(layout_path: Path, late: LayoutDirectory) -> None:
    late.set_entry("v1", OLD)
    number = late.index_file.last
    assert not late.index_file.is_written(number)

    LayoutDirectory(layout_path).set_entry("theirs", OLD)
    late.index_file.change(lambda index: index.set_entry("now", NEW))

    assert late.index_file.is_written(number)
    assert set(LayoutDirectory(layout_path).names()) == {"v1", "now", "theirs"}


def test_writes_wait_longer_where_they_take_long(
    layout_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_file, "_WAIT", 0.0)
    monkeypatch.setattr(index_file, "_SHARE", 1e9)
    layout, saved = LayoutDirectory(layout_path).deferring(), threading.Event()
    layout.index_file.add_listener(saved.set)

    layout.set_entry("v1", OLD)
    assert saved.wait(WAIT)
    for number in range(100):
        layout.set_entry(f"later{number}", OLD)

    assert set(LayoutDirectory(layout_path).names()) == {"v1"}
    layout.index_file.close()
    assert len(set(LayoutDirectory(layout_path).names())) == 101


def test_edits_since_a_mark_or_all_entries_if_there_are_too_many(
    late: LayoutDirectory,
) -> None:
    found = late.edits_since(None)
    assert found.anew
    late.set_entry("v1", OLD)
    late.set_entry("v1", NEW)
    late.remove_entry("v1")

    found = late.edits_since(found.mark)
    assert not found.anew
    assert [(len(gone), came and came.digest) for gone, came in found.edits] == [
        (0, OLD.digest),
        (1, NEW.digest),
        (1, None),
    ]
    assert late.edits_since(found.mark).edits == []
    for number in range(2000):
        late.set_entry(f"v{number}", OLD)
    found = late.edits_since(found.mark)
    assert found.anew
    assert len(found.edits) == 2000


def test_entry_in_the_middle_keeps_its_place(late: LayoutDirectory) -> None:
    for name in "abc":
        late.set_entry(name, OLD)
    late.set_entry("b", NEW)

    assert list(late.names()) == ["a", "b", "c"]
    assert late.entry_of(NEW.digest) == late.find_entry("b")
    assert late.entry_of(Digest.from_bytes(b"nothing")) is None
