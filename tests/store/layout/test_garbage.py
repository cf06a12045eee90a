"""Garbage collection of a layout removes what nothing names, and nothing else."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from concil import Engine, Journal, MirrorItem
from concil.errors import NotFound, StoreError
from concil.server import EmbeddedRegistry
from concil.store.layout.directory import LayoutDirectory
from concil.store.layout.garbage import GarbageReport, collect_garbage
from concil.store.layout.usage_lock import UsageLock
from tests.support.images import (
    Image,
    assert_same_image,
    make_image,
    make_index,
    put_blob,
    put_image,
    write_layout,
)

WAIT = 30  # seconds until a test that hangs is failed
IMAGE = make_image(1)
INDEX = make_index(
    [make_image(n, (700,), platform=f"linux/{name}") for n, name in ((2, "amd64"), (3, "arm64"))]
)
NESTED = make_index([INDEX, make_image(4)])


def digests(*images: Image) -> set[str]:
    manifests = {each.digest for image in images for each in image.walk()}
    return manifests.union(*(image.all_blobs() for image in images))


def files(layout: Path) -> set[str]:
    return {f"sha256:{path.name}" for path in (layout / "blobs/sha256").iterdir()}


def forget(layout: Path, *tags: str) -> None:
    """Remove entries of the index, as a program that knows no garbage does."""
    path = layout / "index.json"
    document = json.loads(path.read_bytes())
    document["manifests"] = [
        entry
        for entry in document["manifests"]
        if entry["annotations"]["org.opencontainers.image.ref.name"] not in tags
    ]
    path.write_text(json.dumps(document))


def collect(layout: Path, *, dry_run: bool = False, min_age: float = 0) -> GarbageReport:
    return collect_garbage(LayoutDirectory(layout), dry_run=dry_run, min_age=min_age)


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    write_layout(tmp_path / "layout", {"image": IMAGE, "nested": NESTED})
    return tmp_path / "layout"


def test_a_layout_without_garbage_is_unchanged(layout: Path) -> None:
    report = collect(layout)

    assert (report.garbage, report.needed_count) == ([], len(digests(IMAGE, NESTED)))
    assert files(layout) == digests(IMAGE, NESTED)


@pytest.mark.parametrize(("tag", "rest"), [("image", NESTED), ("nested", IMAGE)])
def test_what_no_entry_needs_is_removed(layout: Path, tag: str, rest: Image) -> None:
    forget(layout, tag)

    report = collect(layout)

    assert files(layout) == digests(rest)
    gone = digests(IMAGE, NESTED) - digests(rest)
    assert {str(each.digest) for each in report.garbage} == gone
    assert report.size > 0


def test_shared_blobs_are_kept(tmp_path: Path) -> None:
    other = make_index([IMAGE])
    write_layout(tmp_path / "layout", {"image": IMAGE, "other": other})
    forget(tmp_path / "layout", "image")

    assert collect(tmp_path / "layout").garbage == []


def test_a_dry_run_removes_nothing(layout: Path) -> None:
    forget(layout, "image")

    report = collect(layout, dry_run=True)

    assert {str(each.digest) for each in report.garbage} == digests(IMAGE)
    assert files(layout) == digests(IMAGE, NESTED)


def test_the_largest_garbage_comes_first(layout: Path) -> None:
    forget(layout, "image")

    sizes = [each.size for each in collect(layout, dry_run=True).garbage]

    assert sizes == sorted(sizes, reverse=True)


def test_a_recent_file_is_kept(layout: Path) -> None:
    forget(layout, "image")

    report = collect(layout, min_age=3600)

    assert report.garbage == []
    assert {str(each.digest) for each in report.recent} == digests(IMAGE)
    assert files(layout) == digests(IMAGE, NESTED)


def test_files_of_other_names_are_kept(layout: Path) -> None:
    others = [layout / "blobs/sha256/notes.txt", layout / "blobs/sha256" / ("a" * 63)]
    for path in others:
        path.write_text("mine")
    (layout / "blobs/sha256" / ("b" * 64)).symlink_to("notes.txt")
    (layout / "blobs/md5").mkdir()
    forget(layout, "image")

    collect(layout)

    assert all(path.exists() for path in others)
    assert (layout / "blobs/sha256" / ("b" * 64)).is_symlink()
    assert (layout / "blobs/md5").is_dir()


def test_an_entry_of_another_type_is_kept_and_not_read(layout: Path) -> None:
    path = layout / "index.json"
    document = json.loads(path.read_bytes())
    layer = next(iter(IMAGE.blobs))
    document["manifests"] = [
        {"mediaType": "application/octet-stream", "digest": layer, "size": len(IMAGE.blobs[layer])}
    ]
    path.write_text(json.dumps(document))

    collect(layout)

    assert files(layout) == {layer}


def test_a_signature_does_not_keep_its_image(layout: Path, tmp_path: Path) -> None:
    signature = make_image(9, (100,), subject=IMAGE)
    write_layout(tmp_path / "signed", {"image": IMAGE, "signature": signature})
    forget(tmp_path / "signed", "image")

    collect(tmp_path / "signed")

    assert files(tmp_path / "signed") == digests(signature)


def test_a_missing_platform_is_no_obstacle(layout: Path) -> None:
    child = INDEX.children[1]
    (layout / "blobs" / child.digest.replace(":", "/")).unlink()
    forget(layout, "image")

    collect(layout)

    kept = digests(NESTED) - digests(child)
    assert kept <= files(layout)


@pytest.mark.parametrize("damage", [b"", b"{}", b"not json"])
def test_a_damaged_manifest_stops_it(layout: Path, damage: bytes) -> None:
    (layout / "blobs" / INDEX.digest.replace(":", "/")).write_bytes(damage)
    forget(layout, "image")
    before = files(layout)

    with pytest.raises(StoreError, match=f"what {INDEX.digest} needs is unknown"):
        collect(layout)

    assert files(layout) == before


def test_a_layout_without_index_is_refused_by_name(layout: Path) -> None:
    (layout / "index.json").unlink()

    with pytest.raises(StoreError, match=r"layout/index\.json"):
        collect(layout)
    with pytest.raises(NotFound, match="no layout at"):
        collect(layout / "none")


# Other writers -------------------------------------------------------------------------


@pytest.fixture
def engine() -> Iterator[Engine]:
    with Engine(journal=Journal(None)) as engine:
        yield engine


def test_nothing_is_removed_while_something_writes(layout: Path) -> None:
    forget(layout, "image")

    with (
        UsageLock.shared(layout),
        UsageLock.shared(layout),
        pytest.raises(StoreError, match="is being written to, or served"),
    ):
        collect(layout)

    assert files(layout) == digests(IMAGE, NESTED)
    collect(layout)
    assert files(layout) == digests(NESTED)


def test_a_dry_run_does_not_wait(layout: Path) -> None:
    with UsageLock.shared(layout):
        assert collect(layout, dry_run=True).garbage == []


def test_a_writer_waits_for_the_collection(layout: Path) -> None:
    is_shared = threading.Event()

    def share() -> None:
        with UsageLock.shared(layout):
            is_shared.set()

    with UsageLock.exclusive(layout):
        thread = threading.Thread(target=share)
        thread.start()
        assert not is_shared.is_set()
    thread.join(WAIT)

    assert is_shared.is_set()


@pytest.mark.parametrize("call", ["copy", "mirror", "check"])
def test_the_engine_keeps_the_collection_away_while_it_writes(
    engine: Engine, layout: Path, tmp_path: Path, call: str
) -> None:
    errors: list[str] = []
    write_layout(tmp_path / "source", {"image": IMAGE})
    item = MirrorItem(f"oci:{tmp_path}/source:image", f"oci:{layout}:copied")

    def try_to_collect(*_: object) -> None:
        with pytest.raises(StoreError) as caught:
            collect(layout)
        errors.append(str(caught.value))

    calls: dict[str, Callable[[Engine], object]] = {
        "copy": lambda engine: engine.copy(item.source, item.destination),
        "mirror": lambda engine: engine.mirror([item]),
        "check": lambda engine: engine.check([item], repair=True),
    }
    with Engine(journal=Journal(None), progress=try_to_collect) as watched:
        calls[call](watched)

    assert errors
    assert all("is being written to" in error for error in errors)
    assert collect(layout).garbage == []  # released with the end of the call


def test_the_lock_ends_with_the_call_not_with_the_engine(
    engine: Engine, layout: Path, tmp_path: Path
) -> None:
    write_layout(tmp_path / "source", {"image": IMAGE})
    engine.copy(f"oci:{tmp_path}/source:image", f"oci:{layout}:copied")

    report = engine.collect_garbage(f"oci:{layout}", dry_run=False)

    assert report.garbage == []


def test_single_items_keep_the_collection_away_until_the_engine_ends(
    layout: Path, tmp_path: Path
) -> None:
    write_layout(tmp_path / "source", {"image": IMAGE})
    with Engine(journal=Journal(None)) as engine:
        engine.copy_item(MirrorItem(f"oci:{tmp_path}/source:image", f"oci:{layout}:copied"))
        with pytest.raises(StoreError, match="is being written to"):
            collect(layout)

    collect(layout)


def test_a_forked_child_does_not_keep_the_lock(layout: Path) -> None:
    lock = UsageLock.shared(layout)
    (of_child, to_parent), (of_parent, to_child) = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        os.close(to_child)
        os.write(to_parent, b"forked")
        os.read(of_parent, 1)  # until the parent closes its end
        os._exit(0)
    try:
        assert os.read(of_child, 6) == b"forked"
        lock.close()

        collect(layout)
    finally:
        for descriptor in (of_child, to_parent, of_parent, to_child):
            os.close(descriptor)
        os.waitpid(child, 0)


# Layouts that were served --------------------------------------------------------------


def test_nothing_is_removed_while_the_layout_is_served(layout: Path) -> None:
    with EmbeddedRegistry(layout), pytest.raises(StoreError, match="served"):
        collect(layout)

    collect(layout)


def test_untagged_manifests_of_a_served_layout_are_kept(tmp_path: Path) -> None:
    directory = tmp_path / "served"
    with EmbeddedRegistry(directory) as registry:
        put_image(registry.url, "team/app", "v1", IMAGE)
        put_image(registry.url, "team/app", "v1", NESTED)
        orphan = put_blob(registry.url, "team/app", b"nothing needs me")

    report = collect(directory)

    assert [str(each.digest) for each in report.garbage] == [orphan]
    with EmbeddedRegistry(directory) as registry:
        assert_same_image(registry.url, "team/app", "v1", NESTED)
        found = requests.get(f"{registry.url}/v2/team/app/manifests/{IMAGE.digest}", timeout=WAIT)
        assert found.content == IMAGE.manifest
        gone = requests.head(f"{registry.url}/v2/team/app/blobs/{orphan}", timeout=WAIT)
        assert gone.status_code == 404
        put_blob(registry.url, "team/app", b"nothing needs me")
    assert orphan in files(directory)
    shutil.rmtree(directory)
