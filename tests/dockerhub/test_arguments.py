"""What a caller gives: digests that are compared, types, timeouts, retries, a `with`."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import requests

from concil.config import MIB, RetryPolicy, Timeouts
from concil.dockerhub import DockerHub, DockerPath, parse_docker_url
from concil.errors import (
    DigestMismatch,
    NotFound,
    RegistryNotFound,
    SizeMismatch,
    StatusError,
    UsageError,
)
from concil.oci.manifest import Digest
from concil.oci.media_types import ACCEPTED_TYPES, OCI_INDEX, OCI_MANIFEST
from concil.server import EmbeddedRegistry
from tests.dockerhub.conftest import MakeHub, RegistrySetup
from tests.support.behaviors import FirstChunkOnly
from tests.support.docker_registry import DockerRegistry
from tests.support.images import digest_of, make_blob
from tests.support.scripted_server import ScriptedResponse, ScriptedServer, reply

BLOB = make_blob(5, 100_000)
DIGEST = digest_of(BLOB)
Timeout: TypeAlias = float | tuple[float | None, float | None] | Timeouts | None

pytestmark = pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")


@pytest.fixture
def hub(server: ScriptedServer, make_hub: MakeHub) -> DockerHub:
    return make_hub(f"http://{server.host}/team/app:v1")


# Digests that are given ----------------------------------------------------------------------


@pytest.mark.parametrize("damaged", [BLOB[:-1] + b"?", BLOB[:-1], BLOB + b"?", b""])
def test_a_damaged_file_is_no_success_although_the_registry_has_the_blob(
    registry_setup: RegistrySetup,
    repository: str,
    make_hub: MakeHub,
    tmp_path: Path,
    damaged: bytes,
) -> None:
    hub = make_hub(registry_setup.url(repository), registry_setup.verify)
    hub.post_blob_data(BLOB, DIGEST)
    path = tmp_path / DIGEST.partition(":")[2]
    path.write_bytes(damaged)

    with pytest.raises((DigestMismatch, SizeMismatch)):
        hub.post_blob(str(path))
    with pytest.raises((DigestMismatch, SizeMismatch)):
        hub.post_blob_data(damaged, DIGEST)


@pytest.mark.parametrize("how", ["file", "data"])
def test_what_was_damaged_before_its_upload_goes_on_is_not_committed(
    tmp_path: Path, make_hub: MakeHub, how: str
) -> None:
    content = make_blob(6, 25 * MIB)
    damaged = b"?" + content[1:]
    digest = digest_of(content)
    path = tmp_path / digest.partition(":")[2]
    path.write_bytes(content)
    behavior = FirstChunkOnly()
    with EmbeddedRegistry(tmp_path / "served", behavior=behavior) as registry:
        hub = make_hub(f"{registry.url}/x", retry=1)
        with pytest.raises(StatusError):
            hub.post_blob(str(path))
        behavior.is_mended = True
        path.write_bytes(damaged)

        with pytest.raises(DigestMismatch):
            hub.post_blob(str(path)) if how == "file" else hub.post_blob_data(damaged, digest)

        with pytest.raises(NotFound):
            hub.open_blob(digest)


def test_digests_are_texts_or_digests(
    registry_setup: RegistrySetup, repository: str, make_hub: MakeHub
) -> None:
    hub = make_hub(registry_setup.url(f"{repository}:v1"), registry_setup.verify)
    digest = Digest.parse(DIGEST)
    config = Digest.from_bytes(b"{}")
    manifest = (
        f'{{"schemaVersion": 2, "mediaType": "{OCI_MANIFEST}", "config": {{"mediaType": '
        f'"application/vnd.oci.empty.v1+json", "digest": "{config}", "size": 2}}, "layers": []}}'
    ).encode()

    hub.post_blob_data(BLOB, digest)
    hub.post_blob_data(b"{}", config)
    hub.post_manifest(manifest, Digest.from_bytes(manifest), OCI_MANIFEST)

    assert hub.has_blob(digest)
    assert hub.open_blob(digest).content == BLOB
    assert (DockerPath(hub) / digest).read_bytes() == BLOB
    assert DockerPath(hub, digest).open().read() == BLOB
    assert hub.get_manifest(Digest.from_bytes(manifest), None) == manifest
    assert hub.open_manifest(Digest.from_bytes(manifest), accept=None).content == manifest


# Manifests of any type -----------------------------------------------------------------------


def pushed(hub: DockerHub, media_type: str) -> bytes:
    """Push an image or an index of it under the hub's tag."""
    config = Digest.from_bytes(b"{}")
    hub.post_blob_data(b"{}", config)
    image = (
        f'{{"schemaVersion": 2, "mediaType": "{OCI_MANIFEST}", "config": {{"mediaType": '
        f'"application/vnd.oci.empty.v1+json", "digest": "{config}", "size": 2}}, "layers": []}}'
    ).encode()
    hub.post_manifest(image, content_type=OCI_MANIFEST)
    if media_type == OCI_MANIFEST:
        return image
    index = (
        f'{{"schemaVersion": 2, "mediaType": "{OCI_INDEX}", "manifests": [{{"mediaType": '
        f'"{OCI_MANIFEST}", "digest": "{Digest.from_bytes(image)}", "size": {len(image)}}}]}}'
    ).encode()
    hub.post_manifest(index, content_type=OCI_INDEX)
    return index


@pytest.mark.parametrize("media_type", [OCI_MANIFEST, OCI_INDEX])
def test_a_manifest_of_any_type_is_found(
    registry_setup: RegistrySetup, repository: str, make_hub: MakeHub, media_type: str
) -> None:
    hub = make_hub(registry_setup.url(f"{repository}:v1"), registry_setup.verify)
    manifest = pushed(hub, media_type)
    digest = digest_of(manifest)

    for name in (None, "v1", digest, digest.partition(":")[2]):
        assert hub.get_manifest(name, accept=None) == manifest
        with hub.open_manifest(name, accept=None) as response:
            assert response.headers["Content-Type"] == media_type
            assert response.content == manifest
    for name in ("v1", digest):
        url = f"{hub.url}/manifests/{name}"
        assert hub.request("HEAD", url).headers["Docker-Content-Digest"] == digest
        assert hub.request("GET", url).content == manifest


def test_the_types_that_are_asked_for(server: ScriptedServer, hub: DockerHub) -> None:
    path = "/v2/team/app/manifests/v1"
    server.respond("GET", path, reply(200, b"{}"))
    anything = ", ".join((*ACCEPTED_TYPES, "*/*"))
    schema1 = "application/vnd.docker.distribution.manifest.v1+json"

    hub.get_manifest()
    hub.open_manifest().close()
    hub.get_manifest(accept=OCI_INDEX)
    hub.get_manifest(accept=None)
    hub.request("GET", f"{hub.url}/manifests/v1")
    hub.request("GET", f"{hub.url}/manifests/v1", headers={"accept": "text/plain"})
    hub.session.headers["Accept"] = "text/html"
    hub.request("GET", f"{hub.url}/manifests/v1")

    asked = [request.headers["accept"] for request in server.requests]
    assert asked == [schema1, schema1, OCI_INDEX, anything, anything, "text/plain", "text/html"]


# Types ---------------------------------------------------------------------------------------

WRONG: dict[str, tuple[Callable[[DockerHub], object], str]] = {
    "docker_url": (lambda _: DockerHub(None), "docker_url"),  # type: ignore[arg-type]
    "docker_url of bytes": (lambda _: DockerHub(b"docker://x/y"), "docker_url"),  # type: ignore[arg-type]
    "parse_docker_url": (lambda _: parse_docker_url(Path("x")), "docker_url"),  # type: ignore[arg-type]
    "verify": (lambda _: DockerHub("docker://x/y", 1), "verify"),  # type: ignore[arg-type]
    "timeout": (lambda _: DockerHub("docker://x/y", timeout="60"), "timeout"),  # type: ignore[arg-type]
    "timeout of a list": (lambda _: DockerHub("docker://x/y", timeout=[1, 2]), "timeout"),  # type: ignore[arg-type]
    "timeout of three": (lambda _: DockerHub("docker://x/y", timeout=(1, 2, 3)), "timeout"),  # type: ignore[arg-type]
    "retry": (lambda _: DockerHub("docker://x/y", retry="3"), "retry"),  # type: ignore[arg-type]
    "retry of a bool": (lambda _: DockerHub("docker://x/y", retry=True), "retry"),
    "open_blob": (lambda hub: hub.open_blob(None), "digest"),  # type: ignore[arg-type]
    "open_blob of bytes": (lambda hub: hub.open_blob(DIGEST.encode()), "digest"),  # type: ignore[arg-type]
    "open_layer": (lambda hub: hub.open_layer(7), "digest"),  # type: ignore[arg-type]
    "has_blob": (lambda hub: hub.has_blob(Path(DIGEST)), "digest"),  # type: ignore[arg-type]
    "post_blob": (lambda hub: hub.post_blob(None), "filename"),  # type: ignore[arg-type]
    "post_blob of bytes": (lambda hub: hub.post_blob(b"x"), "filename"),  # type: ignore[arg-type]
    "data": (lambda hub: hub.post_blob_data("text", DIGEST), "data"),  # type: ignore[arg-type]
    "digest of data": (lambda hub: hub.post_blob_data(b"", None), "digest"),  # type: ignore[arg-type]
    "manifest": (lambda hub: hub.post_manifest({}), "data"),  # type: ignore[arg-type]
    "tag": (lambda hub: hub.post_manifest(b"{}", 1.4), "tag"),  # type: ignore[arg-type]
    "content_type": (lambda hub: hub.post_manifest(b"{}", "a", None), "content_type"),  # type: ignore[arg-type]
    "hash": (lambda hub: hub.get_manifest(1.4), "hash"),  # type: ignore[arg-type]
    "hash of bytes": (lambda hub: hub.open_manifest(b"v1"), "hash"),  # type: ignore[arg-type]
    "accept": (lambda hub: hub.get_manifest(accept=[OCI_INDEX]), "accept"),  # type: ignore[arg-type]
    "method": (lambda hub: hub.request(None, hub.url), "method"),  # type: ignore[arg-type]
    "url": (lambda hub: hub.request("GET", None), "url"),  # type: ignore[arg-type]
    "path": (lambda hub: DockerPath(hub, 5), "digest"),  # type: ignore[arg-type]
    "path / digest": (lambda hub: DockerPath(hub) / None, "digest"),  # type: ignore[operator]
    "progress": (lambda hub: hub.open_blob(DIGEST, progress=5), "progress"),  # type: ignore[arg-type]
    "url of the hub": (lambda hub: setattr(hub, "url", None), "url"),
    "username": (lambda hub: _as_user(hub, 5, "x"), "username"),
    "password": (lambda hub: _as_user(hub, "me", b"x"), "password"),
}


def _as_user(hub: DockerHub, username: object, password: object) -> None:
    vars(hub).update(username=username, password=password)
    hub.has_blob(DIGEST)


@pytest.mark.parametrize("name", list(WRONG))
def test_a_wrong_type_is_told_by_the_name_of_the_argument(
    server: ScriptedServer, hub: DockerHub, name: str
) -> None:
    call, argument = WRONG[name]

    with pytest.raises(TypeError, match=rf"^{argument} must be .*, not "):
        call(hub)

    assert not server.requests


# Timeouts, retries, with ---------------------------------------------------------------------


def timeouts_of(timeout: Timeout) -> tuple[float, float]:
    """What a request is told of timeouts, as requests gets it."""
    seen: list[tuple[float, float]] = []
    with ScriptedServer() as server, DockerHub(f"http://{server.host}/x", timeout=timeout) as hub:
        server.respond("HEAD", f"/v2/x/blobs/{DIGEST}", reply(200))
        adapter = hub.session.get_adapter("http://x")
        send = adapter.send

        def noted(*args: Any, **kwargs: Any) -> requests.Response:  # noqa: ANN401 - requests'
            seen.append(kwargs["timeout"])
            return send(*args, **kwargs)

        adapter.send = noted  # type: ignore[method-assign]
        assert hub.has_blob(DIGEST)
    return seen[-1]


@pytest.mark.parametrize(
    ("timeout", "connect", "read"),
    [
        (None, 10, 60),
        (5, 10, 5),
        (0.5, 10, 0.5),
        ((3.05, 27), 3.05, 27),
        ((None, 27), 10, 27),
        ((3, None), 3, 60),
        (Timeouts(connect=1, idle=2), 1, 2),
    ],
)
def test_timeouts(timeout: Timeout, connect: float, read: float) -> None:
    assert timeouts_of(timeout) == (connect, read)


@pytest.mark.parametrize("timeout", [0, -1, (1, 0), (-1, 1), float("nan"), float("inf")])
def test_timeouts_that_cannot_be_meant(timeout: Timeout) -> None:
    with pytest.raises(UsageError, match="timeout"):
        DockerHub("docker://x/y", timeout=timeout)


@pytest.mark.parametrize(
    ("retry", "tries"),
    [(1, 1), (3, 3), (None, 6), (RetryPolicy(max_attempts=2, backoff_base=0.01), 2)],
)
def test_retries(
    server: ScriptedServer,
    make_hub: MakeHub,
    monkeypatch: pytest.MonkeyPatch,
    retry: int | RetryPolicy | None,
    tries: int,
) -> None:
    monkeypatch.setattr("random.uniform", lambda low, high: 0)
    server.respond("HEAD", f"/v2/x/blobs/{DIGEST}", reply(503))
    server.respond("GET", f"/v2/x/blobs/{DIGEST}", reply(503))
    hub = make_hub(f"http://{server.host}/x", retry=retry)

    with pytest.raises(StatusError):
        hub.has_blob(DIGEST)
    assert len(server.requests) == tries
    with pytest.raises(StatusError):
        hub.open_blob(DIGEST)
    assert len(server.requests) == 2 * tries


def test_retries_of_a_body(
    server: ScriptedServer, make_hub: MakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("random.uniform", lambda low, high: 0)
    server.respond(
        "GET", f"/v2/x/blobs/{DIGEST}", ScriptedResponse(200, b"", length=len(BLOB), cut="fin")
    )
    hub = make_hub(f"http://{server.host}/x", retry=2)

    with hub.open_blob(DIGEST) as response, pytest.raises(SizeMismatch):
        _ = response.content

    assert len(server.requests) == 2


def test_no_attempt_at_all_cannot_be_meant() -> None:
    with pytest.raises(UsageError, match="attempt"):
        DockerHub("docker://x/y", retry=0)


def test_a_hub_in_a_with_closes_its_connections(server: ScriptedServer) -> None:
    server.respond("HEAD", f"/v2/x/blobs/{DIGEST}", reply(404))
    with DockerHub(f"http://{server.host}/x") as hub:
        assert not hub.has_blob(DIGEST)
        assert not hub.has_blob(DIGEST)
        assert server.connections == 1

    assert not hub.has_blob(DIGEST)  # it can be used again
    assert server.connections == 2
    hub.close()


@pytest.mark.real
def test_a_with_at_the_real_registry(docker_registry: DockerRegistry, repository: str) -> None:
    with (
        DockerHub(f"http://{docker_registry.host}/{repository}") as hub,
        pytest.raises(RegistryNotFound),
    ):
        hub.open_blob("sha256:" + hashlib.sha256(os.urandom(8)).hexdigest())
