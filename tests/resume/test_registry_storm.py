"""A registry that is killed at random: what a mirror calls copied or up to date can be pulled."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from concil import Engine, MirrorItem, TransferConfig
from concil.config import RetryPolicy
from concil.transfer.mirror.report import MirrorReport
from tests.support.docker_registry import DockerRegistry
from tests.support.images import (
    Image,
    assert_same_image,
    make_image,
    make_index,
    make_layer,
    write_layout,
)
from tests.support.scale import FULL

# A rare fault is what these tests look for: one failure is enough.
pytestmark = [
    pytest.mark.real,
    pytest.mark.slow,
    pytest.mark.flaky(reruns=0),
    pytest.mark.threads_only,  # what it looks for is between threads
]

IMAGES = 40
SEEDS = range(10 if FULL else 1)
SHARED = make_layer(9_999, 30_000)


def images_of(seed: int) -> dict[str, Image]:
    """Return single images and indexes that share a layer."""
    made: dict[str, Image] = {}
    for number in range(IMAGES):
        base = 1_000 * seed + 10 * number
        if number % 3:
            made[f"app{number % 5}-{number}"] = make_image(base, (SHARED, 40_000, 500))
        else:
            children = [
                make_image(base + n, (SHARED, 2_000), platform=name)
                for n, name in enumerate(("linux/amd64", "linux/arm64"))
            ]
            made[f"app{number % 5}-{number}"] = make_index(children)
    return made


@contextmanager
def storm(registry: DockerRegistry, chance: random.Random) -> Iterator[list[int]]:
    """Kill the registry and start it again until the block ends; yield how often it was.

    In a thread that outlives the registries: each dies with the thread that started it.
    """
    over, kills = threading.Event(), [0]

    def blow() -> None:
        while not over.wait(chance.uniform(0.02, 0.4)):
            registry.kill()
            over.wait(chance.uniform(0, 0.1))
            registry.start()
            kills[0] += 1

    with ThreadPoolExecutor(1) as thread:
        blowing = thread.submit(blow)
        try:
            yield kills
        finally:
            over.set()
            blowing.result(timeout=60)
            registry.kill()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", SEEDS)
def test_no_image_counts_as_copied_that_cannot_be_pulled(
    fresh_docker_registry: DockerRegistry, tmp_path: Path, workers: int, seed: int
) -> None:
    registry, images = fresh_docker_registry, images_of(seed)
    write_layout(tmp_path / "layout", images)
    items = [
        MirrorItem(
            f"oci:{tmp_path / 'layout'}:{name}",
            f"{registry.url}/{name.partition('-')[0]}:v{name.partition('-')[2]}",
        )
        for name in images
    ]

    def mirror() -> MirrorReport:
        policy = RetryPolicy(max_attempts=4, backoff_base=0.05)
        with Engine(TransferConfig(workers=workers, concurrent_images=4, retry=policy)) as engine:
            return engine.mirror(items)

    claims: list[MirrorItem] = []
    with storm(registry, random.Random(seed)) as kills:
        for _ in range(3):
            report = mirror()
            claims += [each.item for each in report.outcomes if each.result is not None]
    registry.start()
    quiet = mirror()
    claims += [each.item for each in quiet.outcomes if each.result is not None]

    assert kills[0]
    for item in dict.fromkeys(claims):
        name = item.source.rpartition(":")[2]
        repository, _, tag = item.destination.rpartition("/")[2].partition(":")
        assert_same_image(registry.url, repository, tag, images[name])
    # What it could not keep it says so of.
    for outcome in quiet.failed:
        assert "cannot return it" in str(outcome.error), outcome.error
