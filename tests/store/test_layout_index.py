"""What the index of an image layout may hold, and what its names lead to."""

from __future__ import annotations

from pathlib import Path

import pytest

from concil.content import OCI_MANIFEST, Descriptor, Digest
from concil.errors import (
    InvalidManifest,
    NotFound,
    UsageError,
)
from concil.store.layout import Layout, LayoutStore
from concil.store.layout_index_file import INDEX_LIMIT
from tests.store.layouts import FULL_NAME, NEW, OLD, REF_NAME, entry, read_index, told, write_index

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
def test_broken_index_is_refused_by_name(place: Path, content: bytes) -> None:
    (place / "index.json").write_bytes(content)

    with pytest.raises(InvalidManifest) as caught:
        Layout(place)

    assert told(caught.value, "index.json")


@pytest.mark.parametrize(
    "digest", ["sha256:../../../secret", "sha256:" + "A" * 64, "md5:" + "0" * 32, "", None, 7]
)
def test_entry_with_an_impossible_digest_is_refused(place: Path, digest: object) -> None:
    write_index(place, entry(b"good"), entry(b"bad") | {"digest": digest})

    with pytest.raises(InvalidManifest) as caught:
        Layout(place)

    assert told(caught.value, "index.json")


def test_entry_with_impossible_fields_is_refused(place: Path) -> None:
    for fields in ({"size": -1}, {"size": True}, {"mediaType": "x\r\ny"}, {"urls": 5}):
        write_index(place, entry(b"bad") | fields)

        with pytest.raises(InvalidManifest):
            Layout(place)


def test_index_without_end_is_not_read(place: Path) -> None:
    with (place / "index.json").open("r+b") as file:
        file.truncate(INDEX_LIMIT + 1)

    with pytest.raises(InvalidManifest) as caught:
        Layout(place)

    assert told(caught.value, "index.json", "larger")


def test_index_that_breaks_later_is_noticed_and_left_alone(place: Path) -> None:
    layout = Layout(place)
    (place / "index.json").write_bytes(b"{")

    with pytest.raises(InvalidManifest):
        layout.entries()
    with pytest.raises(InvalidManifest):
        layout.set_entry("v1", NEW)

    assert (place / "index.json").read_bytes() == b"{"


def test_entry_of_another_process_is_seen(place: Path) -> None:
    layout = Layout(place)
    assert layout.entries() == ()

    Layout(place).set_entry("v1", NEW)

    assert [found.digest for found in layout.entries()] == [NEW.digest]


# Names.


def test_named_entry_is_found_and_replaced(place: Path) -> None:
    layout = Layout(place)
    layout.set_entry("v1", OLD)
    layout.set_entry("v2", OLD)
    layout.set_entry("v1", NEW)

    found = layout.find("v1")
    assert found is not None
    assert found.digest == NEW.digest
    assert list(layout.names()) == ["v1", "v2"]


def test_foreign_fields_are_kept(place: Path) -> None:
    foreign = entry(b"foreign", {"a": "b"}) | {"platform": {"os": "x", "os.version": "1"}, "y": [1]}
    write_index(
        place, foreign, entry(b"old", {REF_NAME: "v1"}), annotations={"k": "v"}, other={"z": None}
    )

    Layout(place).set_entry("v1", NEW)

    after = read_index(place)
    assert after["manifests"][0] == foreign
    assert (after["annotations"], after["other"]) == ({"k": "v"}, {"z": None})
    assert [e["digest"] for e in after["manifests"]] == [foreign["digest"], str(NEW.digest)]


def test_entries_without_name_are_told_apart_by_digest(place: Path) -> None:
    layout = Layout(place)
    for descriptor in (OLD, NEW, OLD, NEW):
        layout.set_entry(None, descriptor)

    assert [found.digest for found in layout.entries()] == [OLD.digest, NEW.digest]
    assert list(layout.names()) == []


def test_no_name_means_the_only_image(place: Path) -> None:
    layout = Layout(place)
    assert layout.find(None) is None

    layout.set_entry("v1", NEW)
    layout.set_entry("v2", NEW)

    found = layout.find(None)
    assert found is not None
    assert found.digest == NEW.digest


def test_no_name_among_several_images_is_an_error_that_lists_them(place: Path) -> None:
    layout = Layout(place)
    layout.set_entry("v1", OLD)
    layout.set_entry("v2", NEW)

    with pytest.raises(UsageError) as caught:
        layout.find(None)

    assert told(caught.value, "v1", "v2")
    assert LayoutStore(layout).find_manifest("") is None
    with pytest.raises(UsageError):
        LayoutStore(layout).get_manifest("")


def test_image_of_containerd_is_found_by_both_its_names(place: Path) -> None:
    write_index(place, entry(b"new", {REF_NAME: "1", FULL_NAME: "example.org/a:1"}))
    layout = Layout(place)

    assert layout.find("1") == layout.find("example.org/a:1") != None  # noqa: E711
    assert list(layout.names()) == ["example.org/a:1"]


def test_short_name_shared_by_two_images_of_containerd_is_ambiguous(place: Path) -> None:
    write_index(
        place,
        entry(b"old", {REF_NAME: "1", FULL_NAME: "example.org/a:1"}),
        entry(b"new", {REF_NAME: "1", FULL_NAME: "example.org/b:1"}),
    )
    layout = Layout(place)

    with pytest.raises(UsageError) as caught:
        layout.find("1")
    assert told(caught.value, "example.org/a:1", "example.org/b:1")
    assert list(layout.names()) == ["example.org/a:1", "example.org/b:1"]

    layout.set_entry("1", Descriptor(OCI_MANIFEST, Digest.of(b"own"), 3))

    found = layout.find("1")
    assert found is not None
    assert found.digest == Digest.of(b"own")
    assert len(layout.entries()) == 3


def test_removed_name_leaves_other_entries_of_its_digest(place: Path) -> None:
    layout = Layout(place)
    layout.set_entry("v1", NEW)
    layout.set_entry("v2", NEW)

    layout.remove_entry("v1")

    assert list(layout.names()) == ["v2"]
    with pytest.raises(NotFound):
        layout.remove_entry("v1")


def test_removed_digest_takes_all_its_entries(place: Path) -> None:
    layout = Layout(place)
    for name in ("v1", "v2", None):
        layout.set_entry(name, NEW)
    layout.set_entry("v3", OLD)

    assert layout.remove_digest(NEW.digest) == 3
    assert list(layout.names()) == ["v3"]
