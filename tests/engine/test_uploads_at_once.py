"""Hosts that bear only so many uploads at once get no more, and nothing else waits for them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from concil.config import TransferConfig
from concil.server import EmbeddedRegistry, RegistryBehavior, Request, Response
from tests.engine.engine_setup import QUICK, WAIT, engine_of, file_of
from tests.support.images import assert_same_image, make_image, put_image
from tests.support.proxy import Proxy
from tests.transfer.transfer_setup import run_concurrently

ECR = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
LAYERS = 8
BUSY = replace(QUICK, workers=LAYERS, jobs_per_host=LAYERS)  # all could go at once
SHORTLY = 0.1  # seconds in which one upload too many would be seen


class Counting(RegistryBehavior):
    """Keeps uploads open until as many are as should be, and a little longer; counts them."""

    def __init__(self) -> None:
        self.expected = 1
        self.most = 0
        self._open = 0
        self._opened = threading.Condition()  # guards all above

    def before_request(self, request: Request) -> Response | None:
        if request.method == "PUT" and "/uploads/" in request.path:
            with self._opened:
                self._opened.wait_for(lambda: self.most >= self.expected, WAIT)
                self._opened.wait_for(lambda: self.most > self.expected, SHORTLY)
        return None

    def after_response(self, request: Request, reply: Response) -> Response:
        with self._opened:
            if request.method == "POST" and reply.status == 202:
                self._open += 1
                self.most = max(self.most, self._open)
                self._opened.notify_all()
            elif request.method == "PUT" and "/uploads/" in request.path:
                self._open -= 1
        return reply


@pytest.fixture
def counting() -> Counting:
    return Counting()


@pytest.fixture
def target(tmp_path: Path, counting: Counting) -> Iterator[EmbeddedRegistry]:
    with EmbeddedRegistry(tmp_path / "target", behavior=counting) as registry:
        yield registry


@pytest.fixture
def by_name(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let every host name mean this machine."""
    with Proxy() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        yield


@pytest.fixture
def busy(config: TransferConfig) -> TransferConfig:
    """Return settings under which all could go at once."""
    return replace(config, workers=min(config.workers, 1) * LAYERS, jobs_per_host=LAYERS)


def named(host: str, registry: EmbeddedRegistry) -> str:
    """Return a repository's address under the name of a host."""
    return f"http://{host}:{registry.host.rpartition(':')[2]}/app"


@pytest.mark.usefixtures("by_name")
@pytest.mark.parametrize(
    ("host", "most"), [(ECR, 1), ("public.ecr.aws", 1), ("ghcr.io", 4), ("else.example", LAYERS)]
)
def test_image_is_sent_by_as_many_uploads_as_the_host_accepts(
    embedded: EmbeddedRegistry, target: EmbeddedRegistry, counting: Counting, host: str, most: int
) -> None:
    put_image(embedded.url, "app", "v1", make_image(1, [100 + n for n in range(LAYERS - 1)]))
    counting.expected = most

    with engine_of(BUSY) as engine:
        engine.copy(f"{embedded.url}/app:v1", f"{named(host, target)}:v1")

    assert counting.most == most


@pytest.mark.usefixtures("by_name")
def test_files_wait_for_one_another(
    target: EmbeddedRegistry, counting: Counting, tmp_path: Path
) -> None:
    files = [file_of(tmp_path, 1000 + seed, seed) for seed in range(4)]

    with engine_of(BUSY) as engine:
        run_concurrently(
            *[partial(engine.push_blob, file.path, named(ECR, target)) for file in files]
        )

    assert counting.most == 1


@pytest.mark.usefixtures("by_name")
def test_one_after_the_other_is_no_trouble(
    embedded: EmbeddedRegistry, target: EmbeddedRegistry, counting: Counting, config: TransferConfig
) -> None:
    image = make_image(1, [100, 200])
    put_image(embedded.url, "app", "v1", image)

    with engine_of(config) as engine:
        engine.copy(f"{embedded.url}/app:v1", f"{named(ECR, target)}:v1")

    assert_same_image(target.url, "app", "v1", image)
    assert counting.most == 1
