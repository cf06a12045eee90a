"""What earlier mirrors brought is remembered, without secrets, and doubted."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from unittest import mock

import pytest

from concil.content import Digest
from concil.transfer.journal import Journal
from concil.transfer.past import Brought, ImageKey, Past

KEY = ImageKey("q.example/a:1", "h.example/a:1")
DIGEST, OTHER = Digest.of(b"one"), Digest.of(b"two")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.sqlite"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    with closing(Journal(path)) as opened:
        yield opened


def test_image_is_known_by_source_target_and_platforms(journal: Journal) -> None:
    Past(journal).remember_image(KEY, Brought(DIGEST, OTHER))

    again = Past(journal)

    assert again.image(KEY) == Brought(DIGEST, OTHER)
    for other in (
        ImageKey(KEY.source, "h.example/b:1"),
        ImageKey("q.example/a:2", KEY.target),
        ImageKey(KEY.source, KEY.target, "linux/amd64"),
    ):
        assert again.image(other) is None


def test_image_is_remembered_as_it_was_last(journal: Journal) -> None:
    past = Past(journal)
    past.remember_image(KEY, Brought(DIGEST, DIGEST))
    past.remember_image(KEY, Brought(OTHER, OTHER))

    assert past.image(KEY) == Brought(OTHER, OTHER)


def test_nonsense_in_the_journal_is_nothing(journal: Journal, path: Path) -> None:
    past = Past(journal)
    past.remember_image(KEY, Brought(DIGEST, DIGEST))
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE images SET digest = 'sha256:../../etc'")
        db.commit()

    assert past.image(KEY) is None


def test_blob_is_known_where_it_was_last(journal: Journal) -> None:
    past = Past(journal)
    past.landed("h.example", "a", DIGEST)
    past.landed("h.example", "b", DIGEST)

    journal.flush()
    again = Past(journal)

    assert again.siblings("h.example", DIGEST, "c") == ["b"]
    assert again.siblings("h.example", DIGEST, "b") == []
    assert again.siblings("other.example", DIGEST, "c") == []


def test_mounts_in_vain_end_the_guessing_and_one_that_works_does_not(journal: Journal) -> None:
    past = Past(journal)
    past.landed("h.example", "a", DIGEST)
    past.landed("w.example", "a", DIGEST)
    past.tried("w.example", mounted=True)
    for _ in range(5):
        past.tried("h.example", mounted=False)
        past.tried("w.example", mounted=False)

    assert past.siblings("h.example", DIGEST, "b") == []
    assert past.siblings("w.example", DIGEST, "b") == ["a"]


def test_without_a_journal_only_this_run_is_known() -> None:
    past = Past(Journal(None))
    past.put("h.example", "a", DIGEST)
    past.remember_image(KEY, Brought(DIGEST, DIGEST))

    assert past.was_put("h.example", "a", DIGEST)
    assert not past.was_put("h.example", "b", DIGEST)
    assert past.repository_of("h.example", DIGEST) == "a"
    assert past.image(KEY) is None
    assert Past(Journal(None)).repository_of("h.example", DIGEST) is None


def test_places_that_are_old_are_forgotten(journal: Journal) -> None:
    with mock.patch("time.time", return_value=1_000.0):
        Past(journal).landed("h.example", "a", DIGEST)

    again = Past(journal)
    again.landed("h.example", "b", OTHER)

    assert again.repository_of("h.example", DIGEST) is None
    assert again.repository_of("h.example", OTHER) == "b"
