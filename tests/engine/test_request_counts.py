"""What a copy of an image costs in requests, between registries of both kinds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from concil.config import TransferConfig
from concil.engine.engine import Engine
from concil.server import EmbeddedRegistry, RegistryBehavior, Request, Response
from tests.engine.engine_setup import Registry
from tests.support.images import assert_same_image, make_image, make_layer, put_blob, put_image
from tests.support.relay import Relay
from tests.support.request_log import RequestLog

pytestmark = pytest.mark.timeout(60)
LAYERS = [make_layer(seed, 1_000 + seed) for seed in range(3)]
SHARED = make_layer(9, 5_000)


@dataclass(frozen=True)
class Counted:
    """Relays in front of a source and a destination, which log to one list."""

    source: str  # URL
    destination: str  # URL
    log: RequestLog

    def lines(self) -> list[str]:
        """Return the requests as method and path."""
        return [f"{request.method} {request.path}" for request in self.log.requests]


@pytest.fixture
def source(tmp_path: Path) -> Iterator[EmbeddedRegistry]:
    with EmbeddedRegistry(tmp_path / "source") as registry:
        yield registry


@pytest.fixture
def counted(source: EmbeddedRegistry, registry: Registry) -> Iterator[Counted]:
    log = RequestLog()
    with (
        Relay(source.host, observer=log) as first,
        Relay(registry.host, observer=log) as second,
    ):
        yield Counted(first.url, second.url, log)


def test_new_image_of_four_blobs(
    engine: Engine, counted: Counted, source: EmbeddedRegistry, registry: Registry, repository: str
) -> None:
    image = make_image(1, LAYERS)
    put_image(source.url, "app", "v1", image)

    engine.copy(f"{counted.source}/app:v1", f"{counted.destination}/{repository}:v1")

    assert_same_image(registry.url, repository, "v1", image)
    assert len(counted.lines()) <= 16, "\n".join(counted.lines())


def test_unchanged_image(
    engine: Engine, counted: Counted, source: EmbeddedRegistry, registry: Registry, repository: str
) -> None:
    image = make_image(1, LAYERS)
    put_image(source.url, "app", "v1", image)
    put_image(registry.url, repository, "v1", image)

    engine.copy(f"{counted.source}/app:v1", f"{counted.destination}/{repository}:v1")

    assert len(counted.lines()) == 2, "\n".join(counted.lines())


def test_blob_of_another_repository_is_mounted(
    engine: Engine, counted: Counted, source: EmbeddedRegistry, registry: Registry, repository: str
) -> None:
    first, second = make_image(1, [SHARED]), make_image(2, [*LAYERS, SHARED])
    put_image(source.url, "one", "v1", first)
    put_image(source.url, "two", "v1", second)
    names = [f"{repository}/one", f"{repository}/two"]
    engine.copy(f"{counted.source}/one:v1", f"{counted.destination}/{names[0]}:v1")
    before = len(counted.lines())

    engine.copy(f"{counted.source}/two:v1", f"{counted.destination}/{names[1]}:v1")

    assert_same_image(registry.url, names[1], "v1", second)
    lines = counted.lines()[before:]
    assert len(lines) <= 17, "\n".join(lines)


class AnswersMounts(RegistryBehavior):
    """A registry that answers every mount from a repository itself with one status."""

    def __init__(self, status: int) -> None:
        self.status = status
        self.mounts = 0

    def before_request(self, request: Request) -> Response | None:
        if request.method == "POST" and "mount" in request.query:
            self.mounts += 1
            return Response(self.status)
        return None


@pytest.mark.parametrize("status", [200, 201, 202, 400, 403, 404, 405, 500, 501])
def test_nonsense_in_answer_to_mounts_loses_nothing(
    tmp_path: Path, source: EmbeddedRegistry, config: TransferConfig, engine: Engine, status: int
) -> None:
    images = {f"v{n}": make_image(20 + n, [*LAYERS, SHARED]) for n in range(2)}
    behavior = AnswersMounts(status)
    with EmbeddedRegistry(tmp_path / "target", behavior=behavior) as target:
        for tag, image in images.items():
            put_image(source.url, "app", tag, image)
            engine.copy(f"{source.url}/app:{tag}", f"{target.url}/app:{tag}")
            assert_same_image(target.url, "app", tag, image)

    assert behavior.mounts


def test_registry_that_never_mounts_gets_a_large_blob_once(
    tmp_path: Path, source: EmbeddedRegistry, engine: Engine
) -> None:
    large = make_layer(30, 1_000_000)
    image = make_image(31, [large])
    put_image(source.url, "app", "v1", image)

    class NeverMounts(RegistryBehavior):
        def before_request(self, request: Request) -> Response | None:
            request.query.pop("mount", None)
            return None

    with EmbeddedRegistry(tmp_path / "target", behavior=NeverMounts()) as target:
        put_blob(target.url, "app", large.blob)
        log = RequestLog()
        with Relay(target.host, observer=log) as relay:
            engine.copy(f"{source.url}/app:v1", f"{relay.url}/app:v1")
        assert_same_image(target.url, "app", "v1", image)

    assert log.body_bytes("PUT") + log.body_bytes("PATCH") < len(large.blob)
