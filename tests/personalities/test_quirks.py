"""What a host taught is known to the next process, for a while, and only if it makes sense."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from concil.config import MIB
from concil.registry.quirks import (
    MAX_ADAPTIVE_CHUNK,
    MIN_ADAPTIVE_CHUNK,
    PROFILE_LIFETIME,
    HostProfiles,
    Quirks,
    Strategy,
    declared_quirks,
)
from concil.transfer.journal import Journal

HOST = "registry.example:5000"
LEARNED = Quirks(Strategy.CHUNKS_LAST_IN_PUT, 8 * MIB, 5 * MIB, ignore_range_header=True)


def over(journal: Journal) -> HostProfiles:
    """Return what a new process knows."""
    return HostProfiles(journal.load_host_profile, journal.save_host_profile)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal")


def test_lessons_outlive_the_process(journal: Journal) -> None:
    first = over(journal)
    first.set_strategy(HOST, Strategy.CHUNKS_LAST_IN_PUT)
    first.set_chunk_size_range(HOST, 5 * MIB, 8 * MIB)
    first.distrust_range(HOST)

    assert over(journal).quirks_for(HOST) == LEARNED
    assert over(journal).quirks_for("another.example") == Quirks()


def test_what_is_declared_is_no_lesson(journal: Journal) -> None:
    over(journal).quirks_for("ghcr.io")

    assert journal.load_host_profile("ghcr.io") == {}


def test_a_lesson_goes_before_what_is_declared(journal: Journal) -> None:
    over(journal).set_max_chunk_size("ghcr.io", 2 * MIB)

    assert over(journal).quirks_for("ghcr.io") == replace(
        declared_quirks("ghcr.io"), max_chunk_size=2 * MIB
    )


def test_how_many_uploads_a_host_bears_is_no_lesson(journal: Journal) -> None:
    over(journal).set_max_chunk_size("public.ecr.aws", 6 * MIB)

    assert over(journal).quirks_for("public.ecr.aws").max_uploads == 1
    assert "uploads_at_once" not in journal.load_host_profile("public.ecr.aws")


def test_a_lesson_is_forgotten_after_a_while() -> None:
    saved = LEARNED.to_json()

    assert Quirks.from_json(saved) == LEARNED
    assert Quirks.from_json({**saved, "learned_at": saved["learned_at"] - PROFILE_LIFETIME}) is None
    assert Quirks.from_json({**saved, "learned_at": saved["learned_at"] + 1000}) is None


@pytest.mark.parametrize(
    "damage",
    [
        {"strategy": "telepathy"},
        {"strategy": None},
        {"max_chunk_size": 0},
        {"max_chunk_size": -5},
        {"max_chunk_size": "many"},
        {"min_chunk_size": 10**15},
        {"min_chunk_size": None},
        {"learned_at": None},
        {"learned_at": float("nan")},
    ],
)
def test_nonsense_is_passed_over(damage: dict[str, Any]) -> None:
    assert Quirks.from_json({**LEARNED.to_json(), **damage}) is None


@pytest.mark.parametrize("name", [*LEARNED.to_json(), "learned_at"])
def test_a_gap_is_passed_over(name: str) -> None:
    saved = LEARNED.to_json()
    del saved[name]

    assert Quirks.from_json(saved) is None


def test_a_damaged_journal_leaves_what_is_declared(journal: Journal) -> None:
    journal.save_host_profile("ghcr.io", {"strategy": 7})

    assert over(journal).quirks_for("ghcr.io") == declared_quirks("ghcr.io")


@pytest.mark.parametrize(
    "quirks", [Quirks(), Quirks(max_chunk_size=1000), Quirks(Strategy.CHUNKS, None, 1000)]
)
@pytest.mark.parametrize("size", [1001, 2001, 999_001, 1_000_001, 998_000_001 * 1000 + 1])
def test_the_last_chunk_is_not_of_one_byte(quirks: Quirks, size: int) -> None:
    chunk = quirks.chunk_size(1000, size)

    assert size % chunk != 1
    assert quirks.min_chunk_size <= chunk <= (quirks.max_chunk_size or 1002)
    assert abs(chunk - 1000) <= 2


def test_a_host_that_takes_one_size_alone_gets_it() -> None:
    assert Quirks(Strategy.CHUNKS, 1000, 1000).chunk_size(5, 2001) == 1000
    assert Quirks().chunk_size(1000, 2000) == 1000
    assert Quirks().chunk_size(1, 2) == 1


# Pace ------------------------------------------------------------------------------------

HUGE = 10**12  # bytes


@pytest.mark.parametrize(
    ("count", "seconds", "chunk"),
    [
        (10 * MIB, 20.0, MIN_ADAPTIVE_CHUNK),
        (10 * MIB, 2.0, 10 * MIB),
        (10 * MIB, 1.0, 20 * MIB),
        (10 * MIB, 0.7, 28 * MIB),
        (10 * MIB, 0.01, MAX_ADAPTIVE_CHUNK),
        (10 * MIB, 0.0, MAX_ADAPTIVE_CHUNK),
    ],
)
def test_a_chunk_is_what_the_host_carries_in_two_seconds(
    journal: Journal, count: int, seconds: float, chunk: int
) -> None:
    first = over(journal)
    first.record_throughput(HOST, count, seconds)
    first.save_throughput(HOST)

    for knowledge in (first, over(journal)):
        assert knowledge.chunk_size(HOST, None, HUGE) == chunk
        assert knowledge.chunk_size(HOST, 3 * MIB, HUGE) == 3 * MIB
        assert knowledge.chunk_size("another.example", None, HUGE) == MIN_ADAPTIVE_CHUNK


def test_what_a_host_needs_goes_before_what_it_carries() -> None:
    knowledge = HostProfiles()
    knowledge.record_throughput("ghcr.io", 100 * MIB, 0.1)
    knowledge.record_throughput(HOST, 100 * MIB, 0.1)
    knowledge.set_chunk_size_range(HOST, None, 5 * MIB)

    assert knowledge.chunk_size("ghcr.io", None, HUGE) == 4 * MIB
    assert knowledge.chunk_size(HOST, None, HUGE) == 5 * MIB


def test_a_lost_session_makes_the_next_chunks_smaller() -> None:
    knowledge = HostProfiles()
    sizes = []
    for chunk in (MAX_ADAPTIVE_CHUNK, 32 * MIB, 16 * MIB):
        knowledge.record_lost_session(HOST, chunk)
        sizes.append(knowledge.chunk_size(HOST, None, HUGE))

    assert sizes == [32 * MIB, 16 * MIB, MIN_ADAPTIVE_CHUNK]


def test_pace_is_no_lesson_and_makes_none_younger(journal: Journal) -> None:
    over(journal).set_strategy(HOST, Strategy.MONOLITHIC)
    learned = journal.load_host_profile(HOST)["learned_at"]

    later = over(journal)
    later.record_throughput(HOST, 30 * MIB, 1.0)
    later.save_throughput(HOST)
    over(journal).save_throughput("ghcr.io")

    assert journal.load_host_profile(HOST)["learned_at"] == learned
    assert over(journal).quirks_for(HOST).strategy is Strategy.MONOLITHIC
    assert over(journal).chunk_size(HOST, None, HUGE) == 60 * MIB
    assert over(journal).quirks_for("ghcr.io") == declared_quirks("ghcr.io")
    assert "learned_at" not in journal.load_host_profile("ghcr.io")


@pytest.mark.parametrize("throughput", [None, "fast", -1, 0, [3], 1.5])
def test_a_damaged_throughput_is_none(journal: Journal, throughput: object) -> None:
    journal.save_host_profile(HOST, {"throughput": throughput})

    assert over(journal).chunk_size(HOST, None, HUGE) == MIN_ADAPTIVE_CHUNK
