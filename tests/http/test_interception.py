"""What programs test their requests with sees those of the hub and of the engine, too."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import pytest
import requests
import requests_mock
import responses

from concil import DockerHub, Engine, TransferConfig
from concil.errors import NotFound
from concil.oci.media_types import OCI_MANIFEST
from concil.transfer.journal import Journal

# Nobody answers there: what is not intercepted fails.
URL = "https://registry.invalid/v2/team/app"
ADDRESS = "registry.invalid/team/app"


def digest_of(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


LAYER, CONFIG = b"layer", b"{}"
MANIFEST = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": digest_of(CONFIG),
            "size": len(CONFIG),
        },
        "layers": [
            {
                "mediaType": "application/vnd.oci.image.layer.v1.tar",
                "digest": digest_of(LAYER),
                "size": len(LAYER),
            }
        ],
    }
).encode()


class Mock(Protocol):
    """What the two libraries have in common here."""

    def answer(self, method: str, url: str, body: bytes, status: int = 200) -> None:
        """Answer a request."""
        ...

    def seen(self) -> list[tuple[str, str]]:
        """The requests so far."""
        ...


class RequestsMock:
    """By requests_mock."""

    def __init__(self, mocker: requests_mock.Mocker) -> None:
        self._mocker = mocker

    def answer(self, method: str, url: str, body: bytes, status: int = 200) -> None:
        headers = {"Content-Length": str(len(body)), "Content-Type": OCI_MANIFEST}
        self._mocker.register_uri(method, url, content=body, status_code=status, headers=headers)

    def seen(self) -> list[tuple[str, str]]:
        return [(str(each.method), str(each.url)) for each in self._mocker.request_history]


class Responses:
    """By responses."""

    def __init__(self, mock: responses.RequestsMock) -> None:
        self._mock = mock

    def answer(self, method: str, url: str, body: bytes, status: int = 200) -> None:
        self._mock.add(method, url, body=body, status=status, content_type=OCI_MANIFEST)

    def seen(self) -> list[tuple[str, str]]:
        return [(str(call.request.method), str(call.request.url)) for call in self._mock.calls]


@contextmanager
def intercepted(library: str) -> Iterator[Mock]:
    if library == "requests_mock":
        with requests_mock.Mocker() as mocker:
            yield RequestsMock(mocker)
    else:
        with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
            yield Responses(mock)


@pytest.fixture(params=["requests_mock", "responses"])
def library(request: pytest.FixtureRequest) -> str:
    """Each library in turn."""
    name: str = request.param
    return name


def test_the_requests_of_a_hub(library: str) -> None:
    with DockerHub(f"docker://{ADDRESS}:1", retry=1) as hub, intercepted(library) as mock:
        mock.answer("GET", f"{URL}/manifests/1", MANIFEST)
        mock.answer("GET", f"{URL}/blobs/{digest_of(LAYER)}", LAYER)
        mock.answer("HEAD", f"{URL}/blobs/{digest_of(LAYER)}", b"")
        mock.answer("GET", f"{URL}/blobs/{digest_of(CONFIG)}", b"[]")
        mock.answer("GET", f"{URL}/tags/list", b'{"tags": ["1"]}')

        assert hub.get_manifest(accept=None) == MANIFEST
        with hub.open_blob(digest_of(LAYER)) as response:
            assert response.content == LAYER
        assert hub.has_blob(digest_of(LAYER))
        assert hub.request("GET", f"{hub.url}/tags/list").json() == {"tags": ["1"]}
        with pytest.raises(RuntimeError, match="hash to"):
            _ = hub.open_blob(digest_of(CONFIG)).content

        assert len(mock.seen()) == 5


def test_an_error_of_a_hub(library: str) -> None:
    with DockerHub(f"docker://{ADDRESS}:1", retry=1) as hub, intercepted(library) as mock:
        mock.answer("GET", f"{URL}/manifests/1", b'{"errors": []}', 404)

        with pytest.raises(NotFound):
            hub.get_manifest()


def test_the_requests_of_an_engine(library: str, tmp_path: Path) -> None:
    with (
        Engine(TransferConfig(workers=2), journal=Journal(None)) as engine,
        intercepted(library) as mock,
    ):
        for method in ("GET", "HEAD"):
            mock.answer(method, f"{URL}/manifests/1", MANIFEST if method == "GET" else b"")
        for content in (LAYER, CONFIG):
            mock.answer("GET", f"{URL}/blobs/{digest_of(content)}", content)

        engine.copy(f"{ADDRESS}:1", f"oci:{tmp_path}/layout:1")

        blobs = [url for _, url in mock.seen() if "/blobs/" in url]
        assert len(blobs) == 2
    path = tmp_path / "layout" / "blobs" / digest_of(LAYER).replace(":", "/")
    assert path.read_bytes() == LAYER


def test_an_adapter_that_is_mounted() -> None:
    adapter = requests_mock.Adapter()
    adapter.register_uri("GET", f"{URL}/manifests/1", content=MANIFEST)
    with DockerHub(f"docker://{ADDRESS}:1", retry=1) as hub:
        hub.session.mount("https://", adapter)

        assert hub.get_manifest(accept=None) == MANIFEST


def test_a_send_that_is_wrapped_as_tracing_does(monkeypatch: pytest.MonkeyPatch) -> None:
    send, seen = requests.Session.send, []

    def traced(session: requests.Session, request: Any, **kwargs: Any) -> requests.Response:  # noqa: ANN401
        seen.append(request.url)
        return send(session, request, **kwargs)

    adapter = requests_mock.Adapter()
    adapter.register_uri("GET", f"{URL}/manifests/1", content=MANIFEST)
    with DockerHub(f"docker://{ADDRESS}:1", retry=1) as hub:
        hub.session.mount("https://", adapter)
        monkeypatch.setattr(requests.Session, "send", traced)

        assert hub.get_manifest(accept=None) == MANIFEST

    assert seen == [f"{URL}/manifests/1"]
