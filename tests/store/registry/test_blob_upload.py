from __future__ import annotations

from pathlib import Path

import pytest

from concil import Engine, TransferConfig
from concil.errors import ProtocolViolation, StatusError
from concil.server import EmbeddedRegistry, ErrorResponse, RegistryBehavior, Request, Response
from tests.support.images import assert_same_image, make_image, put_image


class Unsettled(RegistryBehavior):
    """Does not see a blob at once when a manifest that names it is put."""

    def __init__(self, times: int) -> None:
        self.times = times
        self.puts = 0

    def before_request(self, request: Request) -> Response | None:
        if request.method == "PUT" and "/manifests/" in request.path:
            self.puts += 1
            if self.puts <= self.times:
                raise ErrorResponse("MANIFEST_BLOB_UNKNOWN", "blob unknown to registry")
        return None


def there(tmp_path: Path, personality: RegistryBehavior) -> EmbeddedRegistry:
    return EmbeddedRegistry(tmp_path / "there", behavior=personality)


@pytest.fixture
def source(tmp_path: Path) -> str:
    """Return the address of an image in a layout."""
    with EmbeddedRegistry(tmp_path / "source") as registry:
        put_image(registry.url, "x", "1", make_image(1))
    return f"oci:{tmp_path}/source:x:1"


def test_a_manifest_is_put_again_where_a_blob_is_not_seen_yet(source: str, tmp_path: Path) -> None:
    unsettled = Unsettled(2)
    with (
        EmbeddedRegistry(tmp_path / "there", behavior=unsettled) as registry,
        Engine() as engine,
    ):
        engine.copy(source, f"{registry.url}/y:2")

        assert unsettled.puts == 3
        assert_same_image(registry.url, "y", "2", make_image(1))


def test_a_blob_that_is_never_seen_is_an_error(source: str, tmp_path: Path) -> None:
    unsettled = Unsettled(1000)
    with (
        EmbeddedRegistry(tmp_path / "there", behavior=unsettled) as registry,
        Engine() as engine,
    ):
        with pytest.raises(StatusError, match=r"^400 .*MANIFEST_BLOB_UNKNOWN"):
            engine.copy(source, f"{registry.url}/y:2")

        assert unsettled.puts == 3


class Forgetful(RegistryBehavior):
    """Takes every closing PUT, and keeps nothing."""

    def before_request(self, request: Request) -> Response | None:
        if request.method != "PUT" or "/uploads/" not in request.path:
            return None
        return Response(201, {"Location": "/v2/y/blobs/somewhere"})


def test_a_registry_that_keeps_nothing_is_found_out(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(300_000))
    config = TransferConfig(chunk_size=100_000)
    with (
        there(tmp_path, Forgetful()) as registry,
        Engine(config) as engine,
        pytest.raises(ProtocolViolation, match="does not have it"),
    ):
        engine.push_blob(tmp_path / "file", f"{registry.url}/y")
