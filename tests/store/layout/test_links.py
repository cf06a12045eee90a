"""Image layouts that were made to lead somewhere else."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from concil.errors import StoreError
from concil.store.layout.store import LayoutDirectory, LayoutStore
from tests.support.layouts import NEW, has_message
from tests.support.store_contract import Blob, put_image, write

_READERS: dict[str, Callable[[Path], object]] = {
    "open": LayoutDirectory,
    "create": lambda place: LayoutDirectory(place, create=True),
}


@pytest.mark.parametrize("reader", _READERS.values(), ids=list(_READERS))
@pytest.mark.parametrize("name", ["index.json", "oci-layout"])
def test_linked_file_is_not_followed(
    layout_path: Path, tmp_path: Path, name: str, reader: Callable[[Path], object]
) -> None:
    (layout_path / name).rename(tmp_path / "outside")
    (layout_path / name).symlink_to(tmp_path / "outside")
    before = (tmp_path / "outside").read_bytes()

    if reader is _READERS["open"] or name == "index.json":
        with pytest.raises(StoreError) as excinfo:
            reader(layout_path)
        assert has_message(excinfo.value, name)
    else:
        reader(layout_path)  # the link is replaced by a file

    assert (tmp_path / "outside").read_bytes() == before


@pytest.mark.parametrize("name", ["blobs", "blobs/sha256", ".concil"])
def test_linked_directory_is_not_followed(layout_path: Path, tmp_path: Path, name: str) -> None:
    store, blob = LayoutStore(LayoutDirectory(layout_path)), Blob.random(10)
    put_image(store, 1, "v1")
    (layout_path / name).rename(tmp_path / "outside")
    (layout_path / name).symlink_to(tmp_path / "outside")
    before = sorted(path for path in (tmp_path / "outside").rglob("*") if path.name != "lock")

    with pytest.raises(StoreError):
        store.begin_blob(10, blob.descriptor.digest)
    with pytest.raises(StoreError):
        store.backend.write_blob(b"content")
    if name != ".concil":
        with pytest.raises(StoreError) as excinfo:
            store.get_manifest("v1")
        assert has_message(excinfo.value, f"{name}'", "a symbolic link")
        with pytest.raises(StoreError):
            store.has_blob(blob.descriptor)

    after = sorted(path for path in (tmp_path / "outside").rglob("*") if path.name != "lock")
    assert after == before


def test_linked_blob_is_neither_read_nor_written_through(layout_path: Path, tmp_path: Path) -> None:
    store, blob = LayoutStore(LayoutDirectory(layout_path)), Blob.random(10)
    outside = tmp_path / "outside"
    outside.write_bytes(blob.content)
    store.backend.blob_path(blob.descriptor.digest).symlink_to(outside)

    assert not store.has_blob(blob.descriptor)
    with pytest.raises(StoreError) as excinfo:
        store.open_blob(blob.descriptor)
    assert has_message(excinfo.value, blob.descriptor.digest.hex)

    outside.write_bytes(b"precious")
    write(store, blob.content, blob.descriptor.digest)
    assert store.has_blob(blob.descriptor)
    assert outside.read_bytes() == b"precious"


def test_linked_lock_and_partial_file_are_not_followed(layout_path: Path, tmp_path: Path) -> None:
    layout, blob = LayoutDirectory(layout_path), Blob.random(10)
    store = LayoutStore(layout)
    outside = tmp_path / "outside"
    outside.write_bytes(b"precious")
    (layout_path / ".concil" / "lock").unlink()
    (layout_path / ".concil" / "lock").symlink_to(outside)
    _, partial = layout.prepare_blob_paths(blob.descriptor.digest)
    partial.symlink_to(outside)

    with pytest.raises(StoreError):
        store.backend.set_entry("v1", NEW)
    with pytest.raises(StoreError):
        store.begin_blob(10, blob.descriptor.digest)

    assert outside.read_bytes() == b"precious"


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["pipe", "directory"])
def test_other_things_in_the_place_of_a_blob_are_refused_at_once(
    layout_path: Path, make: Callable[[Path], None]
) -> None:
    store, blob = LayoutStore(LayoutDirectory(layout_path)), Blob.random(10)
    make(store.backend.blob_path(blob.descriptor.digest))

    assert not store.has_blob(blob.descriptor)
    with pytest.raises(StoreError) as excinfo:
        store.open_blob(blob.descriptor)
    assert has_message(excinfo.value, "not a regular file")


def test_partial_file_with_another_name_elsewhere_is_not_written_to(
    layout_path: Path, tmp_path: Path
) -> None:
    """An archive may hold hard links: what is truncated here would be lost there."""
    layout, blob = LayoutDirectory(layout_path), Blob.random(10)
    store = LayoutStore(layout)
    _, partial = layout.prepare_blob_paths(blob.descriptor.digest)
    (tmp_path / "outside").write_bytes(b"precious")
    os.link(tmp_path / "outside", partial)

    with pytest.raises(StoreError) as excinfo:
        store.begin_blob(10, blob.descriptor.digest)

    assert has_message(excinfo.value, partial.name)
    assert (tmp_path / "outside").read_bytes() == b"precious"


def test_files_with_other_names_elsewhere_are_replaced_and_not_written_to(
    layout_path: Path, tmp_path: Path
) -> None:
    """What is written takes the place of a name; what has the name elsewhere stays."""
    store, blob = LayoutStore(LayoutDirectory(layout_path)), Blob.random(10)
    put_image(store, 1, "v1")
    outside = {}
    for number, name in enumerate(["index.json", ".concil/lock"]):
        os.link(layout_path / name, tmp_path / f"outside-{number}")
        outside[tmp_path / f"outside-{number}"] = (layout_path / name).read_bytes()
    target = store.backend.blob_path(blob.descriptor.digest)
    (tmp_path / "blob").write_bytes(b"precious")
    os.link(tmp_path / "blob", target)

    put_image(store, 2, "v2")
    write(store, blob.content, blob.descriptor.digest)

    assert {path: path.read_bytes() for path in outside} == outside
    assert (tmp_path / "blob").read_bytes() == b"precious"
    assert target.read_bytes() == blob.content
