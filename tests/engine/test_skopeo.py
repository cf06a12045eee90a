"""What concil wrote skopeo reads, and the other way round, byte for byte."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from concil.engine.engine import Engine
from tests.engine.engine_setup import blob_path
from tests.support.docker_registry import DockerRegistry
from tests.support.images import (
    DOCKER,
    OCI,
    Image,
    MediaTypes,
    assert_same_image,
    make_image,
    make_index,
    put_image,
    write_layout,
)
from tests.support.skopeo import Skopeo

pytestmark = pytest.mark.real


@dataclass(frozen=True)
class There:
    """A repository of the real registry."""

    registry: DockerRegistry
    repository: str

    @property
    def url(self) -> str:
        """The registry's address."""
        return self.registry.url

    @property
    def address(self) -> str:
        """The repository, without a scheme."""
        return f"{self.registry.host}/{self.repository}"


@pytest.fixture
def there(docker_registry: DockerRegistry, repository: str) -> There:
    """Return a repository of this test's own."""
    return There(docker_registry, repository)


BOTH = pytest.mark.parametrize("types", [OCI, DOCKER], ids=["oci", "docker"])


def image_of(types: MediaTypes) -> Image:
    """Return an index for three platforms."""
    platforms = ("linux/amd64", "linux/arm64", "linux/arm/v7")
    return make_index(
        [
            make_image(n, (1_200_000, 50), platform=platform, types=types)
            for n, platform in enumerate(platforms)
        ],
        types=types,
    )


@BOTH
def test_skopeo_reads_what_concil_wrote_to_a_registry(
    engine: Engine, there: There, skopeo: Skopeo, tmp_path: Path, types: MediaTypes
) -> None:
    image = image_of(types)
    write_layout(tmp_path / "in", {"v1": image})
    address = there.address

    for tag in ("v1", "v2"):
        engine.copy(f"oci:{tmp_path}/in:v1", f"http://{address}:{tag}")

    assert skopeo.inspect_raw(f"docker://{address}:v1") == image.manifest
    assert skopeo.list_tags(f"docker://{address}") == ["v1", "v2"]
    skopeo.copy(f"docker://{address}:v1", f"docker://{address}/again:v1")
    assert_same_image(there.url, f"{there.repository}/again", "v1", image)


def test_skopeo_reads_what_concil_wrote_to_a_layout(
    engine: Engine, there: There, skopeo: Skopeo, tmp_path: Path
) -> None:
    image = image_of(OCI)
    put_image(there.url, there.repository, "v1", image)

    engine.copy(f"http://{there.address}:v1", f"oci:{tmp_path}/out:v1")

    assert skopeo.inspect_raw(f"oci:{tmp_path}/out:v1") == image.manifest
    skopeo.copy(f"oci:{tmp_path}/out:v1", f"docker://{there.address}/back:v1")
    assert_same_image(there.url, f"{there.repository}/back", "v1", image)


@BOTH
def test_concil_reads_what_skopeo_wrote(
    engine: Engine, there: There, skopeo: Skopeo, tmp_path: Path, types: MediaTypes
) -> None:
    image = image_of(types)
    put_image(there.url, there.repository, "v1", image)
    address = there.address
    skopeo.copy(f"docker://{address}:v1", f"docker://{address}/skopeo:v1")

    result = engine.copy(f"http://{address}/skopeo:v1", f"oci:{tmp_path}/out:v1")

    assert str(result.digest) == image.digest
    for each in image.walk():
        assert blob_path(tmp_path / "out", each.digest).read_bytes() == each.manifest
    for digest, blob in image.all_blobs().items():
        assert blob_path(tmp_path / "out", digest).read_bytes() == blob


def test_concil_reads_the_layout_that_skopeo_wrote(
    engine: Engine, there: There, skopeo: Skopeo, tmp_path: Path
) -> None:
    image = image_of(OCI)
    put_image(there.url, there.repository, "v1", image)
    skopeo.copy(f"docker://{there.address}:v1", f"oci:{tmp_path}/out:v1")

    engine.copy(f"oci:{tmp_path}/out:v1", f"http://{there.address}/back:v1")

    assert_same_image(there.url, f"{there.repository}/back", "v1", image)


def test_both_add_to_one_layout(
    engine: Engine, there: There, skopeo: Skopeo, tmp_path: Path
) -> None:
    first, second = make_image(1), make_image(2)
    for tag, image in (("first", first), ("second", second)):
        put_image(there.url, there.repository, tag, image)
    address = there.address

    skopeo.copy(f"docker://{address}:first", f"oci:{tmp_path}/out:first")
    engine.copy(f"http://{address}:second", f"oci:{tmp_path}/out:second")

    assert skopeo.inspect_raw(f"oci:{tmp_path}/out:first") == first.manifest
    assert skopeo.inspect_raw(f"oci:{tmp_path}/out:second") == second.manifest
