"""The chunks of a first upload grow, except where the host wants equal ones."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from concil import Engine, TransferConfig
from concil.config import MIB
from concil.registry.quirks import MAX_ADAPTIVE_CHUNK, HostProfiles
from concil.server import EmbeddedRegistry, RegistryBehavior
from concil.server.behavior import Chunk

SIZE = 75 * MIB + 1


class CountedChunks(RegistryBehavior):
    """Remembers the lengths of chunks."""

    def __init__(self, min_chunk_length: int = 0) -> None:
        self.min_chunk_length = min_chunk_length
        self.lengths: list[int] = []

    def check_chunk(self, chunk: Chunk) -> None:
        super().check_chunk(chunk)
        if chunk.length:  # the closing PUT has none
            self.lengths.append(chunk.length)


@pytest.fixture(autouse=True)
def fast_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure every chunk as if it had taken no time."""
    record = HostProfiles.record_throughput

    def record_fast(profiles: HostProfiles, host: str, _count: int, _seconds: float) -> None:
        record(profiles, host, MAX_ADAPTIVE_CHUNK, 0.1)

    monkeypatch.setattr(HostProfiles, "record_throughput", record_fast)


def push(tmp_path: Path, behavior: RegistryBehavior, config: TransferConfig) -> None:
    file = tmp_path / "file"
    file.touch()
    os.truncate(file, SIZE)
    with (
        EmbeddedRegistry(tmp_path / "there", behavior=behavior) as registry,
        Engine(config) as engine,
    ):
        digest = engine.push_blob(file, f"{registry.url}/y").digest
        engine.pull_blob(f"{registry.url}/y@{digest}", tmp_path / "back")
    assert (tmp_path / "back").stat().st_size == SIZE


def test_a_chunk_is_at_most_a_quarter_of_what_was_sent(tmp_path: Path) -> None:
    behavior = CountedChunks()

    push(tmp_path, behavior, TransferConfig())

    assert behavior.lengths == [*[10 * MIB] * 5, 12 * MIB, 13 * MIB + 1]


@pytest.mark.parametrize(
    ("config", "min_length", "chunk"),
    [(TransferConfig(chunk_size=30 * MIB), 0, 30 * MIB), (TransferConfig(), 5 * MIB, 10 * MIB)],
    ids=["configured", "a host that wants equal chunks"],
)
def test_chunks_stay_equal(
    config: TransferConfig, min_length: int, chunk: int, tmp_path: Path
) -> None:
    behavior = CountedChunks(min_length)

    push(tmp_path, behavior, config)

    assert set(behavior.lengths[:-1]) == {chunk}


@pytest.mark.parametrize(
    ("current", "sent", "remaining", "chunk"),
    [
        (10 * MIB, 10 * MIB, 500 * MIB, 10 * MIB),
        (10 * MIB, 50 * MIB, 500 * MIB, 12 * MIB),
        (60 * MIB, 900 * MIB, 500 * MIB, 64 * MIB),
        (64 * MIB, 64 * MIB, 500 * MIB, 64 * MIB),
        (10 * MIB, 80 * MIB, 40 * MIB + 1, 20 * MIB - 1),  # not a last chunk of one byte
    ],
)
def test_chunks_grow_with_what_was_sent(
    current: int, sent: int, remaining: int, chunk: int
) -> None:
    profiles = HostProfiles()
    profiles.record_throughput("host", 0, 0)

    assert profiles.next_chunk_size("host", current, sent, remaining) == chunk


def test_chunks_do_not_grow_beyond_what_a_host_accepts() -> None:
    profiles = HostProfiles()
    profiles.record_throughput("ghcr.io", 0, 0)

    assert profiles.next_chunk_size("ghcr.io", 4 * MIB, 500 * MIB, 500 * MIB) == 4 * MIB
