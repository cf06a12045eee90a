"""A mirror through a front that allows so many requests a second: few are refused, none fails."""

from __future__ import annotations

import pytest
import requests

from concil.config import HostLimits, TransferConfig
from concil.transfer.mirror.report import MirrorItem
from tests.engine.engine_setup import engine_of
from tests.support.docker_registry import DockerRegistry, SharedDockerRegistries
from tests.support.images import assert_same_image, make_image, make_layer, put_image
from tests.support.rate_limited_front import FixedWindow, Limit, RateLimitedFront, TokenBucket
from tests.support.scale import FULL

pytestmark = pytest.mark.real

RATE = 40  # requests a second
SHARED = make_layer(1, 5_000)
IMAGES = [make_image(100 + n, [SHARED, 500 + n]) for n in range(30)]
SOURCE = "storm/from"


@pytest.fixture(scope="module")
def full(docker_registries: SharedDockerRegistries) -> DockerRegistry:
    """Put the images into the registry."""
    docker_registry = docker_registries.get()
    with requests.Session() as session:
        session.trust_env = False
        for number, image in enumerate(IMAGES):
            put_image(docker_registry.url, SOURCE, f"v{number}", image, session=session)
    return docker_registry


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("window", 429),
        ("bucket", 503),
        *([("window", 503), ("bucket", 429)] if FULL else []),
    ],
)
def test_few_requests_of_a_mirror_are_refused(
    full: DockerRegistry, repository: str, workers: int, kind: str, status: int
) -> None:
    limit: Limit = FixedWindow(RATE) if kind == "window" else TokenBucket(RATE, RATE // 2)
    config = TransferConfig(workers=workers, concurrent_images=4)
    tells = (kind, status) == ("window", 429)

    with (
        RateLimitedFront(full.host, limit, retry_after=tells, status=status) as front,
        engine_of(config) as engine,
    ):
        report = engine.mirror(
            MirrorItem(f"{front.url}/{SOURCE}:v{n}", f"{front.url}/{repository}:v{n}")
            for n in range(len(IMAGES))
        )

    assert report.failed == []
    assert_same_image(full.url, repository, "v29", IMAGES[29])
    assert len(front.requests) >= 5 * len(IMAGES)
    # When the first is refused, up to eight are under way; of 503s it takes three each time.
    assert len(front.rejected_requests) <= (0.06 if status == 429 else 0.1) * len(front.requests)


def test_a_host_gets_no_more_requests_at_once_than_its_jobs(
    full: DockerRegistry, repository: str, workers: int
) -> None:
    """Those of all images that are looked at count, and not only blobs."""
    limit = TokenBucket(100_000, 100_000)
    with (
        RateLimitedFront(full.host, limit) as source,
        RateLimitedFront(full.host, limit) as destination,
    ):
        config = TransferConfig(
            workers=workers, concurrent_images=16, host_limits={source.host: HostLimits(jobs=2)}
        )
        with engine_of(config) as engine:
            report = engine.mirror(
                MirrorItem(f"{source.url}/{SOURCE}:v{n}", f"{destination.url}/{repository}:v{n}")
                for n in range(len(IMAGES))
            )

    assert report.failed == []
    assert source.max_concurrent <= 2
    assert len(source.requests) >= 3 * len(IMAGES)
