"""An image of very many layers goes everywhere; no registry or builder makes one of 5,000."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from concil.engine.engine import Engine
from concil.server import EmbeddedRegistry
from tests.engine.engine_setup import blob_path
from tests.support.images import (
    Image,
    Layer,
    digest_of,
    get_blob,
    get_manifest,
    make_image,
    write_layout,
)
from tests.support.scale import FULL

LAYERS = 5000 if FULL else 600
PUSHED = LAYERS if FULL else 300  # each is a request or two more than a read

pytestmark = pytest.mark.slow


def image_of(layers: int) -> Image:
    contents = [b"layer %d" % number for number in range(layers)]
    return make_image(1, [Layer(content, digest_of(content)) for content in contents])


@pytest.fixture(scope="module")
def image() -> Image:
    return image_of(LAYERS)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory, image: Image) -> Iterator[str]:
    layout = tmp_path_factory.mktemp("many") / "layout"
    write_layout(layout, {"app:v1": image})
    with EmbeddedRegistry(layout) as registry:
        yield f"{registry.url}/app:v1"


def test_into_another_registry(engine: Engine, tmp_path: Path) -> None:
    image = image_of(PUSHED)
    write_layout(tmp_path / "source", {"app:v1": image})
    with EmbeddedRegistry(tmp_path / "layout") as target:
        result = engine.copy(f"oci:{tmp_path}/source:app:v1", f"{target.url}/app:v1")

        assert str(result.digest) == image.digest
        assert get_manifest(target.url, "app", "v1") == image.manifest
        last = list(image.blobs)[-1]
        assert get_blob(target.url, "app", last) == image.blobs[last]
    for digest, content in image.blobs.items():
        assert blob_path(tmp_path / "layout", digest).read_bytes() == content


def test_into_a_layout(engine: Engine, tmp_path: Path, source: str, image: Image) -> None:
    engine.copy(source, f"oci:{tmp_path}/out:v1")

    for digest, content in image.blobs.items():
        assert blob_path(tmp_path / "out", digest).read_bytes() == content
    assert len(image.blobs) == LAYERS + 1


def test_into_an_archive(engine: Engine, tmp_path: Path, source: str, image: Image) -> None:
    engine.copy(source, f"oci-archive:{tmp_path}/out.tar:v1")

    with tarfile.open(tmp_path / "out.tar") as tar:
        found = {one.name: tar.extractfile(one) for one in tar if one.isreg()}
        files = {name: file.read() for name, file in found.items() if file is not None}
    for digest, content in image.blobs.items():
        assert files[f"blobs/{digest.replace(':', '/')}"] == content
    assert json.loads(files["index.json"])["manifests"][0]["digest"] == image.digest
