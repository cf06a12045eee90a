"""A mirror from a registry that counts pulls, as Docker Hub does, ends before the wall."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from concil.config import TransferConfig
from concil.errors import QuotaExceeded
from concil.server import EmbeddedRegistry, RegistryBehavior, Request, Response
from concil.transfer.mirror.report import MirrorItem, MirrorReport
from tests.engine.engine_setup import engine_of
from tests.support.images import make_image, put_image

IMAGES = 12


class Pulls(RegistryBehavior):
    """Allows so many GETs of a manifest, and tells how many are left."""

    def __init__(self, left: int, *, told: bool = True) -> None:
        self.left = left
        self.told = told
        self.refused = 0
        self._lock = threading.Lock()  # guards left and refused

    def before_request(self, request: Request) -> Response | None:
        if request.method != "GET" or "/manifests/" not in request.path:
            return None
        with self._lock:
            if self.left == 0:
                self.refused += 1
                text = b"You have reached your pull rate limit. https://www.docker.com/increase"
                return Response(429, {"Retry-After": "3000"}, text)
            self.left -= 1
        return None

    def after_response(self, request: Request, reply: Response) -> Response:
        if self.told and "/manifests/" in request.path:
            reply.headers["ratelimit-limit"] = "100;w=21600"
            reply.headers["ratelimit-remaining"] = f"{self.left};w=21600"
            reply.headers["docker-ratelimit-source"] = "192.0.2.1"
        return reply


@pytest.fixture
def pulls() -> Pulls:
    return Pulls(1000)


@pytest.fixture
def source(tmp_path: Path, pulls: Pulls) -> Iterator[EmbeddedRegistry]:
    with EmbeddedRegistry(tmp_path / "source", behavior=pulls) as registry:
        for number in range(IMAGES):
            put_image(registry.url, "app", f"v{number}", make_image(number, [10, 20]))
        yield registry


def mirror(
    source: EmbeddedRegistry, target: EmbeddedRegistry, config: TransferConfig
) -> MirrorReport:
    with engine_of(config) as engine:
        return engine.mirror(
            MirrorItem(f"{source.url}/app:v{n}", f"{target.url}/app:v{n}") for n in range(IMAGES)
        )


def test_no_pull_is_refused_and_every_one_is_used(
    source: EmbeddedRegistry, embedded: EmbeddedRegistry, pulls: Pulls, config: TransferConfig
) -> None:
    pulls.left = 5

    report = mirror(source, embedded, config)

    assert (len(report.copied), len(report.failed)) == (5, IMAGES - 5)
    assert (pulls.left, pulls.refused) == (0, 0)
    for outcome in report.failed:
        assert isinstance(outcome.error, QuotaExceeded)
        assert "0 of 100 pulls in 6 h left" in str(outcome.error)
        assert "within 6 h" in outcome.error.remedy


def test_what_is_up_to_date_costs_nothing(
    source: EmbeddedRegistry, embedded: EmbeddedRegistry, pulls: Pulls, config: TransferConfig
) -> None:
    pulls.left = 5
    mirror(source, embedded, config)

    again = mirror(source, embedded, config)

    assert (len(again.present), len(again.failed)) == (5, IMAGES - 5)
    assert pulls.refused == 0


def test_unannounced_quota_is_hit_once(
    source: EmbeddedRegistry, embedded: EmbeddedRegistry, pulls: Pulls, config: TransferConfig
) -> None:
    pulls.left, pulls.told = 5, False

    report = mirror(source, embedded, config)

    assert (len(report.copied), len(report.failed)) == (5, IMAGES - 5)
    assert 1 <= pulls.refused <= min(IMAGES - 5, max(1, config.concurrent_images))
    assert any("You have reached your pull rate limit" in str(o.error) for o in report.failed)
