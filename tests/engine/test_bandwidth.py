"""A limit on bandwidth holds on each way that bytes take; a lower bound on time is no race."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from concil.config import KIB, MIB, HostLimits, TransferConfig
from concil.engine.engine import Engine
from concil.errors import Cancelled
from concil.progress.events import Event, State
from concil.server import EmbeddedRegistry
from concil.transfer.journal import Journal
from tests.engine.engine_setup import WAIT, Content, engine_of, file_of
from tests.support.images import get_blob, make_image, put_blob, put_image
from tests.support.relay import Relay
from tests.support.request_log import RequestLog
from tests.transfer.transfer_setup import run_concurrently

pytestmark = pytest.mark.slow

RATE = 400 * KIB
SIZE = 240 * KIB  # bytes: more than half a second
LEAST = 0.45  # seconds; a piece of 50 ms goes before its time


@contextmanager
def at_least(seconds: float) -> Iterator[None]:
    """Assert that the block takes its time."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began >= seconds


@pytest.fixture
def small(tmp_path: Path) -> Content:
    return file_of(tmp_path, SIZE)


@pytest.fixture(params=["run", "host"])
def limited(
    request: pytest.FixtureRequest, config: TransferConfig, embedded: EmbeddedRegistry
) -> TransferConfig:
    """Return settings that limit the run, or the registry."""
    if request.param == "run":
        return replace(config, bandwidth=RATE)
    return replace(config, host_limits={embedded.host: HostLimits(bandwidth=RATE)})


def test_a_push_takes_its_time(
    limited: TransferConfig, embedded: EmbeddedRegistry, small: Content
) -> None:
    with engine_of(limited) as engine, at_least(LEAST):
        engine.push_blob(small.path, f"{embedded.url}/app")

    assert get_blob(embedded.url, "app", small.digest) == small.bytes


def test_a_pull_takes_its_time(
    limited: TransferConfig, embedded: EmbeddedRegistry, small: Content, tmp_path: Path
) -> None:
    put_blob(embedded.url, "app", small.bytes)

    # With ranges, so that helpers share it.
    with engine_of(replace(limited, range_size=64 * KIB)) as engine, at_least(LEAST):
        engine.pull_blob(f"{embedded.url}/app@{small.digest}", tmp_path / "pulled")

    assert (tmp_path / "pulled").read_bytes() == small.bytes


def test_a_copy_takes_its_time(
    limited: TransferConfig, embedded: EmbeddedRegistry, tmp_path: Path
) -> None:
    put_image(embedded.url, "app", "v1", make_image(1, [SIZE // 4] * 4))

    with engine_of(limited) as engine:
        with at_least(LEAST):
            engine.copy(f"{embedded.url}/app:v1", f"oci:{tmp_path}/layout:v1")
        with at_least(LEAST):
            engine.copy(f"oci:{tmp_path}/layout:v1", f"{embedded.url}/other:v1")


def test_cancel_does_not_wait_for_the_bandwidth(
    config: TransferConfig, embedded: EmbeddedRegistry, small: Content
) -> None:
    started = threading.Event()

    def told(event: Event) -> None:
        if event.state is State.STARTED:
            started.set()

    slow = replace(config, workers=1, bandwidth=1 * KIB)
    engine = Engine(slow, journal=Journal(None), progress=told)
    outcome: list[str] = []

    def push() -> None:
        with pytest.raises(Cancelled):
            engine.push_blob(small.path, f"{embedded.url}/app")
        outcome.append("cancelled")

    def cancel() -> None:
        assert started.wait(WAIT)
        engine.cancel()
        assert engine.close(0.1), "a worker waits on"  # four minutes of bytes are left

    run_concurrently(push, cancel)

    assert outcome == ["cancelled"]


def test_chunks_are_what_a_limit_lets_through_and_teach_nothing(
    embedded: EmbeddedRegistry, config: TransferConfig, tmp_path: Path
) -> None:
    log, journal, file = RequestLog(), Journal(tmp_path / "journal"), file_of(tmp_path, 5 * MIB)
    with Relay(embedded.host, observer=log) as relay:
        limits = {relay.host: HostLimits(bandwidth=2 * MIB)}
        slow = replace(config, chunk_size=None, host_limits=limits)
        with engine_of(slow, journal=journal) as engine:
            engine.push_blob(file.path, f"{relay.url}/app")
        learned = journal.load_host_profile(relay.host).get("throughput", 0)
    journal.close()

    assert [each.body_size for each in log.requests if each.method == "PATCH"] == [4 * MIB, MIB]
    assert learned == 0
