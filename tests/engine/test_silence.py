"""Servers that fall silent, go away for a while, or break all the time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from concil.config import RetryPolicy, TransferConfig
from tests.engine.engine_setup import CHUNK, IDLE, QUICK, WAIT, Content, engine_of
from tests.engine.relayed_registries import BLOBS, MIDDLE, SIZE, RegistryPair, RelayedRegistry
from tests.support.faults import Direction, Fault
from tests.support.images import get_blob, put_blob
from tests.support.relay import Relay

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("direction", ["up", "down"])
def test_push_to_a_stalled_server_resumes(
    relayed_registry: RelayedRegistry, content: Content, workers: int, direction: Direction
) -> None:
    after = MIDDLE if direction == "up" else 700  # of the answers
    relayed_registry.relay.add_fault(
        Fault(action="stall", after=after, direction=direction, total=True)
    )

    with engine_of(replace(QUICK, workers=workers), timeouts=IDLE) as engine:
        engine.push_blob(content.path, f"{relayed_registry.relay.url}/app")

    assert relayed_registry.relay.fired_count == 1
    assert get_blob(relayed_registry.registry.url, "app", content.digest) == content.bytes
    assert relayed_registry.sent() <= SIZE + CHUNK


def test_pull_from_a_stalled_server_resumes(
    relayed_registry: RelayedRegistry, content: Content, workers: int, tmp_path: Path
) -> None:
    put_blob(relayed_registry.registry.url, "app", content.bytes)
    relayed_registry.relay.add_fault(Fault(action="stall", after=MIDDLE, total=True))

    with engine_of(replace(QUICK, workers=workers), timeouts=IDLE) as engine:
        engine.pull_blob(f"{relayed_registry.relay.url}/app@{content.digest}", tmp_path / "file")

    assert relayed_registry.relay.fired_count == 1
    assert (tmp_path / "file").read_bytes() == content.bytes


@pytest.mark.parametrize("side", ["source", "target"])
def test_copy_with_a_stalled_side_resumes(
    registry_pair: RegistryPair, workers: int, side: str
) -> None:
    if side == "source":
        registry_pair.source.relay.add_fault(Fault(action="stall", after=MIDDLE, total=True))
    else:
        registry_pair.destination.relay.add_fault(
            Fault(action="stall", after=MIDDLE, direction="up", total=True)
        )

    with engine_of(replace(QUICK, workers=workers), timeouts=IDLE) as engine:
        registry_pair.copy(engine)

    assert registry_pair.source.relay.fired_count + registry_pair.destination.relay.fired_count == 1
    assert registry_pair.destination.sent() <= BLOBS + CHUNK


class Gone:
    """Takes a relay away once it has carried so much, and brings it back a little later."""

    def __init__(self, relay: Relay, passed: Callable[[Relay], int], at: int) -> None:
        self._relay = relay
        self._passed = passed
        self._at = at
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        self._relay.wait_for(lambda relay: self._passed(relay) >= self._at)
        self._relay.stop_accepting()
        self._relay.break_connections()
        threading.Event().wait(0.3)
        self._relay.resume_accepting()

    def join(self) -> None:
        """Wait until it is back."""
        self._thread.join(WAIT)
        assert not self._thread.is_alive()


STUBBORN = RetryPolicy(max_attempts=40, backoff_base=0.05, max_backoff=0.1)


@pytest.fixture
def stubborn(config: TransferConfig) -> TransferConfig:
    """Return settings that try often."""
    return replace(config, retry=STUBBORN)


def test_push_outlives_a_host_that_is_away_for_a_while(
    stubborn: TransferConfig, relayed_registry: RelayedRegistry, content: Content
) -> None:
    gone = Gone(relayed_registry.relay, lambda relay: relay.bytes_up, MIDDLE)

    with engine_of(stubborn) as engine:
        engine.push_blob(content.path, f"{relayed_registry.relay.url}/app")

    gone.join()
    assert get_blob(relayed_registry.registry.url, "app", content.digest) == content.bytes
    assert relayed_registry.sent() <= SIZE + CHUNK


def test_pull_outlives_a_host_that_is_away_for_a_while(
    stubborn: TransferConfig, relayed_registry: RelayedRegistry, content: Content, tmp_path: Path
) -> None:
    put_blob(relayed_registry.registry.url, "app", content.bytes)
    gone = Gone(relayed_registry.relay, lambda relay: relay.bytes_down, MIDDLE)

    with engine_of(stubborn) as engine:
        engine.pull_blob(f"{relayed_registry.relay.url}/app@{content.digest}", tmp_path / "file")

    gone.join()
    assert (tmp_path / "file").read_bytes() == content.bytes


@pytest.mark.parametrize("after", [CHUNK, 2 * CHUNK + 1])
def test_copy_over_links_that_break_all_the_time_ends_right(
    config: TransferConfig, registry_pair: RegistryPair, after: int
) -> None:
    # Of each connection.
    registry_pair.source.relay.add_fault(Fault(action="rst", after=after, times=None))
    registry_pair.destination.relay.add_fault(
        Fault(action="fin", after=after, direction="up", times=None)
    )

    with engine_of(replace(config, retry=STUBBORN, chunk_size=CHUNK // 4)) as engine:
        registry_pair.copy(engine)

    assert registry_pair.source.relay.fired_count > 2
    assert registry_pair.destination.relay.fired_count > 2
    assert (
        registry_pair.destination.sent()
        <= BLOBS + registry_pair.destination.relay.fired_count * CHUNK // 4
    )
