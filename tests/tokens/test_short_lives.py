"""Tokens that live two seconds, under sixteen workers; the registry refuses them after that."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import requests

from concil import Engine, MirrorItem, TransferConfig
from tests.support.images import assert_same_image, make_image, put_image, write_blob, write_layout
from tests.support.token_service import TokenService
from tests.tokens.conftest import TokenRegistry

pytestmark = pytest.mark.real
LIFETIME = 2.0  # seconds
RENEWED = 0.8 * LIFETIME  # seconds
LAYERS = 9
LATENCY = 0.1  # seconds, in each direction


@pytest.fixture
def engine() -> Engine:
    return Engine(
        TransferConfig(workers=16, concurrent_images=16, jobs_per_host=16, chunk_size=256 * 1024)
    )


def tags(count: int) -> list[str]:
    return [f"v{number}" for number in range(count)]


def kinds_of(service: TokenService) -> int:
    """Return for how many kinds of scopes it was asked."""
    return len({asked.scopes for asked in service.requests})


def refusals(place: TokenRegistry) -> int:
    """Return how many requests the registry answered with 401."""
    return place.registry.log.read_text().count('" 401 ')


@pytest.mark.parametrize(("ago", "status"), [(0.0, 404), (3.1, 401)])
def test_the_registry_refuses_a_token_after_its_life(
    token_registry: TokenRegistry, ago: float, status: int
) -> None:
    token_registry.service.lifetime = LIFETIME
    token_registry.service.token_clock_skew = -ago  # its end is a whole second of the clock
    with token_registry.session("x") as session:
        answer = session.get(f"{token_registry.registry.url}/v2/x/tags/list", timeout=20)

    assert answer.status_code == status


def test_a_mirror_outlives_its_tokens(
    token_registry: TokenRegistry, engine: Engine, tmp_path: Path
) -> None:
    names = tags(50)
    images = {tag: make_image(number, (300,) * LAYERS) for number, tag in enumerate(names)}
    with token_registry.session("x") as session:
        for tag, made in images.items():
            put_image(token_registry.registry.url, "x", tag, made, session=session)
    token_registry.service.lifetime = LIFETIME
    token_registry.relay.latency = LATENCY
    items = [
        MirrorItem(token_registry.address(f"x:{tag}"), f"oci:{tmp_path}/copy:{tag}")
        for tag in names
    ]

    began = time.monotonic()
    with engine:
        report = engine.mirror(items)
    took = time.monotonic() - began

    kinds = kinds_of(token_registry.service)
    assert not report.failed
    assert token_registry.log.count() >= 500
    assert took > 2 * LIFETIME
    assert 1 < len(token_registry.service.requests) <= took / RENEWED + kinds
    # One for each worker that came before the first token, and what a busy machine adds.
    assert 1 <= refusals(token_registry) <= 32


def test_a_push_of_many_images_outlives_its_tokens(
    token_registry: TokenRegistry, engine: Engine, tmp_path: Path
) -> None:
    names = tags(16)
    images = {tag: make_image(number, (300,) * 5) for number, tag in enumerate(names)}
    write_layout(tmp_path / "images", images)
    token_registry.service.lifetime = LIFETIME
    token_registry.relay.latency = LATENCY
    items = [
        MirrorItem(f"oci:{tmp_path}/images:{tag}", token_registry.address(f"y:{tag}"))
        for tag in names
    ]

    began = time.monotonic()
    with engine:
        report = engine.mirror(items)
    took = time.monotonic() - began

    kinds = kinds_of(token_registry.service)
    assert not report.failed
    assert 1 <= refusals(token_registry) <= 32 * kinds
    pulls = sum(asked.scopes == ("repository:y:pull",) for asked in token_registry.service.requests)
    pushes = len(token_registry.service.requests) - pulls
    assert pushes <= took / RENEWED + 1
    # One token is renewed for both; a busy machine adds those that expired on their way.
    assert pulls <= 1 + pushes // 2
    token_registry.service.lifetime = 300
    with token_registry.session("y") as session:
        for tag, made in images.items():
            assert_same_image(token_registry.registry.url, "y", tag, made, session)


def test_each_chunk_has_a_token_that_lives(
    token_registry: TokenRegistry, engine: Engine, tmp_path: Path
) -> None:
    digest = write_blob(tmp_path / "file", 7, 5 * 1024 * 1024)
    token_registry.service.lifetime = LIFETIME
    token_registry.relay.rate = 1024 * 1024

    with engine:
        pushed = engine.push_blob(tmp_path / "file", token_registry.address("z"))

    assert str(pushed.digest) == digest
    assert len(token_registry.service.requests) > 2
    with token_registry.session("z") as session:
        url = f"{token_registry.registry.url}/v2/z/blobs/{digest}"
        assert session.head(url, timeout=20).status_code == requests.codes.ok
