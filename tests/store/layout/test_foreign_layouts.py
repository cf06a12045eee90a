"""Image layouts that other programs write in their own way, or that were copied carelessly."""

from __future__ import annotations

import json
import logging
import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from concil.engine.engine import Engine
from concil.errors import InvalidManifest, StoreError
from concil.oci.descriptor import Descriptor
from concil.oci.manifest import Digest
from concil.oci.media_types import DOCKER_MANIFEST, OCI_MANIFEST
from concil.store.layout.store import LayoutDirectory, LayoutStore
from concil.transfer.journal import Journal
from tests.support import images
from tests.support.layouts import OLD, has_message, read_index
from tests.support.skopeo import Skopeo
from tests.support.system import require_program


@pytest.fixture
def image() -> images.Image:
    """Return an image for one platform."""
    return images.make_image(1)


def copied(source: str, destination: str, **options: object) -> Digest:
    """Copy an image; return its digest."""
    with Engine(journal=Journal(None)) as engine:
        return engine.copy(source, destination, **options).digest  # type: ignore[arg-type]


def changed(place: Path, **fields: object) -> None:
    """Change the first entry of an index; None: leave a field out."""
    document = read_index(place)
    entry = document["manifests"][0] | fields
    document["manifests"][0] = {k: v for k, v in entry.items() if v is not None}
    (place / "index.json").write_text(json.dumps(document))


# An index without entries.


@pytest.mark.parametrize(
    "document", [{"schemaVersion": 2, "manifests": None}, {"schemaVersion": 2}]
)
def test_index_without_a_list_is_an_empty_one(
    layout_path: Path, document: dict[str, object], image: images.Image
) -> None:
    images.write_layout(layout_path.parent / "source", {"a": image})
    (layout_path / "index.json").write_text(json.dumps(document))

    assert list(LayoutDirectory(layout_path).names()) == []
    assert LayoutDirectory(layout_path).find_entry("a") is None

    copied(f"oci:{layout_path.parent}/source:a", f"oci:{layout_path}:b")
    assert list(LayoutDirectory(layout_path).names()) == ["b"]


@pytest.mark.parametrize("content", [b"{}", b'{"schemaVersion": 2, "layers": []}', b"null"])
def test_what_is_no_index_at_all_is_refused(layout_path: Path, content: bytes) -> None:
    (layout_path / "index.json").write_bytes(content)

    with pytest.raises(InvalidManifest) as excinfo:
        LayoutDirectory(layout_path)

    assert has_message(excinfo.value, "index.json", "not an image index")


@pytest.mark.real
def test_what_umoci_inits_is_written_and_read_by_umoci(tmp_path: Path, image: images.Image) -> None:
    umoci = require_program("umoci")
    images.write_layout(tmp_path / "source", {"a": image})
    subprocess.run([umoci, "init", "--layout", str(tmp_path / "new")], check=True, timeout=60)

    copied(f"oci:{tmp_path}/source:a", f"oci:{tmp_path}/new:b")

    listed = subprocess.run(
        [umoci, "ls", "--layout", str(tmp_path / "new")],
        check=True,
        timeout=60,
        capture_output=True,
        text=True,
    )
    assert listed.stdout.split() == ["b"]


@pytest.mark.parametrize("fields", [{"manifests": None}, {}])
def test_nested_index_without_a_list_is_copied_as_it_is(
    tmp_path: Path, fields: dict[str, object]
) -> None:
    inner = {"schemaVersion": 2, "mediaType": images.OCI.index, **fields}
    empty = images.Image(images.OCI.index, json.dumps(inner).encode(), {})
    whole = images.make_index([empty, images.make_image(1)])
    images.write_layout(tmp_path / "source", {"a": whole})

    copied(f"oci:{tmp_path}/source:a", f"oci:{tmp_path}/new:a")

    copy = LayoutStore(LayoutDirectory(tmp_path / "new"))
    assert copy.get_manifest("a").body == whole.manifest
    assert copy.get_manifest(empty.digest).body == empty.manifest


# Entries and files that are missing.


def test_entry_without_a_type_is_read_with_a_warning(
    tmp_path: Path, image: images.Image, caplog: pytest.LogCaptureFixture
) -> None:
    images.write_layout(tmp_path / "source", {"a": image})
    changed(tmp_path / "source", mediaType=None)
    caplog.set_level(logging.WARNING, "concil")

    store = LayoutStore(LayoutDirectory(tmp_path / "source"))
    found = store.find_manifest("a")
    copied(f"oci:{tmp_path}/source:a", f"oci:{tmp_path}/new:b")

    assert found is not None
    assert found.media_type == OCI_MANIFEST
    assert read_index(tmp_path / "new")["manifests"][0]["mediaType"] == OCI_MANIFEST
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2  # one for each layout that was opened
    assert all("mediaType is missing in 1 entries" in line for line in lines)


def test_entry_without_a_type_is_left_as_it_is(tmp_path: Path, image: images.Image) -> None:
    images.write_layout(tmp_path / "source", {"a": image})
    changed(tmp_path / "source", mediaType=None)
    before = read_index(tmp_path / "source")["manifests"]

    LayoutDirectory(tmp_path / "source").set_entry("b", OLD)

    assert read_index(tmp_path / "source")["manifests"][:1] == before


@pytest.mark.parametrize("packed", [False, True], ids=["directory", "archive"])
def test_layout_that_does_not_say_its_version_is_read_with_a_warning(
    tmp_path: Path, image: images.Image, caplog: pytest.LogCaptureFixture, packed: bool
) -> None:
    images.write_layout(tmp_path / "source", {"a": image})
    (tmp_path / "source" / "oci-layout").unlink()
    source = f"oci:{tmp_path}/source:a"
    if packed:
        archive = tmp_path / "source.tar"
        subprocess.run(
            ["tar", "-C", str(tmp_path / "source"), "-cf", str(archive), "."], check=True
        )
        source = f"oci-archive:{archive}:a"

    assert copied(source, f"oci:{tmp_path}/new:a") == Digest.parse(image.digest)

    (line,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "no file oci-layout" in line


def test_directory_without_both_files_is_no_layout(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    with pytest.raises(StoreError) as excinfo:
        LayoutDirectory(tmp_path / "empty")

    assert has_message(excinfo.value, "not a layout")


# Docker's types.


@pytest.mark.parametrize(
    ("types", "listed"), [(images.DOCKER, OCI_MANIFEST), (images.OCI, DOCKER_MANIFEST)]
)
def test_type_of_the_other_family_in_the_index_does_not_matter(
    tmp_path: Path, types: images.MediaTypes, listed: str
) -> None:
    image = images.make_image(1, types=types)
    images.write_layout(tmp_path / "source", {"a": image})
    changed(tmp_path / "source", mediaType=listed)

    assert copied(f"oci:{tmp_path}/source:a", f"oci:{tmp_path}/new:a") == Digest.parse(image.digest)

    entry = read_index(tmp_path / "new")["manifests"][0]
    assert entry["mediaType"] == types.manifest


@pytest.mark.real
def test_docker_manifest_reaches_a_skopeo_that_finds_none_by_name(
    tmp_path: Path, skopeo: Skopeo
) -> None:
    """What docs/airgap.md says to do."""
    image = images.make_image(1, types=images.DOCKER)
    images.write_layout(tmp_path / "source", {"a": image})

    copied(f"oci:{tmp_path}/source:a", f"docker-archive:{tmp_path}/a.tar:team/a:1")

    skopeo.run("inspect", "--raw", f"docker-archive:{tmp_path}/a.tar:team/a:1")


# Links, pipes and the like.


def _link(path: Path) -> None:
    path.rename(path.with_suffix(".real"))
    path.symlink_to(path.with_suffix(".real"))


def _instead(make: Callable[[Path], None]) -> Callable[[Path], None]:
    def replace(path: Path) -> None:
        path.unlink()
        make(path)

    return replace


def _device(path: Path) -> None:
    os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3))


@pytest.mark.parametrize(
    ("replace", "kind"),
    [
        (_link, "a symbolic link"),
        (_instead(os.mkfifo), "a pipe"),
        (_instead(Path.mkdir), "a directory"),
        pytest.param(
            _instead(_device),
            "a device",
            marks=pytest.mark.skipif(os.geteuid() != 0, reason="only root makes devices"),
        ),
    ],
    ids=["link", "pipe", "directory", "device"],
)
@pytest.mark.parametrize("which", ["layer", "config", "manifest"])
def test_what_is_in_the_place_of_a_blob_is_called_by_its_name(
    tmp_path: Path, image: images.Image, replace: Callable[[Path], None], kind: str, which: str
) -> None:
    images.write_layout(tmp_path / "source", {"a": image})
    store = LayoutStore(LayoutDirectory(tmp_path / "source"))
    config, layer, *_ = store.get_manifest("a").blobs()
    manifest = Descriptor(OCI_MANIFEST, Digest.parse(image.digest), 0)
    digest = {"layer": layer, "config": config, "manifest": manifest}[which].digest
    replace(store.backend.blob_path(digest))

    with pytest.raises(StoreError) as excinfo:
        copied(f"oci:{tmp_path}/source:a", f"oci:{tmp_path}/new:a")

    assert has_message(excinfo.value, digest.hex, f"is {kind}, not a regular file")
    assert ("cp -rL" in excinfo.value.remedy) == (kind == "a symbolic link")


@pytest.mark.parametrize("name", ["blobs", "blobs/sha256"])
def test_linked_directory_is_called_so(tmp_path: Path, image: images.Image, name: str) -> None:
    images.write_layout(tmp_path / "source", {"a": image})
    _link(tmp_path / "source" / name)

    with pytest.raises(StoreError) as excinfo:
        copied(f"oci:{tmp_path}/source:a", f"oci:{tmp_path}/new:a")

    assert has_message(excinfo.value, f"{name}'", "is a symbolic link, not a directory")
    assert "cp -rL" in excinfo.value.remedy


def test_layout_that_was_copied_with_its_links_resolved_is_read(
    tmp_path: Path, image: images.Image
) -> None:
    images.write_layout(tmp_path / "source", {"a": image})
    for path in list((tmp_path / "source" / "blobs" / "sha256").iterdir()):
        _link(path)
    subprocess.run(["cp", "-rL", str(tmp_path / "source"), str(tmp_path / "plain")], check=True)

    assert copied(f"oci:{tmp_path}/plain:a", f"oci:{tmp_path}/new:a") == Digest.parse(image.digest)
