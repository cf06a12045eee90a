"""Servers that fall silent, go away for a while, or break all the time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from concil.config import RetryPolicy, TransferConfig
from tests.engine.wires import BLOBS, MIDDLE, SIZE, Two, Wire
from tests.engine.world import CHUNK, IDLE, QUICK, WAIT, Content, engine_of
from tests.lab.faults import Direction, Fault
from tests.lab.images import get_blob, put_blob
from tests.lab.relay import Relay


@pytest.mark.parametrize("direction", ["up", "down"])
def test_push_to_a_server_that_falls_silent_goes_on(
    wire: Wire, content: Content, workers: int, direction: Direction
) -> None:
    after = MIDDLE if direction == "up" else 700  # of the answers
    wire.relay.add(Fault(action="stall", after=after, direction=direction, total=True))

    with engine_of(replace(QUICK, workers=workers), timeouts=IDLE) as engine:
        engine.push_blob(content.path, f"{wire.relay.url}/app")

    assert wire.relay.fired == 1
    assert get_blob(wire.registry.url, "app", content.digest) == content.bytes
    assert wire.sent() <= SIZE + CHUNK


def test_pull_from_a_server_that_falls_silent_goes_on(
    wire: Wire, content: Content, workers: int, tmp_path: Path
) -> None:
    put_blob(wire.registry.url, "app", content.bytes)
    wire.relay.add(Fault(action="stall", after=MIDDLE, total=True))

    with engine_of(replace(QUICK, workers=workers), timeouts=IDLE) as engine:
        engine.pull_blob(f"{wire.relay.url}/app@{content.digest}", tmp_path / "file")

    assert wire.relay.fired == 1
    assert (tmp_path / "file").read_bytes() == content.bytes


@pytest.mark.parametrize("side", ["source", "target"])
def test_copy_with_a_side_that_falls_silent_goes_on(two: Two, workers: int, side: str) -> None:
    if side == "source":
        two.source.relay.add(Fault(action="stall", after=MIDDLE, total=True))
    else:
        two.target.relay.add(Fault(action="stall", after=MIDDLE, direction="up", total=True))

    with engine_of(replace(QUICK, workers=workers), timeouts=IDLE) as engine:
        two.copy(engine)

    assert two.source.relay.fired + two.target.relay.fired == 1
    assert two.target.sent() <= BLOBS + CHUNK


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
        self._relay.refuse()
        self._relay.cut()
        threading.Event().wait(0.3)
        self._relay.accept()

    def join(self) -> None:
        """Wait until it is back."""
        self._thread.join(WAIT)
        assert not self._thread.is_alive()


STUBBORN = RetryPolicy(attempts=40, base=0.05, longest=0.1)


@pytest.fixture
def stubborn(config: TransferConfig) -> TransferConfig:
    """Return settings that try often."""
    return replace(config, retry=STUBBORN)


def test_push_outlives_a_host_that_is_away_for_a_while(
    stubborn: TransferConfig, wire: Wire, content: Content
) -> None:
    gone = Gone(wire.relay, lambda relay: relay.bytes_up, MIDDLE)

    with engine_of(stubborn) as engine:
        engine.push_blob(content.path, f"{wire.relay.url}/app")

    gone.join()
    assert get_blob(wire.registry.url, "app", content.digest) == content.bytes
    assert wire.sent() <= SIZE + CHUNK


def test_pull_outlives_a_host_that_is_away_for_a_while(
    stubborn: TransferConfig, wire: Wire, content: Content, tmp_path: Path
) -> None:
    put_blob(wire.registry.url, "app", content.bytes)
    gone = Gone(wire.relay, lambda relay: relay.bytes_down, MIDDLE)

    with engine_of(stubborn) as engine:
        engine.pull_blob(f"{wire.relay.url}/app@{content.digest}", tmp_path / "file")

    gone.join()
    assert (tmp_path / "file").read_bytes() == content.bytes


@pytest.mark.parametrize("after", [CHUNK, 2 * CHUNK + 1])
def test_copy_over_links_that_break_all_the_time_ends_right(
    config: TransferConfig, two: Two, after: int
) -> None:
    # Of each connection.
    two.source.relay.add(Fault(action="rst", after=after, times=None))
    two.target.relay.add(Fault(action="fin", after=after, direction="up", times=None))

    with engine_of(replace(config, retry=STUBBORN, chunk_size=CHUNK // 4)) as engine:
        two.copy(engine)

    assert two.source.relay.fired > 2
    assert two.target.relay.fired > 2
    assert two.target.sent() <= BLOBS + two.target.relay.fired * CHUNK // 4
