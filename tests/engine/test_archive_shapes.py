"""Archives whose index or manifests leave out what others write: digests are kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from concil.engine.engine import Engine
from concil.oci.media_types import (
    DOCKER_CONFIG,
    DOCKER_MANIFEST,
    DOCKER_MANIFEST_LIST,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_MANIFEST,
)
from concil.server import EmbeddedRegistry
from concil.transfer.mirror.report import MirrorItem
from tests.engine.engine_setup import blob_path
from tests.engine.test_archives import files_of, listed
from tests.support.archives import layout_members, member, write_tar
from tests.support.docker_registry import DockerRegistry
from tests.support.images import digest_of, make_image

CONFIG = json.dumps(
    {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": None}}
).encode()
REF_NAME, FULL_NAME = "org.opencontainers.image.ref.name", "io.containerd.image.name"
MISSING = "missing"


def image_without_layers(own: str | None, layers: object = None) -> bytes:
    config = DOCKER_CONFIG if own == DOCKER_MANIFEST else OCI_CONFIG
    document: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": own,
        "config": {"mediaType": config, "digest": digest_of(CONFIG), "size": len(CONFIG)},
        "layers": layers,
    }
    return packed(document)


def index_without_images(own: str | None, manifests: object = None) -> bytes:
    return packed({"schemaVersion": 2, "mediaType": own, "manifests": manifests})


def packed(document: dict[str, Any]) -> bytes:
    if document["mediaType"] is None:
        del document["mediaType"]
    return json.dumps({k: v for k, v in document.items() if v != MISSING}).encode()


IMAGE = make_image(1).manifest
# What the manifest is, and what the index calls it.
SHAPES: dict[str, tuple[bytes, str | None]] = {
    "layers null": (image_without_layers(OCI_MANIFEST), OCI_MANIFEST),
    "layers missing": (image_without_layers(OCI_MANIFEST, MISSING), OCI_MANIFEST),
    "layers null, docker": (image_without_layers(DOCKER_MANIFEST), DOCKER_MANIFEST),
    "no media type": (image_without_layers(None), OCI_MANIFEST),
    "manifests null": (index_without_images(OCI_INDEX), OCI_INDEX),
    "manifests missing": (index_without_images(OCI_INDEX, MISSING), OCI_INDEX),
    "manifests null, docker": (index_without_images(DOCKER_MANIFEST_LIST), DOCKER_MANIFEST_LIST),
    "listed as docker": (IMAGE, DOCKER_MANIFEST),
    "docker listed as oci": (image_without_layers(DOCKER_MANIFEST, []), OCI_MANIFEST),
    "listed without media type": (IMAGE, None),
    "no media type at all": (image_without_layers(None, []), None),
    "index without media type": (index_without_images(OCI_INDEX, []), None),
    "no media type, listed as docker": (image_without_layers(None, []), DOCKER_MANIFEST),
    "index without its own, listed as docker": (index_without_images(None), DOCKER_MANIFEST_LIST),
}


@pytest.fixture(params=SHAPES)
def shape(request: pytest.FixtureRequest) -> tuple[bytes, str | None]:
    return SHAPES[request.param]


def archive_of(path: Path, body: bytes, listed_as: str | None, **notes: str) -> Path:
    """Write an oci-archive of one image under the name ``host/app:1``, or with other notes."""
    entry: dict[str, Any] = {
        "digest": digest_of(body),
        "size": len(body),
        "annotations": notes or {REF_NAME: "host/app:1"},
    }
    if listed_as is not None:
        entry["mediaType"] = listed_as
    blobs = {**make_image(1).blobs, digest_of(body): body, digest_of(CONFIG): CONFIG}
    return write_tar(
        path,
        [
            member("oci-layout", b'{"imageLayoutVersion":"1.0.0"}'),
            member("index.json", json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()),
            *(member(f"blobs/{d.replace(':', '/')}", blob) for d, blob in blobs.items()),
        ],
    )


def test_each_shape_is_copied_from_an_archive_and_into_one(
    engine: Engine, tmp_path: Path, shape: tuple[bytes, str | None]
) -> None:
    body, digest = shape[0], digest_of(shape[0])
    source = f"oci-archive:{archive_of(tmp_path / 'in.tar', *shape)}:host/app:1"
    archive = tmp_path / "out.tar"

    with EmbeddedRegistry(tmp_path / "registry") as registry:
        items = [
            MirrorItem(source, f"oci-archive:{archive}:app:1"),
            MirrorItem(source, f"oci:{tmp_path}/layout:app:1"),
            MirrorItem(source, f"{registry.host}/app:1"),
        ]
        looked = engine.mirror(items, dry_run=True)
        report = engine.mirror(items)
        again = engine.mirror(items)
        back = engine.copy(f"{registry.host}/app:1", f"oci-archive:{archive}:back:1")
    with EmbeddedRegistry(tmp_path / "layout") as served:
        from_layout = engine.copy(f"{served.host}/app:1", f"oci-archive:{archive}:served:1")

    assert (looked.copied_count, len(report.copied), len(again.present)) == (3, 3, 3)
    assert {str(one.digest) for one in (*report.copied, *again.present)} == {digest}
    assert (str(back.digest), str(from_layout.digest)) == (digest, digest)
    assert files_of(archive)[f"blobs/{digest.replace(':', '/')}"] == body
    assert blob_path(tmp_path / "layout", digest).read_bytes() == body


@pytest.mark.real
def test_a_real_registry_takes_each_shape(
    engine: Engine,
    docker_registry: DockerRegistry,
    tmp_path: Path,
    shape: tuple[bytes, str | None],
) -> None:
    source = f"oci-archive:{archive_of(tmp_path / 'in.tar', *shape)}:host/app:1"
    repository = f"{docker_registry.host}/shapes/{digest_of(shape[0])[7:20]}"

    copied = engine.copy(source, f"{repository}:1")
    back = engine.copy(f"{repository}:1", f"oci-archive:{tmp_path}/out.tar:app:1")

    assert str(copied.digest) == str(back.digest) == digest_of(shape[0])


@pytest.mark.parametrize("name", [name for name, (body, _) in SHAPES.items() if b"config" in body])
def test_each_image_becomes_one_of_a_docker_archive_with_the_same_config(
    engine: Engine, tmp_path: Path, name: str
) -> None:
    document = json.loads(SHAPES[name][0])
    archive = archive_of(tmp_path / "in.tar", *SHAPES[name])
    out = tmp_path / "out.tar"

    engine.copy(f"oci-archive:{archive}:host/app:1", f"docker-archive:{out}:app:1")
    engine.copy(f"docker-archive:{out}", f"oci:{tmp_path}/back:1")

    (entry,) = listed(out)
    assert digest_of(files_of(out)[entry["Config"]]) == document["config"]["digest"]
    assert len(entry["Layers"]) == len(document.get("layers") or ())


@pytest.mark.parametrize(
    "names", [{FULL_NAME: "host/app:1"}, {FULL_NAME: "host/app:1", REF_NAME: "1"}]
)
def test_an_image_that_containerd_named_is_copied_by_its_full_name(
    engine: Engine, tmp_path: Path, names: dict[str, str]
) -> None:
    archive = archive_of(tmp_path / "in.tar", IMAGE, OCI_MANIFEST, **names)

    named = list(engine.list_images(f"oci-archive:{archive}"))
    copied = engine.copy(f"oci-archive:{archive}:host/app:1", f"oci-archive:{tmp_path}/o.tar:app:1")

    assert [(name, str(digest)) for name, digest in named] == [("host/app:1", digest_of(IMAGE))]
    assert str(copied.digest) == digest_of(IMAGE)


def test_a_layout_whose_list_is_null_is_an_empty_one(engine: Engine, tmp_path: Path) -> None:
    """As umoci makes it, and tar packs it."""
    files = layout_members(tmp_path / "in", {})
    files["index.json"] = b'{"schemaVersion":2,"manifests":null}'
    (tmp_path / "in" / "index.json").write_bytes(files["index.json"])
    archive = write_tar(tmp_path / "in.tar", [member(n, c) for n, c in files.items()])
    source = f"oci-archive:{archive_of(tmp_path / 'source.tar', IMAGE, OCI_MANIFEST)}"

    for place in (f"oci:{tmp_path}/in", f"oci-archive:{archive}"):
        assert list(engine.list_tags(place)) == []
        engine.copy(source, f"{place}:app:1")
        assert list(engine.list_tags(place)) == ["app:1"]
