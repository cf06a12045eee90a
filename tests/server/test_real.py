"""skopeo pushes to the embedded registry, pulls from it, and reads its layout."""

from __future__ import annotations

from pathlib import Path

import pytest

from concil.server import EmbeddedRegistry
from tests.support.images import (
    DOCKER,
    OCI,
    MediaTypes,
    assert_same_image,
    make_image,
    make_three_platforms,
    put_image,
    write_layout,
)
from tests.support.skopeo import Skopeo, SkopeoError

pytestmark = pytest.mark.real


# Large enough that skopeo streams the layers in many pieces.
LAYERS = (3_000_000, 50)


@pytest.mark.parametrize("types", [OCI, DOCKER], ids=["oci", "docker"])
def test_skopeo_pushes_an_index_byte_for_byte(
    registry: EmbeddedRegistry, skopeo: Skopeo, tmp_path: Path, types: MediaTypes
) -> None:
    image = make_three_platforms(types, LAYERS)
    with EmbeddedRegistry(tmp_path / "source") as source:
        put_image(source.url, "from/app", "v1", image)

        skopeo.copy(f"docker://{source.host}/from/app:v1", f"docker://{registry.host}/to/app:v1")

    assert_same_image(registry.url, "to/app", "v1", image)
    assert skopeo.inspect_raw(f"docker://{registry.host}/to/app:v1") == image.manifest
    assert skopeo.list_tags(f"docker://{registry.host}/to/app") == ["v1"]


def test_skopeo_pushes_from_a_layout_and_pulls_into_one(
    registry: EmbeddedRegistry, skopeo: Skopeo, tmp_path: Path
) -> None:
    image = make_three_platforms(OCI, LAYERS)
    write_layout(tmp_path / "in", {"v1": image})

    skopeo.copy(f"oci:{tmp_path}/in:v1", f"docker://{registry.host}/app:v1")
    skopeo.copy(f"docker://{registry.host}/app:v1", f"oci:{tmp_path}/out:v1")

    assert skopeo.inspect_raw(f"oci:{tmp_path}/out:v1") == image.manifest
    for digest, blob in image.all_blobs().items():
        assert (tmp_path / "out/blobs" / digest.replace(":", "/")).read_bytes() == blob


def test_skopeo_reads_the_layout_that_the_registry_keeps(
    registry: EmbeddedRegistry, skopeo: Skopeo, directory: Path, tmp_path: Path
) -> None:
    image = make_three_platforms(OCI, LAYERS)
    put_image(registry.url, "library/app", "v1", image)

    skopeo.copy(f"oci:{directory}:library/app:v1", f"oci:{tmp_path}/out:v1")

    assert skopeo.inspect_raw(f"oci:{directory}:library/app:v1") == image.manifest
    assert skopeo.inspect_raw(f"oci:{tmp_path}/out:v1") == image.manifest


def test_what_skopeo_wrote_into_a_layout_is_served(
    skopeo: Skopeo, directory: Path, tmp_path: Path
) -> None:
    image = make_three_platforms(OCI, LAYERS)
    write_layout(tmp_path / "in", {"v1": image})
    skopeo.copy(f"oci:{tmp_path}/in:v1", f"oci:{directory}:docker.io/library/app:v1")
    skopeo.copy(f"oci:{tmp_path}/in:v1", f"oci:{directory}:v2")

    with EmbeddedRegistry(directory, read_only=True) as registry:
        assert_same_image(registry.url, "docker.io/library/app", "v1", image)
        assert_same_image(registry.url, "layout", "v2", image)


def test_skopeo_deletes_an_image(registry: EmbeddedRegistry, skopeo: Skopeo) -> None:
    put_image(registry.url, "app", "v1", make_image(1))

    skopeo.run("delete", "--tls-verify=false", f"docker://{registry.host}/app:v1")

    with pytest.raises(SkopeoError):
        skopeo.inspect_raw(f"docker://{registry.host}/app:v1")
