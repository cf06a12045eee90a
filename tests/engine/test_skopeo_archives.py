"""Archives that concil wrote skopeo reads, and the other way round."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from concil.engine.engine import Engine
from concil.transfer.mirror.report import MirrorItem
from tests.engine.engine_setup import RealRepository
from tests.support.images import (
    DOCKER,
    OCI,
    assert_same_image,
    get_manifest,
    make_image,
    make_three_platforms,
    put_image,
    write_layout,
)
from tests.support.skopeo import Skopeo

pytestmark = pytest.mark.real


def test_skopeo_reads_the_oci_archive_that_concil_wrote(
    engine: Engine, there: RealRepository, skopeo: Skopeo, tmp_path: Path
) -> None:
    image, other = make_three_platforms(OCI), make_image(9)
    put_image(there.url, there.repository, "v1", image)
    put_image(there.url, there.repository, "v2", other)
    archive = f"oci-archive:{tmp_path}/a.tar"

    engine.mirror(
        MirrorItem(f"http://{there.address}:{tag}", f"{archive}:{tag}") for tag in ("v1", "v2")
    )

    assert skopeo.inspect_raw(f"{archive}:v1") == image.manifest
    for tag, one in (("v1", image), ("v2", other)):
        skopeo.copy(f"{archive}:{tag}", f"docker://{there.address}/back:{tag}")
        assert_same_image(there.url, f"{there.repository}/back", tag, one)


def test_concil_reads_the_oci_archive_that_skopeo_wrote(
    engine: Engine, there: RealRepository, skopeo: Skopeo, tmp_path: Path
) -> None:
    image = make_three_platforms(OCI)
    put_image(there.url, there.repository, "v1", image)
    skopeo.copy(f"docker://{there.address}:v1", f"oci-archive:{tmp_path}/a.tar:v1")

    result = engine.copy(f"oci-archive:{tmp_path}/a.tar:v1", f"http://{there.address}/back:v1")

    assert str(result.digest) == image.digest
    assert_same_image(there.url, f"{there.repository}/back", "v1", image)


def test_skopeo_reads_the_docker_archive_that_concil_wrote(
    engine: Engine, there: RealRepository, skopeo: Skopeo, tmp_path: Path
) -> None:
    image = make_image(1, (1_200_000, 50), types=DOCKER)
    write_layout(tmp_path / "in", {"v1": image})
    archive = f"docker-archive:{tmp_path}/a.tar"
    engine.copy(f"oci:{tmp_path}/in:v1", f"{archive}:app:1")

    skopeo.run("copy", "--dest-tls-verify=false", archive, f"docker://{there.address}:v1")
    made = json.loads(skopeo.inspect_raw(archive))
    engine.copy(f"{archive}:app:1", f"http://{there.address}:concil")

    pushed = json.loads(get_manifest(there.url, there.repository, "v1"))
    ours = json.loads(get_manifest(there.url, there.repository, "concil"))
    config = json.loads(image.manifest)["config"]["digest"]
    assert pushed["config"]["digest"] == ours["config"]["digest"] == config
    # skopeo calls what is plain gzip, and packs it when it copies.
    assert [layer["digest"] for layer in made["layers"]] == [
        layer["digest"] for layer in ours["layers"]
    ]


def test_concil_reads_the_docker_archive_that_skopeo_wrote(
    engine: Engine, there: RealRepository, skopeo: Skopeo, tmp_path: Path
) -> None:
    image = make_image(1, (1_200_000, 50), types=DOCKER)
    put_image(there.url, there.repository, "v1", image)
    path = tmp_path / "a.tar"
    skopeo.run(
        *("copy", "--src-tls-verify=false", f"docker://{there.address}:v1"),
        f"docker-archive:{path}:app:1",
    )
    with tarfile.open(path) as tar:
        assert any(one.issym() for one in tar.getmembers())  # what it must see through

    engine.copy(f"docker-archive:{path}:app:1", f"docker-archive:{tmp_path}/again.tar:app:1")

    first, again = (
        json.loads(skopeo.inspect_raw(f"docker-archive:{one}"))
        for one in (path, tmp_path / "again.tar")
    )
    assert first == again
    assert list(engine.list_tags(f"docker-archive:{path}")) == ["docker.io/library/app:1"]
