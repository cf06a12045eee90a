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


def test_records_that_are_half_a_year_old_are_deleted(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.db")
    for number, age in ((1, 200 * DAY), (2, 100 * DAY)):
        journal.execute(
            "INSERT INTO accepted VALUES (?, ?, ?)",
            CountingVerifier.policy_id,
            str(digest_of(number)),
            time.time() - age,
        )
    verifier, images = CountingVerifier(), VerifiedImages(journal)

    images.verify(verifier, READER, [digest_of(3)], is_present=False)
    for number in (1, 2, 3):
        images.verify(verifier, READER, [digest_of(number)], is_present=True)

    assert verifier.verified == [digest_of(3), digest_of(1)]
    journal.flush()
    rows = journal.query("SELECT digest FROM accepted ORDER BY digest")
    assert rows == [(str(digest_of(number)),) for number in (1, 2, 3)]
    journal.close()
