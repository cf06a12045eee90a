"""What the other side of an air gap has, and what a layout says that it lacks."""

from __future__ import annotations

from pathlib import Path

import pytest

from concil.oci.descriptor import Descriptor
from concil.oci.manifest import Digest
from concil.oci.media_types import OCI_MANIFEST
from concil.store.airgap.baseline import (
    OMITTED_BLOBS,
    Baseline,
    omitted_blobs,
    read_baseline,
    with_omitted_blobs,
)
from concil.store.airgap.delta_layout import DeltaLayoutStore
from concil.store.airgap.mount_candidates import MountCandidates
from concil.store.layout.store import LayoutDirectory, LayoutStore
from tests.support import store_contract
from tests.support.images import make_image, make_index, write_layout
from tests.support.memory_store import MemoryHost
from tests.support.store_contract import Blob

ENTRY = Descriptor(OCI_MANIFEST, Digest.from_bytes(b"image"), 5)
BLOB = Digest.from_bytes(b"blob")


@pytest.mark.parametrize(
    "note",
    [
        "nonsense",
        "[]",
        '{"x": []}',
        '{"sha256:12": ["a"]}',
        f'{{"{BLOB}": "a"}}',
        f'{{"{BLOB}": ["a"], "{BLOB}": ["b"]}}',
        "\ud800",
        "[" * 100_000,
    ],
)
def test_a_note_without_sense_is_none(note: str) -> None:
    assert omitted_blobs(Descriptor(OCI_MANIFEST, BLOB, 5, annotations={OMITTED_BLOBS: note})) == {}


def test_a_note_is_read_as_it_was_written() -> None:
    note = {BLOB: ("docker.io/library/a", "quay.io/b"), Digest.from_bytes(b"other"): ()}

    assert omitted_blobs(with_omitted_blobs(ENTRY, note)) == note
    assert omitted_blobs(ENTRY) == {}


def test_a_layout_holds_what_its_named_images_lead_to(tmp_path: Path) -> None:
    index, other = make_index([make_image(1), make_image(2)]), make_image(3)
    write_layout(tmp_path / "l", {"quay.io/a/b:1": index, "v1": other})
    layout = LayoutDirectory(tmp_path / "l")
    stray = layout.write_blob(b"stray")
    missing = next(iter(other.all_blobs()))
    layout.remove_blob(Digest.parse(missing))
    layout.remove_blob(Digest.parse(index.children[1].digest))

    held = read_baseline(layout)

    assert held.images == {
        "quay.io/a/b:1": Digest.parse(index.digest),
        "v1": Digest.parse(other.digest),
    }
    wanted = {d for image in (index.children[0], other) for d in image.all_blobs()} - {missing}
    assert {str(digest) for digest in held.blobs} == wanted
    assert stray not in held.blobs
    first = Digest.parse(next(iter(index.children[0].all_blobs())))
    assert held.blobs[first] == ("quay.io/a/b",)


def test_a_blob_is_remembered_with_a_few_of_its_repositories() -> None:
    held = Baseline()

    for number in range(9):
        held.add_image(f"quay.io/a/{number}:1", ENTRY.digest, [BLOB])

    assert held.blobs[BLOB] == ("quay.io/a/0", "quay.io/a/1", "quay.io/a/2")


def test_what_is_held_is_not_written_and_noted_at_the_image(tmp_path: Path) -> None:
    inner = LayoutStore(LayoutDirectory(tmp_path / "l", create=True))
    config, layer = Blob.random(100, 1), Blob.random(2000, 2)
    held = Baseline({"old": ENTRY.digest}, {layer.descriptor.digest: ("quay.io/base",)})
    store = DeltaLayoutStore(inner, held)
    assert store.has_blob(layer.descriptor)
    assert not store.has_blob(config.descriptor)
    found = store.find_manifest("old")
    assert found is not None
    assert found.digest == ENTRY.digest

    store_contract.write(store, config.content, config.descriptor.digest)
    child = store_contract.manifest_of(config, layer)
    inner.put_manifest(child, str(child.digest))  # as an earlier run into it did
    root = store_contract.put_index(store, [child], "new")

    entry = inner.backend.find_entry("new")
    assert entry is not None
    assert entry.digest == root.digest
    assert omitted_blobs(entry) == {layer.descriptor.digest: ("quay.io/base",)}
    assert not inner.has_blob(layer.descriptor)


@pytest.mark.parametrize(
    ("name", "repository", "expected"),
    [
        ("quay.io/team/app:1", "in/team/app", ["in/library/base", "in/x"]),
        ("quay.io/team/app:1", "team/app", ["library/base", "x"]),
        ("quay.io/team/app:1", "in/other", []),
        ("quay.io/team/app:1", "inteam/app", []),
        ("v1", "in/v1", []),
    ],
)
def test_repositories_stand_beside_that_of_the_image(
    tmp_path: Path, name: str, repository: str, expected: list[str]
) -> None:
    layout = LayoutDirectory(tmp_path / "l", create=True)
    there = layout.write_blob(b"there")
    names = ("docker.io/library/base", "quay.io/x", "//")
    layout.set_entry(name, with_omitted_blobs(ENTRY, {BLOB: names, there: names}))
    target = MemoryHost().repository(repository)

    elsewhere = MountCandidates(LayoutStore(layout), name, target)

    assert list(elsewhere.repositories_for(Descriptor("a/b", BLOB, 4))) == expected
    assert list(elsewhere.repositories_for(Descriptor("a/b", there, 5))) == []
