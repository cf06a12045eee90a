"""Image layouts that several threads, processes and programs work on."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from concil.errors import StoreError
from concil.fs.nofollow_tree import NoFollowTree
from concil.oci.descriptor import Descriptor
from concil.oci.manifest import Digest
from concil.oci.media_types import OCI_MANIFEST
from concil.store.layout.store import LayoutDirectory, LayoutStore
from tests.support import images
from tests.support.skopeo import Skopeo
from tests.support.store_contract import read, write

SPAWN = multiprocessing.get_context("spawn")


def add_names(place: Path, who: str, count: int) -> None:
    """Add ``count`` names to a layout, one after the other."""
    layout = LayoutDirectory(place, create=True)
    for number in range(count):
        digest = Digest.from_bytes(f"{who}-{number}".encode())
        layout.set_entry(f"{who}-{number}", Descriptor(OCI_MANIFEST, digest, 3))


def add_names_without_end(place: Path, told: Connection) -> None:
    """Add names and tell each; somebody is going to kill this process."""
    number = 0
    while True:
        add_names(place, f"endless-{number}", 1)
        told.send(number)
        number += 1


def refusal_of_a_full_disk(place: Path) -> tuple[str, str]:
    """Try to write more than the process may; return what was said."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
    layout = LayoutDirectory(place)
    with pytest.raises(StoreError) as blob:
        layout.write_blob(bytes(5000))
    with pytest.raises(StoreError) as index:
        add_names(place, "long-" + "x" * 100, 30)
    return str(blob.value), str(index.value)


def refusal_of_a_stranger(place: Path) -> str:
    """Try to change a layout that is not ours; return what was said."""
    os.chdir(place.parent)
    if os.geteuid() == 0:
        os.setuid(65534)
    with pytest.raises(StoreError) as excinfo:
        LayoutDirectory(place.name).set_entry(
            "v1", Descriptor(OCI_MANIFEST, Digest.from_bytes(b"x"), 1)
        )
    return f"{excinfo.value} / {excinfo.value.remedy}"


def names(place: Path) -> set[str]:
    """Return the names as a fresh reader sees them."""
    return set(LayoutDirectory(place).names())


def expected(*who: str, count: int) -> set[str]:
    """Return the names that `add_names` adds."""
    return {f"{each}-{number}" for each in who for number in range(count)}


@pytest.mark.parametrize("shared", [True, False], ids=["one object", "an object each"])
def test_names_added_by_eight_threads_are_all_kept(layout_path: Path, shared: bool) -> None:
    common = LayoutDirectory(layout_path)

    def add(number: int) -> None:
        layout = common if shared else LayoutDirectory(layout_path)
        digest = Digest.from_bytes(str(number).encode())
        layout.set_entry(f"v{number}", Descriptor(OCI_MANIFEST, digest, 3))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(80)))

    assert names(layout_path) == {f"v{number}" for number in range(80)}
    assert set(common.names()) == names(layout_path)


def test_names_added_by_two_processes_are_all_kept(tmp_path: Path) -> None:
    place = tmp_path / "made-by-either"
    both = [SPAWN.Process(target=add_names, args=(place, who, 50)) for who in ("a", "b")]

    for process in both:
        process.start()
    for process in both:
        process.join()

    assert [process.exitcode for process in both] == [0, 0]
    assert names(place) == expected("a", "b", count=50)


def test_killed_process_leaves_a_whole_index_and_no_lock(layout_path: Path) -> None:
    listener, told = SPAWN.Pipe(duplex=False)
    process = SPAWN.Process(target=add_names_without_end, args=(layout_path, told))
    process.start()
    told.close()
    told_of = [listener.recv() for _ in range(20)]
    process.kill()
    process.join()
    listener.close()

    assert process.exitcode == -signal.SIGKILL
    add_names(layout_path, "later", 1)
    assert names(layout_path) >= {f"endless-{number}-0" for number in told_of} | {"later-0"}


def test_full_disk_is_an_error_and_preserves_the_existing_names(layout_path: Path) -> None:
    with ProcessPoolExecutor(1, mp_context=SPAWN) as pool:
        blob, index = pool.submit(refusal_of_a_full_disk, layout_path).result()

    assert "cannot write" in blob
    assert "index.json" in index
    assert 0 < len(names(layout_path)) < 30
    assert list((layout_path / "blobs" / "sha256").iterdir()) == []
    assert [path.name for path in (layout_path / ".concil").iterdir()] == ["lock"]


def test_layout_of_another_owner_is_refused(layout_path: Path) -> None:
    layout_path.parent.chmod(0o755)
    layout_path.chmod(0o555)
    (layout_path / ".concil").chmod(0o555)

    with ProcessPoolExecutor(1, mp_context=SPAWN) as pool:
        message = pool.submit(refusal_of_a_stranger, layout_path).result()

    layout_path.chmod(0o755)
    assert ".concil" in message
    assert "permissions" in message
    assert names(layout_path) == set()


def test_lock_that_is_never_released_is_an_error(
    layout_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("concil.fs.nofollow_tree._LOCK_TIMEOUT", 0.0)  # seconds

    with NoFollowTree(layout_path).locked(), pytest.raises(StoreError) as excinfo:
        add_names(layout_path, "a", 1)

    assert "cannot lock" in str(excinfo.value)
    assert "other process" in excinfo.value.remedy
    assert names(layout_path) == set()


# Other programs.


def copy(image: images.Image, source: LayoutStore, destination: LayoutStore, name: str) -> None:
    """Copy an image from one layout to another by the protocols alone."""
    for each in image.walk():
        manifest = source.get_manifest(each.digest)
        for blob in manifest.blobs():
            write(destination, read(source, blob), blob.digest)
        destination.put_manifest(manifest, name if each is image else each.digest)


@pytest.fixture(params=["image", "index"])
def image(request: pytest.FixtureRequest) -> images.Image:
    """Return an image for one platform, and one for two."""
    platforms = ("linux/amd64", "linux/arm64")
    made = [images.make_image(seed, platform=name) for seed, name in enumerate(platforms)]
    return images.make_index(made) if request.param == "index" else made[0]


@pytest.mark.real
def test_skopeo_reads_what_was_written(tmp_path: Path, skopeo: Skopeo, image: images.Image) -> None:
    images.write_layout(tmp_path / "plain", {"v1": image})
    source = LayoutStore(LayoutDirectory(tmp_path / "plain"))
    ours = LayoutStore(LayoutDirectory(tmp_path / "ours", create=True))

    copy(image, source, ours, "v1")
    copy(image, source, ours, "example/other:2")
    skopeo.copy(f"oci:{tmp_path}/ours:v1", f"oci:{tmp_path}/theirs:v1")

    assert skopeo.inspect_raw(f"oci:{tmp_path}/ours:v1") == image.manifest
    assert skopeo.inspect_raw(f"oci:{tmp_path}/ours:example/other:2") == image.manifest
    assert skopeo.inspect_raw(f"oci:{tmp_path}/theirs:v1") == image.manifest


@pytest.mark.real
def test_image_without_name_is_read_by_skopeo(
    tmp_path: Path, skopeo: Skopeo, image: images.Image
) -> None:
    images.write_layout(tmp_path / "plain", {"v1": image})
    ours = LayoutStore(LayoutDirectory(tmp_path / "ours", create=True))

    copy(image, LayoutStore(LayoutDirectory(tmp_path / "plain")), ours, "")

    assert skopeo.inspect_raw(f"oci:{tmp_path}/ours") == image.manifest


@pytest.mark.real
def test_what_skopeo_wrote_is_read_byte_for_byte(
    tmp_path: Path, skopeo: Skopeo, image: images.Image
) -> None:
    images.write_layout(tmp_path / "plain", {"v1": image})

    skopeo.copy(f"oci:{tmp_path}/plain:v1", f"oci:{tmp_path}/theirs:v1")
    skopeo.copy(f"oci:{tmp_path}/plain:v1", f"oci:{tmp_path}/theirs:v2")

    theirs = LayoutStore(LayoutDirectory(tmp_path / "theirs"))
    assert sorted(theirs.tags()) == ["v1", "v2"]
    assert theirs.get_manifest("v1").body == image.manifest
    for each in image.walk():
        manifest = theirs.get_manifest(each.digest)
        assert manifest.body == each.manifest
        assert [read(theirs, b) for b in manifest.blobs()] == list(each.blobs.values())


@pytest.mark.real
def test_skopeo_and_concil_write_into_one_layout(
    tmp_path: Path, skopeo: Skopeo, image: images.Image
) -> None:
    images.write_layout(tmp_path / "plain", {"v1": image})
    both = tmp_path / "both"

    skopeo.copy(f"oci:{tmp_path}/plain:v1", f"oci:{both}:theirs")
    copy(
        image,
        LayoutStore(LayoutDirectory(tmp_path / "plain")),
        LayoutStore(LayoutDirectory(both)),
        "ours",
    )
    skopeo.copy(f"oci:{tmp_path}/plain:v1", f"oci:{both}:later")

    assert names(both) == {"theirs", "ours", "later"}
    for name in ("theirs", "ours", "later"):
        assert skopeo.inspect_raw(f"oci:{both}:{name}") == image.manifest
