"""Images go from any store to any other, byte for byte."""

from __future__ import annotations

from pathlib import Path

import pytest

from concil.engine.engine import Engine
from concil.engine.image_resolver import Endpoints
from concil.engine.store_factory import EndpointOptions
from concil.errors import InvalidManifest, NotFound, TLSFailure
from concil.http.requests_session import TLSSettings
from concil.oci.manifest import Digest
from concil.progress.events import State
from concil.server import EmbeddedRegistry
from concil.transfer.journal import Journal
from tests.engine.engine_setup import QUICK, Registry, blob_path
from tests.engine.image_stores import EITHER, ImageStore, create_store
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
from tests.support.relay import Relay
from tests.support.request_log import RequestLog
from tests.support.tls import CertificateAuthority

AMD64, ARM64, V7 = "linux/amd64", "linux/arm64", "linux/arm/v7"


def image_of(seed: int = 1) -> Image:
    """Return an index for three platforms, one of them in an index of its own."""
    first, second, third = (
        make_image(seed * 10 + n, (70_000, 500), platform=name)
        for n, name in enumerate((AMD64, ARM64, V7))
    )
    return make_index([first, second, make_index([third])])


@pytest.fixture(params=EITHER)
def source(request: pytest.FixtureRequest) -> ImageStore:
    return create_store(request, request.param, "source")


@pytest.fixture(params=EITHER)
def target(request: pytest.FixtureRequest) -> ImageStore:
    return create_store(request, request.param, "target")


def test_image_is_copied_from_anywhere_to_anywhere(
    engine: Engine, source: ImageStore, target: ImageStore
) -> None:
    image = image_of()
    source.load(image, "v1")

    result = engine.copy(f"{source.address}:v1", f"{target.address}:v2")

    target.assert_same(image, "v2")
    assert (result.state, str(result.digest)) == (State.DONE, image.digest)
    again = engine.copy(f"{source.address}:v1", f"{target.address}:v2")
    assert again.state is State.PRESENT


def test_chosen_platforms_are_copied(
    engine: Engine, source: ImageStore, target: ImageStore
) -> None:
    image = make_index([make_image(n, platform=p) for n, p in enumerate((AMD64, ARM64, V7))])
    source.load(image, "v1")

    one = engine.copy(f"{source.address}:v1", f"{target.address}:one", platforms=[ARM64])
    two = engine.copy(f"{source.address}:v1", f"{target.address}:two", platforms=[V7, AMD64])

    target.assert_same(image.children[1], "one")
    assert str(one.digest) == image.children[1].digest
    assert (two.state, two.manifests) == (State.DONE, 3)


@pytest.mark.parametrize("types", [OCI, DOCKER], ids=["oci", "docker"])
def test_digest_is_a_reference_too(
    engine: Engine, registry: Registry, repository: str, tmp_path: Path, types: MediaTypes
) -> None:
    image = make_index([make_image(1, types=types)], types=types)
    put_image(registry.url, repository, "v1", image)

    engine.copy(f"{registry.url}/{repository}@{image.digest}", f"oci:{tmp_path}/layout:kept")

    ImageStore("", layout=tmp_path / "layout").assert_same(image, "kept")


def test_copy_within_a_registry_is_mounted_without_a_byte(
    engine: Engine, registry: Registry, repository: str
) -> None:
    image = image_of(2)
    put_image(registry.url, f"{repository}/one", "v1", image)
    log = RequestLog()

    with Relay(registry.host, observer=log) as relay:
        result = engine.copy(f"{relay.url}/{repository}/one:v1", f"{relay.url}/{repository}/two:v1")

    assert_same_image(registry.url, f"{repository}/two", "v1", image)
    assert result.bytes_sent == 0
    assert log.count("GET", "/blobs/") == log.body_bytes("PATCH") == 0
    assert log.count("POST", "mount=") == len(image.all_blobs())


def test_new_tag_costs_no_blob(engine: Engine, registry: Registry, repository: str) -> None:
    image = image_of(3)
    put_image(registry.url, repository, "v1", image)

    result = engine.copy(f"{registry.url}/{repository}:v1", f"{registry.url}/{repository}:v2")

    assert_same_image(registry.url, repository, "v2", image)
    assert result.bytes_sent == 0


def test_image_without_a_tag_is_latest(
    engine: Engine, registry: Registry, repository: str, tmp_path: Path
) -> None:
    image = make_image(4)
    write_layout(tmp_path / "layout", {"only": image})

    engine.copy(f"oci:{tmp_path}/layout", f"{registry.url}/{repository}")

    assert_same_image(registry.url, repository, "latest", image)


def test_unknown_name_lists_the_existing_names(
    engine: Engine, embedded: EmbeddedRegistry, tmp_path: Path
) -> None:
    put_image(embedded.url, "app", "v1", image_of())
    target = f"oci:{tmp_path}/layout:v1"

    with pytest.raises(NotFound, match="v2"):
        engine.copy(f"{embedded.url}/app:v2", target)
    with pytest.raises(NotFound, match="nobody"):
        engine.copy(f"{embedded.url}/nobody:v1", target)
    with pytest.raises(NotFound) as raised:
        engine.copy(f"{embedded.url}/app:v1", target, platforms=["linux/s390x"])
    with pytest.raises(NotFound):
        engine.copy(f"oci:{tmp_path}/missing:v1", target)
    with pytest.raises(InvalidManifest):
        engine.copy(f"{embedded.url}/app:v1", target, platforms=["nonsense"])

    assert AMD64 in raised.value.remedy


def test_each_side_has_trust_of_its_own(
    embedded: EmbeddedRegistry, ca: CertificateAuthority, tmp_path: Path
) -> None:
    image = make_image(5)
    put_image(embedded.url, "app", "v1", image)
    context = ca.issue().server_context()
    trusting = Endpoints(destination=EndpointOptions(TLSSettings(verify=str(ca.path))))

    with EmbeddedRegistry(tmp_path / "secure", ssl_context=context) as secure:
        target = f"docker://{secure.host}/app:v1"
        with (
            Engine(QUICK, journal=Journal(None)) as engine,
            pytest.raises(TLSFailure, match="not trusted"),
        ):
            engine.copy(f"{embedded.url}/app:v1", target)
        with Engine(QUICK, endpoints=trusting, journal=Journal(None)) as engine:
            result = engine.copy(f"{embedded.url}/app:v1", target)
            with pytest.raises(TLSFailure):
                engine.copy(target, f"{embedded.url}/back:v1")

    assert str(result.digest) == image.digest
    assert blob_path(tmp_path / "secure", image.digest).read_bytes() == image.manifest


def test_damaged_blob_fails_the_copy_and_writes_no_tag(
    engine: Engine, embedded: EmbeddedRegistry, registry: Registry, repository: str, tmp_path: Path
) -> None:
    image = make_image(6, (300_000,))
    write_layout(tmp_path / "layout", {"v1": image})
    digest = max(image.blobs, key=lambda each: len(image.blobs[each]))
    path = blob_path(tmp_path / "layout", digest)
    path.write_bytes(path.read_bytes()[:-1] + b"!")

    with pytest.raises(Exception, match=Digest.parse(digest).hex):
        engine.copy(f"oci:{tmp_path}/layout:v1", f"{registry.url}/{repository}:v1")

    with pytest.raises(NotFound):
        engine.copy(f"{registry.url}/{repository}:v1", f"oci:{tmp_path}/out:v1")
