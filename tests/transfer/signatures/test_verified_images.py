"""What the journal remembers of the images whose signatures were accepted."""

from __future__ import annotations

import time
from pathlib import Path
from typing import cast

from concil.oci.digest import Digest
from concil.transfer.journal import Journal
from concil.transfer.signatures.verified_images import VerifiedImages
from concil.transfer.signatures.verifier import SignatureReader

READER = cast("SignatureReader", None)  # is only passed on
DAY = 24 * 3600


class CountingVerifier:
    """Accepts every image."""

    policy_id = "policy"

    def __init__(self) -> None:
        self.verified: list[Digest] = []

    def verify(self, _reader: SignatureReader, digest: Digest) -> None:
        self.verified.append(digest)


def digest_of(number: int) -> Digest:
    return Digest.parse(f"sha256:{number:064}")


def record(journal: Journal, number: int, age: float) -> None:
    """Record an image as accepted ``age`` seconds ago."""
    journal.execute(
        "INSERT INTO accepted VALUES (?, ?, ?)",
        CountingVerifier.policy_id,
        str(digest_of(number)),
        time.time() - age,
    )


def recorded_digests(journal: Journal) -> list[object]:
    journal.flush()
    return [row[0] for row in journal.query("SELECT digest FROM accepted ORDER BY digest")]


def test_records_that_were_not_used_for_half_a_year_are_deleted(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.db")
    record(journal, 1, 200 * DAY)
    record(journal, 2, 100 * DAY)

    VerifiedImages(journal).verify(CountingVerifier(), READER, [digest_of(3)], is_present=False)

    assert recorded_digests(journal) == [str(digest_of(2)), str(digest_of(3))]
    journal.close()


def test_a_record_stays_while_it_is_used(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.db")
    record(journal, 1, 170 * DAY)
    verifier = CountingVerifier()

    VerifiedImages(journal).verify(verifier, READER, [digest_of(1)], is_present=True)
    journal.flush()
    journal.execute("UPDATE accepted SET updated = updated - ?", 170 * DAY)
    VerifiedImages(journal).verify(verifier, READER, [digest_of(2)], is_present=False)

    assert verifier.verified == [digest_of(2)]
    assert recorded_digests(journal) == [str(digest_of(1)), str(digest_of(2))]
    journal.close()


def test_a_dry_run_leaves_records_alone(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.db")
    record(journal, 1, 200 * DAY)
    record(journal, 2, 100 * DAY)
    before = journal.query("SELECT * FROM accepted ORDER BY digest")
    images = VerifiedImages(journal, is_dry_run=True)

    images.verify(CountingVerifier(), READER, [digest_of(2)], is_present=True)
    images.verify(CountingVerifier(), READER, [digest_of(3)], is_present=False)
    journal.flush()

    assert journal.query("SELECT * FROM accepted ORDER BY digest") == before
    journal.close()
