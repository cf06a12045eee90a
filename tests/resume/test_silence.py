"""Registries that stop in the middle without a word: the idle timeout ends it, and it goes on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from concil import Engine, Timeouts, TransferConfig
from concil.config import RetryPolicy
from concil.server import EmbeddedRegistry
from tests.resume.child_processes import MIB
from tests.resume.transfer_costs import WireBudget
from tests.support.docker_registry import DockerRegistry
from tests.support.faults import Direction, Fault
from tests.support.images import digest_of, make_blob, make_image, put_blob, put_image
from tests.support.relay import Relay
from tests.support.scale import FULL

SIZE = (1024 if FULL else 6) * MIB + 7
CHUNK = (10 if FULL else 1) * MIB
WORKERS = 4
OVERHEAD = 256 * 1024  # bytes of heads of requests and answers
KINDS = ["embedded", pytest.param("fresh_docker_registry", marks=pytest.mark.real)]


@pytest.fixture
def engine(workers: int) -> Iterator[Engine]:
    config = TransferConfig(
        workers=min(workers, WORKERS),
        chunk_size=CHUNK,
        range_size=2 * MIB,
        retry=RetryPolicy(backoff_base=0.01, max_backoff=0.1),
    )
    with Engine(config, timeouts=Timeouts(idle=1)) as running:
        yield running


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[EmbeddedRegistry]:
    registry = EmbeddedRegistry(tmp_path / "embedded")
    registry.idle_timeout = 1.0  # it lets a second writer in when the first one's time is over
    with registry:
        yield registry


@pytest.fixture(params=KINDS)
def registry(request: pytest.FixtureRequest) -> EmbeddedRegistry | DockerRegistry:
    found: EmbeddedRegistry | DockerRegistry = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def relay(registry: EmbeddedRegistry | DockerRegistry) -> Iterator[Relay]:
    with Relay(registry.host) as running:
        yield running


@pytest.mark.parametrize("direction", ["up", "down"])
def test_a_push_goes_on_after_a_silence(
    registry: EmbeddedRegistry | DockerRegistry,
    relay: Relay,
    engine: Engine,
    tmp_path: Path,
    direction: Direction,
    *,
    wire_budget: WireBudget,
) -> None:
    blob = make_blob(3, SIZE)
    (tmp_path / "file").write_bytes(blob)
    # Of the answers, which are short, the one to a chunk in the middle.
    after = SIZE // 2 if direction == "up" else 300 * (SIZE // CHUNK // 2)
    relay.add_fault(Fault(action="stall", after=after, direction=direction, total=True))

    pushed = engine.push_blob(tmp_path / "file", f"{relay.url}/x")

    assert relay.fired_count == 1
    engine.pull_blob(f"{registry.url}/x@{pushed.digest}", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == blob
    resumes = isinstance(registry, EmbeddedRegistry)
    wire_budget.assert_at_most(
        "sent", relay.bytes_up, SIZE, OVERHEAD + (CHUNK if resumes else SIZE)
    )


def test_a_pull_goes_on_after_a_silence(
    registry: EmbeddedRegistry | DockerRegistry,
    relay: Relay,
    engine: Engine,
    tmp_path: Path,
    wire_budget: WireBudget,
) -> None:
    blob = make_blob(4, SIZE)
    put_blob(registry.url, "x", blob)
    relay.add_fault(Fault(action="stall", after=SIZE // 2, total=True))

    engine.pull_blob(f"{relay.url}/x@{digest_of(blob)}", tmp_path / "pulled")

    assert relay.fired_count == 1
    assert (tmp_path / "pulled").read_bytes() == blob
    wire_budget.assert_at_most("received", relay.bytes_down, SIZE, OVERHEAD + 2 * MIB * WORKERS)


@pytest.mark.real
def test_a_copy_goes_on_after_a_silence_of_its_source(
    docker_registry: DockerRegistry,
    fresh_docker_registry: DockerRegistry,
    engine: Engine,
    wire_budget: WireBudget,
) -> None:
    image = make_image(9, (SIZE,))
    put_image(docker_registry.url, "silent/source", "1", image)
    total = sum(map(len, image.blobs.values()))
    with Relay(docker_registry.host) as source, Relay(fresh_docker_registry.host) as target:
        source.add_fault(Fault(action="stall", after=SIZE // 2, total=True))

        copied = engine.copy(f"{source.url}/silent/source:1", f"{target.url}/copied:1")

        assert source.fired_count == 1
        # The upload waits: this registry would forget it otherwise.
        wire_budget.assert_at_most("sent", target.bytes_up, total, OVERHEAD)
        wire_budget.assert_at_most("received", source.bytes_down, total, OVERHEAD + CHUNK)
    assert str(copied.digest) == image.digest
