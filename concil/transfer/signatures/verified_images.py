"""VerifiedImages: verifies images, and remembers which were accepted."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable

from concil.errors import UntrustedImage
from concil.oci.manifest import Digest
from concil.runtime.lru_dict import LruDict
from concil.transfer.journal import Journal
from concil.transfer.signatures.verifier import ImageVerifier, SignatureReader

_LIFETIME = 180 * 24 * 3600  # seconds until an unused record is forgotten


class VerifiedImages:
    """The images that a run has verified. Any thread may call any method.

    What this run has verified is not verified again. What the journal has of earlier runs counts
    only for an image of which nothing is copied: it saves requests, and lets nothing in.
    """

    def __init__(self, journal: Journal, *, is_dry_run: bool = False) -> None:
        """Start with the records of earlier runs; a dry run writes none."""
        self._journal = journal
        self._is_dry_run = is_dry_run
        self._lock = threading.Lock()  # guards the fields below
        self._recent: LruDict[tuple[str, Digest], None] = LruDict()
        self._has_deleted_expired = False

    def verify(
        self,
        verifier: ImageVerifier,
        reader: SignatureReader,
        digests: Iterable[Digest | None],
        *,
        is_present: bool,
    ) -> None:
        """Verify an image.

        Args:
            digests: of the image, one of which has to be signed: that of the index at the source,
                and that of the manifest which is copied from it. None is left out.
            is_present: nothing of the image is copied; an earlier run may have verified it.
        Raises:
            UntrustedImage: none of the digests has a signature that the verifier accepts.
        """
        policy = verifier.policy_id
        wanted = [digest for digest in dict.fromkeys(digests) if digest is not None]
        if any(self._is_recent(policy, digest) for digest in wanted):
            return
        if is_present and any(self._is_recorded(policy, digest) for digest in wanted):
            return
        first_error: UntrustedImage | None = None
        for digest in wanted:
            try:
                verifier.verify(reader, digest)
            except UntrustedImage as error:
                first_error = first_error or error
            else:
                self._record(policy, digest)
                return
        if first_error is not None:
            raise first_error

    def _is_recent(self, policy: str, digest: Digest) -> bool:
        with self._lock:
            return (policy, digest) in self._recent

    def _is_recorded(self, policy: str, digest: Digest) -> bool:
        rows = self._journal.query(
            "SELECT updated FROM accepted WHERE policy = ? AND digest = ?", policy, str(digest)
        )
        if rows and time.time() - rows[0][0] > _LIFETIME / 4:
            self._record(policy, digest)  # it is still in use
        return bool(rows)

    def _record(self, policy: str, digest: Digest) -> None:
        with self._lock:
            self._recent.store((policy, digest), None)
            is_first, self._has_deleted_expired = not self._has_deleted_expired, True
        if self._is_dry_run:
            return
        if is_first:
            self._journal.delete_expired("accepted", _LIFETIME)
        self._journal.execute_deferred(
            "INSERT OR REPLACE INTO accepted VALUES (?, ?, ?)", policy, str(digest), time.time()
        )
