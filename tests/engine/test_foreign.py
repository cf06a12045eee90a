"""Foreign layers stay where they are, or come from the source, or from their URLs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from concil.engine.engine import Engine
from concil.errors import (
    ConcilError,
    DigestMismatch,
    NotFound,
    ProtocolViolation,
    RegistryError,
    SizeMismatch,
)
from concil.server import EmbeddedRegistry
from concil.transfer.image.copier import ForeignLayers
from tests.engine.engine_setup import CHUNK
from tests.support.docker_registry import DockerRegistry
from tests.support.images import (
    DOCKER,
    OCI,
    Image,
    MediaTypes,
    assert_same_image,
    digest_of,
    get_manifest,
    make_blob,
    make_image,
    make_index,
    put_blob,
    put_image,
)
from tests.support.proxy import Proxy
from tests.support.relay import Relay
from tests.support.request_log import RequestLog
from tests.support.scripted_server import ReceivedRequest, ScriptedResponse, ScriptedServer, reply
from tests.support.tls import CertificateAuthority

LAYER = make_blob(77, 2 * CHUNK + 7)
DOCKER_FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
OCI_FOREIGN = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
BOTH = pytest.mark.parametrize(
    ("types", "foreign"), [(DOCKER, DOCKER_FOREIGN), (OCI, OCI_FOREIGN)], ids=["docker", "oci"]
)


def image_of(*urls: str, types: MediaTypes = DOCKER, foreign: str = DOCKER_FOREIGN) -> Image:
    """Return an image with an ordinary layer and a foreign one, whose blob it has not."""
    image = make_image(1, (3_000,), platform="windows/amd64", types=types)
    document = json.loads(image.manifest)
    layer = {"mediaType": foreign, "digest": digest_of(LAYER), "size": len(LAYER)}
    document["layers"].insert(0, layer | ({"urls": list(urls)} if urls else {}))
    return Image(
        types.manifest, json.dumps(document).encode(), image.blobs, platform="windows/amd64"
    )


class ForeignLayerServer:
    """A server outside that has the layer, behind a proxy that leads there."""

    def __init__(self, server: ScriptedServer, proxy: Proxy) -> None:
        self.server = server
        self.proxy = proxy
        self.url = f"https://layers.example:{server.port}/layer"
        server.respond("GET", "/layer", self._get)

    def _get(self, seen: ReceivedRequest) -> ScriptedResponse:
        asked = seen.headers.get("range")
        if asked is None:
            return reply(200, LAYER)
        first, _, last = asked.removeprefix("bytes=").partition("-")
        stop = int(last) + 1 if last else len(LAYER)
        told = f"bytes {first}-{stop - 1}/{len(LAYER)}"
        return reply(206, LAYER[int(first) : stop], Content_Range=told)


@pytest.fixture
def layer_server(
    ca: CertificateAuthority, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ForeignLayerServer]:
    context = ca.issue("layers.example").server_context()
    with ScriptedServer(context=context) as server, Proxy() as proxy:
        monkeypatch.setenv("https_proxy", proxy.url)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        monkeypatch.setenv("SSL_CERT_FILE", str(ca.path))
        yield ForeignLayerServer(server, proxy)


def addresses(registry: EmbeddedRegistry) -> tuple[str, str]:
    return f"{registry.url}/from:v1", f"{registry.url}/to:v1"


def has_layer(registry: EmbeddedRegistry, tmp_path: Path) -> bool:
    with Engine() as engine:
        try:
            engine.pull_blob(f"{registry.url}/to@{digest_of(LAYER)}", tmp_path / "pulled")
        except NotFound:
            return False
    return (tmp_path / "pulled").read_bytes() == LAYER


@BOTH
def test_foreign_layers_are_skipped_and_reported(
    engine: Engine, embedded: EmbeddedRegistry, tmp_path: Path, types: MediaTypes, foreign: str
) -> None:
    image = image_of("https://layers.example/x", types=types, foreign=foreign)
    put_image(embedded.url, "from", "v1", image)
    put_blob(embedded.url, "from", LAYER)

    result = engine.copy(*addresses(embedded))

    assert_same_image(embedded.url, "to", "v1", image)
    assert not has_layer(embedded, tmp_path)
    assert (result.skipped_foreign_layers, result.notes) == (1, ("1 foreign layer is skipped",))


def test_foreign_layers_come_from_the_source_if_it_has_them(
    engine: Engine, embedded: EmbeddedRegistry, tmp_path: Path
) -> None:
    put_image(embedded.url, "from", "v1", image_of())
    put_blob(embedded.url, "from", LAYER)

    result = engine.copy(*addresses(embedded), foreign_layers="source")

    assert has_layer(embedded, tmp_path)
    assert (result.skipped_foreign_layers, result.notes) == (0, ())


def test_source_mode_requests_layers_from_the_source_only(
    engine: Engine, embedded: EmbeddedRegistry, layer_server: ForeignLayerServer
) -> None:
    put_image(embedded.url, "from", "v1", image_of(layer_server.url))

    with pytest.raises(NotFound):
        engine.copy(*addresses(embedded), foreign_layers=ForeignLayers.SOURCE)

    assert layer_server.server.requests == []


def test_urls_are_asked_for_what_the_source_has_not(
    engine: Engine, embedded: EmbeddedRegistry, layer_server: ForeignLayerServer, tmp_path: Path
) -> None:
    put_image(embedded.url, "from", "v1", image_of("http://plain.example/x", layer_server.url))
    source, target = addresses(embedded)
    source = source.replace("http://", "http://user:s3cret@")

    result = engine.copy(source, target, foreign_layers=ForeignLayers.URLS)

    assert has_layer(embedded, tmp_path)
    assert (result.skipped_foreign_layers, result.notes) == (0, ())
    assert {seen.path for seen in layer_server.server.requests} == {"/layer"}
    for seen in layer_server.server.requests:
        assert not {"authorization", "cookie"} & set(seen.headers)


def test_urls_are_not_asked_for_what_the_source_has(
    engine: Engine, embedded: EmbeddedRegistry, layer_server: ForeignLayerServer, tmp_path: Path
) -> None:
    put_image(embedded.url, "from", "v1", image_of(layer_server.url))
    put_blob(embedded.url, "from", LAYER)

    engine.copy(*addresses(embedded), foreign_layers="urls")

    assert has_layer(embedded, tmp_path)
    assert layer_server.server.requests == []


def test_layer_from_a_url_is_fetched_by_ranges_into_a_layout(
    engine: Engine, embedded: EmbeddedRegistry, layer_server: ForeignLayerServer, tmp_path: Path
) -> None:
    put_image(embedded.url, "from", "v1", image_of(layer_server.url))

    engine.copy(addresses(embedded)[0], f"oci:{tmp_path}/out:v1", foreign_layers="urls")

    hex_digest = digest_of(LAYER).partition(":")[2]
    assert (tmp_path / "out" / "blobs" / "sha256" / hex_digest).read_bytes() == LAYER


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (reply(200, LAYER[:-1] + b"!"), DigestMismatch),
        (reply(200, LAYER[:-1]), SizeMismatch),
        (reply(404), NotFound),
        (reply(403, "ask your lawyer"), ConcilError),
        (reply(302, Location="https://10.0.0.1/layer"), ProtocolViolation),
        (reply(302, Location="http://other.example/layer"), ProtocolViolation),
        (reply(302, Location="/layer"), ProtocolViolation),
        (reply(206, LAYER, Content_Range=f"bytes 5-{len(LAYER) + 4}/*"), ProtocolViolation),
    ],
)
def test_url_that_has_something_else_fails_the_image(
    engine: Engine,
    embedded: EmbeddedRegistry,
    layer_server: ForeignLayerServer,
    answer: ScriptedResponse,
    error: type[ConcilError],
) -> None:
    put_image(embedded.url, "from", "v1", image_of(layer_server.url))
    layer_server.server.respond("GET", "/layer", answer)

    with pytest.raises(error):
        engine.copy(*addresses(embedded), foreign_layers="urls")

    with pytest.raises(NotFound):
        engine.copy(f"{embedded.url}/to:v1", f"{embedded.url}/again:v1")


@pytest.mark.parametrize("url", ["", "https://127.0.0.1:9/x", "http://layers.example/x"])
def test_url_that_must_not_be_asked_is_not(
    engine: Engine, embedded: EmbeddedRegistry, url: str
) -> None:
    put_image(embedded.url, "from", "v1", image_of(*filter(None, [url])))

    with pytest.raises((ProtocolViolation, NotFound)) as excinfo:
        engine.copy(*addresses(embedded), foreign_layers="urls")

    assert (url or "no URL for it") in str(excinfo.value)


@pytest.fixture
def allowing(tmp_path: Path) -> Iterator[DockerRegistry]:
    """Run a registry that lets manifests name layers of one host."""
    allowed = [r"^https://layers\.example/"]
    with DockerRegistry(tmp_path / "allowing", foreign_urls=allowed) as registry:
        yield registry


@pytest.mark.real
@BOTH
def test_real_registry_takes_them_where_it_allows_their_urls(
    engine: Engine,
    embedded: EmbeddedRegistry,
    allowing: DockerRegistry,
    types: MediaTypes,
    foreign: str,
) -> None:
    image = image_of("https://layers.example/x", types=types, foreign=foreign)
    index = make_index([image], types=types)
    put_image(embedded.url, "from", "v1", index)

    result = engine.copy(f"{embedded.url}/from:v1", f"{allowing.url}/to:v1")

    assert get_manifest(allowing.url, "to", "v1") == index.manifest
    assert get_manifest(allowing.url, "to", image.digest) == image.manifest
    assert result.notes == ("1 foreign layer is skipped",)


@pytest.mark.real
@pytest.mark.parametrize(
    "image",
    [
        image_of("https://layers.example/x"),
        image_of("https://layers.example/x", types=OCI, foreign=OCI_FOREIGN),
        image_of(),
    ],
    ids=["docker", "oci", "no url"],
)
def test_real_registry_that_allows_none_says_so_at_once(
    engine: Engine,
    embedded: EmbeddedRegistry,
    docker_registry: DockerRegistry,
    repository: str,
    image: Image,
) -> None:
    put_image(embedded.url, "from", "v1", image)
    log = RequestLog()

    with (
        Relay(docker_registry.host, observer=log) as relay,
        pytest.raises(RegistryError, match="refuses its foreign layers") as excinfo,
    ):
        engine.copy(f"{embedded.url}/from:v1", f"{relay.url}/{repository}:v1")

    assert "validation.manifests.urls.allow" in excinfo.value.remedy
    assert log.count("PUT", "/manifests/") == 1


@pytest.mark.real
def test_real_registry_wants_a_layer_that_has_no_url(
    engine: Engine, embedded: EmbeddedRegistry, docker_registry: DockerRegistry, repository: str
) -> None:
    put_image(embedded.url, "from", "v1", image_of(types=OCI, foreign=OCI_FOREIGN))
    put_blob(embedded.url, "from", LAYER)
    addresses = (f"{embedded.url}/from:v1", f"{docker_registry.url}/{repository}:v1")

    with pytest.raises(RegistryError) as excinfo:
        engine.copy(*addresses)
    engine.copy(*addresses, foreign_layers="source")

    assert 'foreign_layers="source"' in excinfo.value.remedy
