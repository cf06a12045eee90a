"""Records which blobs a deep check has verified, so that an interrupted one continues."""

from __future__ import annotations

import secrets
import threading
import time

from concil.oci.digest import Digest
from concil.transfer.journal import Journal

MAX_AGE = 24 * 3600.0  # seconds; older records do not count


class VerifiedBlobs:
    """Blobs that were read and hashed by this check, or by one that was interrupted before.

    A record is a statement about one blob of one repository, because registries need not store
    blobs once for all repositories. It counts for a day. The records that a check has used or
    made are deleted when it ends: so only an interrupted check is continued, and the next one
    reads every byte again. Any thread may call any method.
    """

    def __init__(self, journal: Journal, *, resume: bool = True) -> None:
        """Keep the records in ``journal``.

        Args:
            resume: count the records of interrupted checks.
        """
        self._journal = journal
        self._resume = resume
        self._run = secrets.token_hex(8)  # marks the records of this check
        self._lock = threading.Lock()  # guards the fields below
        self._bytes_read = self._bytes_skipped = 0
        journal.flush()  # the records of an earlier check of this process
        journal.delete_expired("verified", MAX_AGE)

    @property
    def bytes_read(self) -> int:
        """Bytes of the blobs that this check has read and verified."""
        with self._lock:
            return self._bytes_read

    @property
    def bytes_skipped(self) -> int:
        """Bytes of blobs that were not read, because an interrupted check had verified them."""
        with self._lock:
            return self._bytes_skipped

    def claim(self, store_name: str, digest: Digest, size: int) -> bool:
        """Return whether an interrupted check has verified a blob; its record is ours then."""
        if self._find(store_name, digest) != "":
            return False
        with self._lock:
            self._bytes_skipped += size
        self._journal.execute_deferred(
            "UPDATE verified SET run = ? WHERE target = ? AND digest = ?",
            self._run,
            store_name,
            str(digest),
        )
        return True

    def find_hash_state(self, store_name: str, digest: Digest) -> str:
        """Return the state of the hash with which a blob was interrupted; "": start anew."""
        return self._find(store_name, digest) or ""

    def save_hash_state(self, store_name: str, digest: Digest, hash_state: str) -> None:
        """Save the state of the hash of a blob that is being read; "" is not saved."""
        if hash_state:
            self._save(store_name, digest, hash_state)

    def record(self, store_name: str, digest: Digest, size: int, *, start: int = 0) -> None:
        """Record that a blob was read and has its digest.

        Args:
            start: bytes that an interrupted check had read.
        """
        with self._lock:
            self._bytes_read += size - start
            self._bytes_skipped += start
        self._save(store_name, digest, "")

    def forget(self, store_name: str, digest: Digest) -> None:
        """Delete the record of a blob that is missing or damaged."""
        self._journal.execute(
            "DELETE FROM verified WHERE target = ? AND digest = ?", store_name, str(digest)
        )

    def _find(self, store_name: str, digest: Digest) -> str | None:
        """Return the state in the record of an interrupted check; "": verified; None: unknown."""
        if not self._resume:
            return None
        rows = self._journal.query(
            "SELECT state, updated FROM verified WHERE target = ? AND digest = ? AND run != ?",
            store_name,
            str(digest),
            self._run,
        )
        # A record from the future was made with a wrong clock: its age is unknown.
        now = time.time()
        return next((state for state, time_ in rows if now - MAX_AGE <= time_ <= now), None)

    def _save(self, store_name: str, digest: Digest, state: str) -> None:
        # At once: a kill may come while the next blob is read, which can take hours.
        self._journal.execute(
            "INSERT OR REPLACE INTO verified VALUES (?, ?, ?, ?, ?)",
            store_name,
            str(digest),
            self._run,
            state,
            time.time(),
        )

    def finish(self) -> None:
        """Delete the records of this check, which has ended."""
        self._journal.flush()
        self._journal.execute("DELETE FROM verified WHERE run = ?", self._run)
