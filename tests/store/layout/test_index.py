"""What the index of an image layout may hold, and what its names lead to."""

from __future__ import annotations

from pathlib import Path

import pytest

from concil.errors import InvalidManifest, NotFound, UsageError
from concil.oci.descriptor import Descriptor
from concil.oci.manifest import Digest
from concil.oci.media_types import OCI_MANIFEST
from concil.store.layout.index_file import MAX_INDEX_SIZE
from concil.store.layout.store import LayoutDirectory, LayoutStore
from tests.support.layouts import (
    FULL_NAME,
    NEW,
    OLD,
    REF_NAME,
    entry,
    has_message,
    read_index,
    write_index,
)

# What index.json may hold.


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not JSON",
        b"\xff\xfe",
        b"[" * 100_000,
        b"[]",
        b"{}",
        b'{"manifests": {}}',
        b'{"manifests": [1]}',
        b'{"manifests": [{"digest": "sha256:00"}]}',
    ],
    ids=range(9),
)
def test_broken_index_is_refused_by_name(layout_path: Path, content: bytes) -> None:
    (layout_path / "index.json").write_bytes(content)

    with pytest.raises(InvalidManifest) as excinfo:
        LayoutDirectory(layout_path)

    assert has_message(excinfo.value, "index.json")


@pytest.mark.parametrize(
    "digest", ["sha256:../../../secret", "sha256:" + "A" * 64, "md5:" + "0" * 32, "", None, 7]
)
def test_entry_with_an_impossible_digest_is_refused(layout_path: Path, digest: object) -> None:
    write_index(layout_path, entry(b"good"), entry(b"bad") | {"digest": digest})

    with pytest.raises(InvalidManifest) as excinfo:
        LayoutDirectory(layout_path)

    assert has_message(excinfo.value, "index.json")


def test_entry_with_impossible_fields_is_refused(layout_path: Path) -> None:
    for fields in ({"size": -1}, {"size": True}, {"mediaType": "x\r\ny"}, {"urls": 5}):
        write_index(layout_path, entry(b"bad") | fields)

        with pytest.raises(InvalidManifest):
            LayoutDirectory(layout_path)


def test_index_without_end_is_not_read(layout_path: Path) -> None:
    with (layout_path / "index.json").open("r+b") as file:
        file.truncate(MAX_INDEX_SIZE + 1)

    with pytest.raises(InvalidManifest) as excinfo:
        LayoutDirectory(layout_path)

    assert has_message(excinfo.value, "index.json", "larger")


def test_index_that_breaks_later_is_noticed_and_left_alone(layout_path: Path) -> None:
    layout = LayoutDirectory(layout_path)
    (layout_path / "index.json").write_bytes(b"{")

    with pytest.raises(InvalidManifest):
        layout.entries()
    with pytest.raises(InvalidManifest):
        layout.set_entry("v1", NEW)

    assert (layout_path / "index.json").read_bytes() == b"{"


def test_entry_of_another_process_is_seen(layout_path: Path) -> None:
    layout = LayoutDirectory(layout_path)
    assert layout.entries() == ()

    LayoutDirectory(layout_path).set_entry("v1", NEW)

    assert [found.digest for found in layout.entries()] == [NEW.digest]


# Names.


def test_named_entry_is_found_and_replaced(layout_path: Path) -> None:
    layout = LayoutDirectory(layout_path)
    layout.set_entry("v1", OLD)
    layout.set_entry("v2", OLD)
    layout.set_entry("v1", NEW)

    found = layout.find_entry("v1")
    assert found is not None
    assert found.digest == NEW.digest
    assert list(layout.names()) == ["v1", "v2"]


def test_foreign_fields_are_kept(layout_path: Path) -> None:
    foreign = entry(b"foreign", {"a": "b"}) | {"platform": {"os": "x", "os.version": "1"}, "y": [1]}
    write_index(
        layout_path,
        foreign,
        entry(b"old", {REF_NAME: "v1"}),
        annotations={"k": "v"},
        other={"z": None},
    )

    LayoutDirectory(layout_path).set_entry("v1", NEW)

    after = read_index(layout_path)
    assert after["manifests"][0] == foreign
    assert (after["annotations"], after["other"]) == ({"k": "v"}, {"z": None})
    assert [e["digest"] for e in after["manifests"]] == [foreign["digest"], str(NEW.digest)]


def test_entries_without_name_are_distinguished_by_digest(layout_path: Path) -> None:
    layout = LayoutDirectory(layout_path)
    for descriptor in (OLD, NEW, OLD, NEW):
        layout.set_entry(None, descriptor)

    assert [found.digest for found in layout.entries()] == [OLD.digest, NEW.digest]
    assert list(layout.names()) == []


def test_no_name_means_the_only_image(layout_path: Path) -> None:
    layout = LayoutDirectory(layout_path)
    assert layout.find_entry(None) is None

    layout.set_entry("v1", NEW)
    layout.set_entry("v2", NEW)

    found = layout.find_entry(None)
    assert found is not None
    assert found.digest == NEW.digest


def test_no_name_among_several_images_is_an_error_that_lists_them(layout_path: Path) -> None:
    layout = LayoutDirectory(layout_path)
    layout.set_entry("v1", OLD)
    layout.set_entry("v2", NEW)

    with pytest.raises(UsageError) as excinfo:
        layout.find_entry(None)

    assert has_message(excinfo.value, "v1", "v2")
    assert LayoutStore(layout).find_manifest("") is None
    with pytest.raises(UsageError):
        LayoutStore(layout).get_manifest("")


def test_image_of_containerd_is_found_by_both_its_names(layout_path: Path) -> None:
    write_index(layout_path, entry(b"new", {REF_NAME: "1", FULL_NAME: "example.org/a:1"}))
    layout = LayoutDirectory(layout_path)

    assert layout.find_entry("1") == layout.find_entry("example.org/a:1") != None  # noqa: E711
    assert list(layout.names()) == ["example.org/a:1"]


def test_short_name_shared_by_two_images_of_containerd_is_ambiguous(layout_path: Path) -> None:
    write_index(
        layout_path,
        entry(b"old", {REF_NAME: "1", FULL_NAME: "example.org/a:1"}),
        entry(b"new", {REF_NAME: "1", FULL_NAME: "example.org/b:1"}),
    )
    layout = LayoutDirectory(layout_path)

    with pytest.raises(UsageError) as excinfo:
        layout.find_entry("1")
    assert has_message(excinfo.value, "example.org/a:1", "example.org/b:1")
    assert list(layout.names()) == ["example.org/a:1", "example.org/b:1"]

    layout.set_entry("1", Descriptor(OCI_MANIFEST, Digest.from_bytes(b"own"), 3))

    found = layout.find_entry("1")
    assert found is not None
    assert found.digest == Digest.from_bytes(b"own")
    assert len(layout.entries()) == 3


def test_removed_name_leaves_other_entries_of_its_digest(layout_path: Path) -> None:
    layout = LayoutDirectory(layout_path)
    layout.set_entry("v1", NEW)
    layout.set_entry("v2", NEW)

    layout.remove_entry("v1")

    assert list(layout.names()) == ["v2"]
    with pytest.raises(NotFound):
        layout.remove_entry("v1")


def test_removed_digest_takes_all_its_entries(layout_path: Path) -> None:
    layout = LayoutDirectory(layout_path)
    for name in ("v1", "v2", None):
        layout.set_entry(name, NEW)
    layout.set_entry("v3", OLD)

    assert layout.remove_entries(NEW.digest) == 3
    assert list(layout.names()) == ["v3"]
