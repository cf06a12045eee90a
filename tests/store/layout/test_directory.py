"""What the directory of an image layout promises beyond the contract of stores."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from concil.errors import (
    DigestMismatch,
    InvalidDigest,
    InvalidManifest,
    NotFound,
    SizeMismatch,
    StoreError,
    UsageError,
)
from concil.oci.descriptor import Descriptor
from concil.oci.media_types import OCI_INDEX
from concil.store.layout.store import LayoutDirectory, LayoutStore
from tests.support.layouts import NEW, has_message, read_index
from tests.support.store_contract import LAYER, Blob, put_image, write

# The directory.


def test_new_layout_has_the_files_of_the_specification(layout_path: Path) -> None:
    assert json.loads((layout_path / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
    assert read_index(layout_path) == {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}
    assert (layout_path / "blobs" / "sha256").is_dir()


def test_creating_where_a_layout_is_changes_nothing(layout_path: Path) -> None:
    LayoutDirectory(layout_path).set_entry("v1", NEW)
    before = (layout_path / "index.json").read_bytes()

    LayoutDirectory(layout_path, create=True)

    assert (layout_path / "index.json").read_bytes() == before


def test_creation_that_was_interrupted_is_finished_and_keeps_the_index(layout_path: Path) -> None:
    LayoutDirectory(layout_path).set_entry("v1", NEW)
    (layout_path / "oci-layout").unlink()

    assert LayoutDirectory(layout_path, create=True).find_entry("v1") is not None


def test_files_get_the_permissions_of_the_user_and_no_drafts_stay(layout_path: Path) -> None:
    layout = LayoutDirectory(layout_path)
    layout.set_entry("v1", NEW)
    digest = layout.write_blob(b"content")
    plain = layout_path / "plain"
    plain.touch()

    for path in (layout_path / "index.json", layout.blob_path(digest)):
        assert path.stat().st_mode == plain.stat().st_mode
    assert [path.name for path in (layout_path / ".concil").iterdir()] == ["lock"]


def test_directory_reached_through_a_link_is_the_same_realm(
    layout_path: Path, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(layout_path)

    linked, direct = (
        LayoutStore(LayoutDirectory(tmp_path / "link")),
        LayoutStore(LayoutDirectory(layout_path)),
    )

    assert linked.mount_scope == direct.mount_scope == f"oci:{layout_path.resolve()}"
    assert linked.name == f"oci:{tmp_path / 'link'}"


def test_missing_directory_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound) as excinfo:
        LayoutDirectory(tmp_path / "absent")

    assert has_message(excinfo.value, "absent")
    assert not (tmp_path / "absent").exists()


@pytest.mark.parametrize("create", [False, True])
def test_file_in_the_place_of_the_directory_is_refused(tmp_path: Path, create: bool) -> None:
    (tmp_path / "file").write_text("kept")

    with pytest.raises(StoreError) as excinfo:
        LayoutDirectory(tmp_path / "file", create=create)

    assert has_message(excinfo.value, "file")
    assert (tmp_path / "file").read_text() == "kept"


def test_place_where_nothing_can_be_made_is_refused() -> None:
    with pytest.raises(StoreError) as excinfo:
        LayoutDirectory("/proc/self/no-layout-here", create=True)

    assert has_message(excinfo.value, "cannot create", "no-layout-here")


def test_directory_without_an_index_is_no_layout(layout_path: Path) -> None:
    (layout_path / "index.json").unlink()

    with pytest.raises(StoreError) as excinfo:
        LayoutDirectory(layout_path)

    assert has_message(excinfo.value, "not a layout", "index.json")


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"{}", b'{"imageLayoutVersion": 1}', b'{"imageLayoutVersion":"2.0"}'],
)
def test_layout_of_another_version_is_refused(layout_path: Path, content: bytes) -> None:
    (layout_path / "oci-layout").write_bytes(content)

    with pytest.raises(StoreError) as excinfo:
        LayoutDirectory(layout_path)

    assert has_message(excinfo.value)


# Blobs.


def test_blob_that_is_damaged_is_refused_and_written_again(layout_path: Path) -> None:
    layout = LayoutDirectory(layout_path)
    digest = layout.write_blob(b"content")
    layout.blob_path(digest).write_bytes(b"CONTENT")

    with pytest.raises(DigestMismatch) as excinfo:
        layout.read_blob(digest, 100)
    assert has_message(excinfo.value, digest.hex)

    layout.write_blob(b"content")
    assert layout.read_blob(digest, 100) == b"content"


def test_blob_of_another_size_is_refused_by_name(layout_path: Path) -> None:
    store, blob = LayoutStore(LayoutDirectory(layout_path)), Blob.random(100)
    write(store, blob.content, blob.descriptor.digest)

    with pytest.raises(SizeMismatch) as excinfo:
        store.open_blob(Descriptor(LAYER, blob.descriptor.digest, 101))

    assert has_message(excinfo.value, blob.descriptor.digest.hex)


def test_manifest_larger_than_the_limit_is_not_read(layout_path: Path) -> None:
    store = LayoutStore(LayoutDirectory(layout_path), manifest_limit=100)
    manifest = put_image(store, 1, "v1")

    with pytest.raises(InvalidManifest) as excinfo:
        store.get_manifest("v1")

    assert has_message(excinfo.value, manifest.digest.hex)


def test_entry_whose_manifest_is_missing_counts_as_none(layout_path: Path) -> None:
    layout = LayoutDirectory(layout_path)
    layout.set_entry("v1", NEW)
    store = LayoutStore(layout)

    assert store.find_manifest("v1") is None
    with pytest.raises(NotFound) as excinfo:
        store.get_manifest("v1")
    assert has_message(excinfo.value, NEW.digest.hex)


def test_missing_name_lists_the_existing_names(layout_path: Path) -> None:
    store = LayoutStore(LayoutDirectory(layout_path))
    put_image(store, 1, "v1")

    with pytest.raises(NotFound) as excinfo:
        store.get_manifest("v2")

    assert has_message(excinfo.value, "v2")
    assert "v1" in excinfo.value.remedy


def test_layer_is_not_deleted_as_if_it_were_a_manifest(layout_path: Path) -> None:
    store, blob = LayoutStore(LayoutDirectory(layout_path)), Blob.of(b"{}")
    write(store, blob.content, blob.descriptor.digest)

    with pytest.raises(NotFound):
        store.delete_manifest(str(blob.descriptor.digest))

    assert store.has_blob(blob.descriptor)


@pytest.mark.parametrize("reference", ["sha256:short", "sha256:../../../etc/passwd", "sha512:"])
def test_reference_that_begins_like_a_digest_must_be_one(layout_path: Path, reference: str) -> None:
    store = LayoutStore(LayoutDirectory(layout_path))

    for method in (store.find_manifest, store.get_manifest, store.delete_manifest):
        with pytest.raises(InvalidDigest):
            method(reference)


def test_blob_without_digest_cannot_be_begun(layout_path: Path) -> None:
    with pytest.raises(UsageError) as excinfo:
        LayoutStore(LayoutDirectory(layout_path)).begin_blob(5)

    assert has_message(excinfo.value, "digest")
