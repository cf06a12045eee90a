from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import pytest

from concil import Engine, MirrorItem, TransferConfig
from tests.resume.child_processes import MIB, TIMEOUT
from tests.support.docker_registry import DockerRegistry
from tests.support.images import (
    assert_same_image,
    digest_of,
    make_blob,
    make_image,
    put_blob,
    put_image,
)
from tests.support.quick_retries import PERSISTENT
from tests.support.relay import Relay
from tests.support.scale import FULL

pytestmark = pytest.mark.real
CHUNK = (10 if FULL else 2) * MIB
SIZE = (1024 if FULL else 24) * MIB + 7
Result = TypeVar("Result")
RATE = SIZE  # bytes a second and connection, so that a restart comes in the middle


@pytest.fixture
def engine(workers: int) -> Iterator[Engine]:
    config = TransferConfig(workers=workers, chunk_size=CHUNK, range_size=2 * MIB, retry=PERSISTENT)
    with Engine(config) as running:
        yield running


@pytest.fixture
def registry(fresh_docker_registry: DockerRegistry) -> DockerRegistry:
    return fresh_docker_registry


@pytest.fixture
def relay(registry: DockerRegistry) -> Iterator[Relay]:
    with Relay(registry.host) as running:
        running.rate = RATE
        yield running


def restarted(
    registry: DockerRegistry,
    relay: Relay,
    reached: Callable[[Relay], bool],
    transfer: Callable[[], Result],
) -> Result:
    """Kill and start the registry again in the middle of a transfer; return its result.

    The transfer runs in the other thread: a registry dies with the one that started it.
    """
    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(transfer)
        relay.wait_for(lambda watched: reached(watched) or running.done(), timeout=TIMEOUT)
        assert not running.done()
        registry.kill()
        registry.restart()
        return running.result(timeout=TIMEOUT)


def test_a_push_outlives_the_registry(
    registry: DockerRegistry, relay: Relay, engine: Engine, tmp_path: Path
) -> None:
    blob = make_blob(3, SIZE)
    (tmp_path / "file").write_bytes(blob)

    pushed = restarted(
        registry,
        relay,
        lambda r: r.bytes_up > SIZE // 2,
        lambda: engine.push_blob(tmp_path / "file", f"{relay.url}/x"),
    )

    engine.pull_blob(f"{registry.url}/x@{pushed.digest}", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == blob


def test_a_pull_outlives_the_registry(
    registry: DockerRegistry, relay: Relay, engine: Engine, tmp_path: Path
) -> None:
    blob = make_blob(4, SIZE)
    put_blob(registry.url, "x", blob)

    restarted(
        registry,
        relay,
        lambda r: r.bytes_down > SIZE // 2,
        lambda: engine.pull_blob(f"{relay.url}/x@{digest_of(blob)}", tmp_path / "pulled"),
    )

    assert (tmp_path / "pulled").read_bytes() == blob


def test_a_mirror_outlives_its_destination(
    registry: DockerRegistry, relay: Relay, engine: Engine, docker_registry: DockerRegistry
) -> None:
    images = {f"m/{n}": make_image(60 + n, (SIZE // 8, SIZE // 5, 1000)) for n in range(4)}
    for name, image in images.items():
        put_image(docker_registry.url, name, "1", image)

    items = [
        MirrorItem(f"{docker_registry.url}/{name}:1", f"{relay.url}/{name}:1") for name in images
    ]
    report = restarted(
        registry, relay, lambda r: r.bytes_up > SIZE // 2, lambda: engine.mirror(items)
    )

    assert report.failed == []
    for name, image in images.items():
        assert_same_image(registry.url, name, "1", image)
