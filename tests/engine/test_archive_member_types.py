"""Archives in which a blob is something else than a file: told what it is, never followed."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from concil.engine.engine import Engine
from concil.errors import StoreError
from tests.engine.engine_setup import blob_path
from tests.support.archives import (
    Member,
    image_of,
    layout_members,
    link,
    manifest_member,
    member,
    plain_layer,
    write_tar,
)
from tests.support.images import digest_of
from tests.support.layouts import has_message

OUTSIDE = "/etc/hostname"
KINDS = {
    "directory": (tarfile.DIRTYPE, "", "is a directory"),
    "pipe": (tarfile.FIFOTYPE, "", "is a named pipe"),
    "character device": (tarfile.CHRTYPE, "", "is a device"),
    "block device": (tarfile.BLKTYPE, "", "is a device"),
    "unknown": (b"Q", "", "is a member of the type b'Q'"),
    "link out": (tarfile.SYMTYPE, OUTSIDE, f"is a link to '{OUTSIDE}', outside of the archive"),
    "hard link out": (tarfile.LNKTYPE, "../x", "is a link to '../x', outside of the archive"),
    "lost link": (tarfile.LNKTYPE, "lost", "is a link to 'lost', which is not in the archive"),
    "link to a pipe": (tarfile.LNKTYPE, "pipe", "is a link to 'pipe', which is a named pipe"),
}


def write(path: Path, files: dict[str, bytes], odd: str, kind: str) -> Path:
    """Write an archive in which one file is of another kind."""
    form, target, _ = KINDS[kind]
    members: list[Member] = [member("pipe", kind=tarfile.FIFOTYPE)]
    for name, content in files.items():
        members.append(link(name, target, form) if name == odd else member(name, content))
    return write_tar(path, members, format=tarfile.GNU_FORMAT)


def refused(engine: Engine, source: str, out: Path, *words: str) -> None:
    with pytest.raises(StoreError) as excinfo:
        engine.copy(source, f"oci:{out}:v1")
    assert has_message(excinfo.value, *words)
    assert "regular files" in excinfo.value.remedy


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("part", ["layer", "config", "manifest"])
def test_a_blob_of_an_oci_archive_that_is_no_file_is_called_what_it_is(
    engine: Engine, tmp_path: Path, kind: str, part: str
) -> None:
    image, _, layers = image_of(1)
    config = json.loads(image.manifest)["config"]["digest"]
    digest = {"layer": digest_of(layers[1]), "config": config, "manifest": image.digest}[part]
    odd = f"blobs/{digest.replace(':', '/')}"
    files = layout_members(tmp_path / "in", {"v1": image})
    archive = write(tmp_path / "a.tar", files, odd, kind)

    refused(engine, f"oci-archive:{archive}:v1", tmp_path / "out", odd, KINDS[kind][2])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("odd", ["oci-layout", "index.json"])
def test_oci_archive_whose_index_is_not_a_file_is_an_error(
    engine: Engine, tmp_path: Path, kind: str, odd: str
) -> None:
    files = layout_members(tmp_path / "in", {"v1": image_of(1)[0]})
    archive = write(tmp_path / "a.tar", files, odd, kind)

    refused(engine, f"oci-archive:{archive}:v1", tmp_path / "out", odd, KINDS[kind][2])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("odd", ["config.json", "1.tar", "manifest.json"])
def test_a_member_of_a_docker_archive_that_is_no_file_is_called_what_it_is(
    engine: Engine, tmp_path: Path, kind: str, odd: str
) -> None:
    _, config, layers = image_of(1)
    entry = {"Config": "config.json", "RepoTags": ["app:1"], "Layers": ["0.tar", "1.tar"]}
    files = {
        "config.json": next(iter(config.values())),
        "0.tar": layers[0],
        "1.tar": layers[1],
        "manifest.json": manifest_member(entry)[1],
    }
    archive = write(tmp_path / "a.tar", files, odd, kind)

    refused(engine, f"docker-archive:{archive}", tmp_path / "out", odd, KINDS[kind][2])


@pytest.mark.parametrize("form", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_a_link_to_a_layer_of_the_archive_is_that_layer(
    engine: Engine, tmp_path: Path, form: bytes
) -> None:
    layer = plain_layer(1)
    config = json.dumps({"rootfs": {"type": "layers", "diff_ids": [digest_of(layer)] * 2}})
    entry = {"Config": "c.json", "RepoTags": ["app:1"], "Layers": ["a/layer.tar", "b/layer.tar"]}
    target = "../a/layer.tar" if form == tarfile.SYMTYPE else "a/layer.tar"
    archive = write_tar(
        tmp_path / "a.tar",
        [
            member("a/", kind=tarfile.DIRTYPE),
            member("a/layer.tar", layer),
            member("b/", kind=tarfile.DIRTYPE),
            link("b/layer.tar", target, form),
            member("c.json", config.encode()),
            manifest_member(entry),
        ],
    )

    result = engine.copy(f"docker-archive:{archive}", f"oci:{tmp_path}/out:v1")

    manifest = json.loads(blob_path(tmp_path / "out", str(result.digest)).read_bytes())
    assert [one["digest"] for one in manifest["layers"]] == [digest_of(layer)] * 2
    assert blob_path(tmp_path / "out", digest_of(layer)).read_bytes() == layer


def test_what_is_no_file_is_replaced_where_an_archive_is_added_to(
    engine: Engine, tmp_path: Path
) -> None:
    image, _, layers = image_of(1)
    odd = f"blobs/{digest_of(layers[1]).replace(':', '/')}"
    files = layout_members(tmp_path / "in", {"v1": image})
    archive = write(tmp_path / "a.tar", files, odd, "pipe")

    engine.copy(f"oci:{tmp_path}/in:v1", f"oci-archive:{archive}:v2")

    with tarfile.open(archive) as tar:
        found = tar.extractfile(odd)
        assert found is not None
        assert found.read() == layers[1]
