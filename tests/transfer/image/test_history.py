"""What earlier mirrors brought is remembered, without secrets, and doubted."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from unittest import mock

import pytest

from concil.oci.manifest import Digest
from concil.transfer.image.history import CopiedImage, History, ImageKey
from concil.transfer.journal import Journal

KEY = ImageKey("q.example/a:1", "h.example/a:1")
DIGEST, OTHER = Digest.from_bytes(b"one"), Digest.from_bytes(b"two")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.sqlite"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    with closing(Journal(path)) as opened:
        yield opened


def test_image_is_known_by_source_target_and_platforms(journal: Journal) -> None:
    History(journal).record_image(KEY, CopiedImage(DIGEST, OTHER))

    again = History(journal)

    assert again.find_image(KEY) == CopiedImage(DIGEST, OTHER)
    for other in (
        ImageKey(KEY.source, "h.example/b:1"),
        ImageKey("q.example/a:2", KEY.destination),
        ImageKey(KEY.source, KEY.destination, "linux/amd64"),
    ):
        assert again.find_image(other) is None


def test_image_is_remembered_as_it_was_last(journal: Journal) -> None:
    past = History(journal)
    past.record_image(KEY, CopiedImage(DIGEST, DIGEST))
    past.record_image(KEY, CopiedImage(OTHER, OTHER))

    assert past.find_image(KEY) == CopiedImage(OTHER, OTHER)


def test_nonsense_in_the_journal_is_nothing(journal: Journal, path: Path) -> None:
    past = History(journal)
    past.record_image(KEY, CopiedImage(DIGEST, DIGEST))
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE images SET digest = 'sha256:../../etc'")
        db.commit()

    assert past.find_image(KEY) is None


def test_blob_is_known_where_it_was_last(journal: Journal) -> None:
    past = History(journal)
    past.record_blob("h.example", "a", DIGEST)
    past.record_blob("h.example", "b", DIGEST)

    journal.flush()
    again = History(journal)

    assert again.mount_sources("h.example", DIGEST, "c") == ["b"]
    assert again.mount_sources("h.example", DIGEST, "b") == []
    assert again.mount_sources("other.example", DIGEST, "c") == []


def test_mounts_in_vain_end_the_guessing_and_one_that_works_does_not(journal: Journal) -> None:
    past = History(journal)
    past.record_blob("h.example", "a", DIGEST)
    past.record_blob("w.example", "a", DIGEST)
    past.record_mount("w.example", mounted=True)
    for _ in range(5):
        past.record_mount("h.example", mounted=False)
        past.record_mount("w.example", mounted=False)

    assert past.mount_sources("h.example", DIGEST, "b") == []
    assert past.mount_sources("w.example", DIGEST, "b") == ["a"]


def test_without_a_journal_only_this_run_is_known() -> None:
    past = History(Journal(None))
    past.record_manifest("h.example", "a", DIGEST)
    past.record_image(KEY, CopiedImage(DIGEST, DIGEST))

    assert past.is_confirmed("h.example", "a", DIGEST)
    assert not past.is_confirmed("h.example", "b", DIGEST)
    assert past.find_repository("h.example", DIGEST) == "a"
    assert past.find_image(KEY) is None
    assert History(Journal(None)).find_repository("h.example", DIGEST) is None


def test_places_that_are_old_are_forgotten(journal: Journal) -> None:
    with mock.patch("time.time", return_value=1_000.0):
        History(journal).record_blob("h.example", "a", DIGEST)

    again = History(journal)
    again.record_blob("h.example", "b", OTHER)

    assert again.find_repository("h.example", DIGEST) is None
    assert again.find_repository("h.example", OTHER) == "b"
