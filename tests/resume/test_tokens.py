from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from concil import Digest, Engine, TransferConfig
from concil.server import EmbeddedRegistry
from tests.resume.child_processes import MIB
from tests.resume.token_registry import ShortTokens
from tests.resume.transfer_costs import WireBudget
from tests.support.images import (
    assert_same_image,
    digest_of,
    make_blob,
    make_image,
    put_blob,
    put_image,
)
from tests.support.relay import Relay
from tests.support.scale import FULL

CHUNK = (10 if FULL else 1) * MIB
SIZE = (1024 if FULL else 12) * MIB + 7
LIFETIME = 2.0 if FULL else 1.0  # seconds
RATE = SIZE // 3  # bytes a second and connection: the blob takes several lives of a token


@contextmanager
def registry(directory: Path, personality: ShortTokens) -> Iterator[tuple[EmbeddedRegistry, Relay]]:
    """Run a registry behind a line on which the blob takes several lives of a token."""
    with (
        EmbeddedRegistry(directory, behavior=personality) as running,
        Relay(running.host) as relay,
    ):
        yield running, relay


@pytest.fixture
def engine(workers: int) -> Iterator[Engine]:
    with Engine(TransferConfig(workers=workers, chunk_size=CHUNK, range_size=2 * MIB)) as running:
        yield running


@pytest.fixture
def blob() -> bytes:
    return make_blob(3, SIZE)


def stored(registry: EmbeddedRegistry, tmp_path: Path, digest: str) -> str:
    return digest_of((tmp_path / "registry/blobs/sha256" / digest[7:]).read_bytes())


def sent(registry: EmbeddedRegistry) -> int:
    return sum(e.received for e in registry.requests if e.method in ("PATCH", "PUT"))


def test_a_push_outlives_its_tokens(
    tmp_path: Path, engine: Engine, blob: bytes, wire_budget: WireBudget
) -> None:
    (tmp_path / "file").write_bytes(blob)
    tokens = ShortTokens(lifetime=LIFETIME)
    with registry(tmp_path / "registry", tokens) as (running, relay):
        relay.rate = RATE

        pushed = engine.push_blob(tmp_path / "file", f"{relay.url}/x")

        assert tokens.given >= 2
        assert stored(running, tmp_path, str(pushed.digest)) == digest_of(blob)
        losses = tokens.given - 1
        wire_budget.assert_at_most(
            f"sent, {losses} tokens died", sent(running), SIZE, losses * CHUNK
        )


@pytest.mark.parametrize("kill_at", [1, 2, 6, 12])
def test_a_token_that_dies_under_a_chunk_costs_a_chunk(
    tmp_path: Path, engine: Engine, blob: bytes, kill_at: int, wire_budget: WireBudget
) -> None:
    (tmp_path / "file").write_bytes(blob)
    tokens = ShortTokens(kill_at=kill_at)
    with registry(tmp_path / "registry", tokens) as (running, relay):
        pushed = engine.push_blob(tmp_path / "file", f"{relay.url}/x")

        assert tokens.given >= 2
        assert stored(running, tmp_path, str(pushed.digest)) == digest_of(blob)
        wire_budget.assert_at_most("sent, a token died", sent(running), SIZE, CHUNK)


def test_a_pull_outlives_its_tokens(
    tmp_path: Path, engine: Engine, blob: bytes, wire_budget: WireBudget
) -> None:
    tokens = ShortTokens(lifetime=LIFETIME)
    put_into(tmp_path / "registry", blob)
    with registry(tmp_path / "registry", tokens) as (_, relay):
        relay.rate = RATE // 4

        engine.pull_blob(f"{relay.url}/x@{digest_of(blob)}", tmp_path / "pulled")

        assert tokens.given >= 2
        assert (tmp_path / "pulled").read_bytes() == blob
        wire_budget.assert_at_most(
            f"received, {tokens.given - 1} tokens died", relay.bytes_down, SIZE, CHUNK
        )


def put_into(directory: Path, blob: bytes) -> None:
    with EmbeddedRegistry(directory) as open_to_all:
        put_blob(open_to_all.url, "x", blob)


@pytest.mark.parametrize("kill_at", [1, 3])
def test_a_token_that_dies_between_two_ranges_costs_nothing(
    tmp_path: Path, engine: Engine, blob: bytes, kill_at: int, wire_budget: WireBudget
) -> None:
    put_into(tmp_path / "registry", blob)
    tokens = ShortTokens(kill_at=kill_at)
    with registry(tmp_path / "registry", tokens) as (_, relay):
        engine.pull_blob(f"{relay.url}/x@{digest_of(blob)}", tmp_path / "pulled")

        assert (tmp_path / "pulled").read_bytes() == blob
        wire_budget.assert_at_most("received, a token died", relay.bytes_down, SIZE, CHUNK)


def test_a_copy_outlives_the_tokens_of_both_sides(
    tmp_path: Path, engine: Engine, wire_budget: WireBudget
) -> None:
    image = make_image(5, (SIZE, 70_000))
    with EmbeddedRegistry(tmp_path / "source") as open_to_all:
        put_image(open_to_all.url, "x", "1", image)
    ours, theirs = ShortTokens(lifetime=LIFETIME), ShortTokens(lifetime=LIFETIME, kill_at=4)
    with (
        registry(tmp_path / "source", ours) as (_, source),
        registry(tmp_path / "destination", theirs) as (running, destination),
    ):
        destination.rate = RATE

        copied = engine.copy(f"{source.url}/x:1", f"{destination.url}/y:2")

        assert ours.given >= 1
        assert theirs.given >= 2
        assert copied.digest == Digest.parse(image.digest)
        losses = theirs.given - 1
        wire_budget.assert_at_most(
            f"sent, {losses} tokens died", sent(running), SIZE + 80_000, losses * CHUNK
        )
    with EmbeddedRegistry(tmp_path / "destination") as open_to_all:
        assert_same_image(open_to_all.url, "y", "2", image)
