"""What a host taught is known to the next process, for a while, and only if it makes sense."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from concil.config import MIB
from concil.registry.quirks import (
    LEAST_PACE,
    MOST_PACE,
    REMEMBERED,
    Knowledge,
    Quirks,
    Strategy,
    declared,
)
from concil.transfer.journal import Journal

HOST = "registry.example:5000"
LEARNED = Quirks(Strategy.CHUNKS_LAST_IN_PUT, 8 * MIB, 5 * MIB, own_offset=True)


def over(journal: Journal) -> Knowledge:
    """Return what a new process knows."""
    return Knowledge(journal.known_of, journal.remember_host)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal")


def test_lessons_outlive_the_process(journal: Journal) -> None:
    first = over(journal)
    first.use(HOST, Strategy.CHUNKS_LAST_IN_PUT)
    first.announce(HOST, 5 * MIB, 8 * MIB)
    first.count_ourselves(HOST)

    assert over(journal).of(HOST) == LEARNED
    assert over(journal).of("another.example") == Quirks()


def test_what_is_declared_is_no_lesson(journal: Journal) -> None:
    over(journal).of("ghcr.io")

    assert journal.known_of("ghcr.io") == {}


def test_a_lesson_goes_before_what_is_declared(journal: Journal) -> None:
    over(journal).limit_chunk("ghcr.io", 2 * MIB)

    assert over(journal).of("ghcr.io") == replace(declared("ghcr.io"), largest_chunk=2 * MIB)


def test_how_many_uploads_a_host_bears_is_no_lesson(journal: Journal) -> None:
    over(journal).limit_chunk("public.ecr.aws", 6 * MIB)

    assert over(journal).of("public.ecr.aws").uploads_at_once == 1
    assert "uploads_at_once" not in journal.known_of("public.ecr.aws")


def test_a_lesson_is_forgotten_after_a_while() -> None:
    saved = LEARNED.saved()

    assert Quirks.read(saved) == LEARNED
    assert Quirks.read({**saved, "learned": saved["learned"] - REMEMBERED}) is None
    assert Quirks.read({**saved, "learned": saved["learned"] + 1000}) is None


@pytest.mark.parametrize(
    "damage",
    [
        {"strategy": "telepathy"},
        {"strategy": None},
        {"largest_chunk": 0},
        {"largest_chunk": -5},
        {"largest_chunk": "many"},
        {"smallest_chunk": 10**15},
        {"smallest_chunk": None},
        {"learned": None},
        {"learned": float("nan")},
    ],
)
def test_nonsense_is_passed_over(damage: dict[str, Any]) -> None:
    assert Quirks.read({**LEARNED.saved(), **damage}) is None


@pytest.mark.parametrize("name", [*LEARNED.saved(), "learned"])
def test_a_gap_is_passed_over(name: str) -> None:
    saved = LEARNED.saved()
    del saved[name]

    assert Quirks.read(saved) is None


def test_a_damaged_journal_leaves_what_is_declared(journal: Journal) -> None:
    journal.remember_host("ghcr.io", {"strategy": 7})

    assert over(journal).of("ghcr.io") == declared("ghcr.io")


@pytest.mark.parametrize(
    "quirks", [Quirks(), Quirks(largest_chunk=1000), Quirks(Strategy.CHUNKS, None, 1000)]
)
@pytest.mark.parametrize("size", [1001, 2001, 999_001, 1_000_001, 998_000_001 * 1000 + 1])
def test_the_last_chunk_is_not_of_one_byte(quirks: Quirks, size: int) -> None:
    chunk = quirks.chunk_size(1000, size)

    assert size % chunk != 1
    assert quirks.smallest_chunk <= chunk <= (quirks.largest_chunk or 1002)
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
        (10 * MIB, 20.0, LEAST_PACE),
        (10 * MIB, 2.0, 10 * MIB),
        (10 * MIB, 1.0, 20 * MIB),
        (10 * MIB, 0.7, 28 * MIB),
        (10 * MIB, 0.01, MOST_PACE),
        (10 * MIB, 0.0, MOST_PACE),
    ],
)
def test_a_chunk_is_what_the_host_carries_in_two_seconds(
    journal: Journal, count: int, seconds: float, chunk: int
) -> None:
    first = over(journal)
    first.carried(HOST, count, seconds)
    first.keep(HOST)

    for knowledge in (first, over(journal)):
        assert knowledge.chunk_size(HOST, None, HUGE) == chunk
        assert knowledge.chunk_size(HOST, 3 * MIB, HUGE) == 3 * MIB
        assert knowledge.chunk_size("another.example", None, HUGE) == LEAST_PACE


def test_what_a_host_needs_goes_before_what_it_carries() -> None:
    knowledge = Knowledge()
    knowledge.carried("ghcr.io", 100 * MIB, 0.1)
    knowledge.carried(HOST, 100 * MIB, 0.1)
    knowledge.announce(HOST, None, 5 * MIB)

    assert knowledge.chunk_size("ghcr.io", None, HUGE) == 4 * MIB
    assert knowledge.chunk_size(HOST, None, HUGE) == 5 * MIB


def test_a_lost_session_makes_the_next_chunks_smaller() -> None:
    knowledge = Knowledge()
    sizes = []
    for chunk in (MOST_PACE, 32 * MIB, 16 * MIB):
        knowledge.lost(HOST, chunk)
        sizes.append(knowledge.chunk_size(HOST, None, HUGE))

    assert sizes == [32 * MIB, 16 * MIB, LEAST_PACE]


def test_pace_is_no_lesson_and_makes_none_younger(journal: Journal) -> None:
    over(journal).use(HOST, Strategy.MONOLITHIC)
    learned = journal.known_of(HOST)["learned"]

    later = over(journal)
    later.carried(HOST, 30 * MIB, 1.0)
    later.keep(HOST)
    over(journal).keep("ghcr.io")

    assert journal.known_of(HOST)["learned"] == learned
    assert over(journal).of(HOST).strategy is Strategy.MONOLITHIC
    assert over(journal).chunk_size(HOST, None, HUGE) == 60 * MIB
    assert over(journal).of("ghcr.io") == declared("ghcr.io")
    assert "learned" not in journal.known_of("ghcr.io")


@pytest.mark.parametrize("pace", [None, "fast", -1, 0, [3], 1.5])
def test_a_damaged_pace_is_none(journal: Journal, pace: object) -> None:
    journal.remember_host(HOST, {"pace": pace})

    assert over(journal).chunk_size(HOST, None, HUGE) == LEAST_PACE
