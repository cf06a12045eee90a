"""Journal of unfinished transfers, file digests and host profiles (SQLite)."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from concil.errors import InvalidDigest
from concil.fs.owner_lock import OwnerLock, is_alive
from concil.fs.resume_state import WriterState
from concil.oci.digest import Digest
from concil.runtime.forking import register_fork_hooks
from concil.transfer.journal_entry import (
    JournalEntry,
    Key,
    UnfinishedTransfer,
    parse_state,
    remove_partial_file,
)
from concil.transfer.journal_schema import VERSION, JournalVersionError, open_database

__all__ = ["VERSION", "Journal", "JournalEntry", "UnfinishedTransfer"]

logger = logging.getLogger(__name__)

_BUSY_TIMEOUT = 5.0  # seconds to wait for another process's write
_FLUSH_INTERVAL = 1.0  # seconds, and statements, until deferred statements are written
_MAX_DEFERRED = 256


class Journal:
    """One SQLite file for all processes of a user; a hint, never the truth.

    Any thread may call any method. A journal that cannot be used causes one warning; after
    that nothing is recorded, and transfers work as before. It is closed around a fork,
    because a SQLite handle must not be shared by two processes; both reopen it.
    """

    def __init__(self, path: Path | None) -> None:
        """Use the file at ``path``; None: record nothing.

        It holds upload Locations, which are secrets: the directory has mode 0700, the file 0600.
        """
        self.path = path
        self._lock = threading.Lock()
        self._owner = None if path is None else OwnerLock(path)
        self._db: sqlite3.Connection | None = None
        self._is_usable = path is not None  # not closed and not failed
        self._deferred: list[tuple[str, tuple[object, ...]]] = []
        self._last_flush = time.monotonic()
        if path is not None:
            register_fork_hooks(self)
            with self._locked():
                self._db = open_database(path, _BUSY_TIMEOUT)

    @classmethod
    def default_path(cls) -> Path:
        """Return ``$XDG_STATE_HOME/concil/journal.sqlite``.

        Source: XDG Base Directory Specification.
        """
        state = os.environ.get("XDG_STATE_HOME", "")
        base = Path(state) if state.startswith("/") else Path.home() / ".local" / "state"
        return base / "concil" / "journal.sqlite"

    @property
    def is_usable(self) -> bool:
        """Whether the journal records anything."""
        return self._is_usable

    def close(self) -> None:
        """Write deferred statements and close the file."""
        self.flush()
        with self._lock:
            self._is_usable = False
            if self._db is not None:
                self._db.close()
            self._db = None
            if self._owner is not None:
                self._owner.close()

    def before_fork(self) -> None:
        """Close the file, and block every thread until `after_fork_in_parent`."""
        self._lock.acquire()
        with contextlib.suppress(sqlite3.Error):
            if self._db is not None:
                self._db.close()
        self._db = None

    def after_fork_in_parent(self) -> None:
        """Unblock threads after `before_fork`; the first one reopens the file."""
        self._lock.release()

    def after_fork(self) -> None:
        """Drop the parent's rows and deferred statements in a forked child."""
        self._lock = threading.Lock()
        self._deferred = []
        if self._owner is not None:
            self._owner.after_fork()

    def claim_transfer(self, destination: str, subject: str, size: int) -> JournalEntry:
        """Return the entry of a transfer, with the state that an earlier process saved.

        Args:
            destination: name of the destination.
            subject: a digest, or the identity of a file whose digest is unknown.
        """
        entry = JournalEntry(self, (destination, subject, size), None)
        rows = self.query(
            "SELECT id, state, owner, updated FROM transfers"
            " WHERE target = ? AND subject = ? AND size = ? ORDER BY updated DESC",
            destination,
            subject,
            size,
        )
        for number, text, owner, updated in rows:
            if not self._is_alive(owner, updated) and self._claim_row(number, owner):
                state = parse_state(text)
                if state is not None:
                    return JournalEntry(self, (destination, subject, size), number, state)
                self.delete(number)
        return entry

    def find_digest(self, path: str, identity: str) -> Digest | None:
        """Return the recorded digest of a file; None if the file has changed or is unknown."""
        rows = self.query(
            "SELECT digest FROM digests WHERE path = ? AND identity = ?", path, identity
        )
        with contextlib.suppress(InvalidDigest):
            return Digest.parse(rows[0][0]) if rows else None
        return None

    def save_digest(self, path: str, identity: str, digest: Digest) -> None:
        """Record the digest of a file."""
        self.execute(
            "INSERT OR REPLACE INTO digests VALUES (?, ?, ?, ?)",
            path,
            identity,
            str(digest),
            time.time(),
        )

    def delete_expired(self, table: str, lifetime: float) -> None:
        """Delete the rows of a table that were not updated for ``lifetime`` seconds."""
        self.execute(
            f"DELETE FROM {table} WHERE updated < ?",  # noqa: S608 - a name of our own
            time.time() - lifetime,
        )

    def load_host_profile(self, host: str) -> dict[str, Any]:
        """Return the recorded profile of a host; empty if there is none."""
        rows = self.query("SELECT known FROM hosts WHERE host = ?", host)
        with contextlib.suppress(ValueError):
            profile = json.loads(rows[0][0]) if rows else {}
            return profile if isinstance(profile, dict) else {}
        return {}

    def save_host_profile(self, host: str, profile: dict[str, Any]) -> None:
        """Record the profile of a host."""
        text = json.dumps(profile)
        self.execute("INSERT OR REPLACE INTO hosts VALUES (?, ?, ?)", host, text, time.time())

    def list_unfinished(self) -> list[UnfinishedTransfer]:
        """Return every transfer that can be resumed, the newest first."""
        rows = self.query(
            "SELECT id, target, subject, size, state, owner, updated FROM transfers"
            " ORDER BY updated DESC"
        )
        transfers = []
        for number, target, subject, size, text, owner, updated in rows:
            state = parse_state(text)
            if state is not None:
                is_running = self._is_alive(owner, updated)
                transfers.append(
                    UnfinishedTransfer(number, target, subject, size, state, is_running, updated)
                )
        return transfers

    def delete(self, row_id: int) -> None:
        """Delete one transfer."""
        self.execute("DELETE FROM transfers WHERE id = ?", row_id)

    def release(self, row_id: int) -> None:
        """Release one transfer, so that another process can resume it."""
        self.execute("UPDATE transfers SET owner = '' WHERE id = ?", row_id)

    def claim(self, row_id: int) -> bool:
        """Claim a transfer that no living process owns; return whether that succeeded."""
        rows = self.query("SELECT owner, updated FROM transfers WHERE id = ?", row_id)
        return any(
            not self._is_alive(owner, updated) and self._claim_row(row_id, owner)
            for owner, updated in rows
        )

    def delete_abandoned(self, destination: str, subject: str) -> None:
        """Delete abandoned transfers of content that the destination has now.

        Transfers of living processes are left alone. Partial files are removed as well.
        """
        rows = self.query(
            "SELECT id, state, owner, updated FROM transfers WHERE target = ? AND subject = ?",
            destination,
            subject,
        )
        for number, text, owner, updated in rows:
            if self._is_alive(owner, updated) or not self._claim_row(number, owner):
                continue
            state = parse_state(text)
            if state is not None:
                remove_partial_file(state.location)
            self.delete(number)

    def _is_alive(self, owner: str, updated: float) -> bool:
        return self.path is not None and bool(owner) and is_alive(self.path, owner, updated)

    def _claim_row(self, row_id: int, owner: str) -> bool:
        """Take ownership of a row, unless another process has just done so."""
        with self._locked():
            db = self._connection()
            if db is not None and self._owner is not None:
                owner_name = self._owner.name
                row = db.execute(
                    "UPDATE transfers SET owner = ? WHERE id = ? AND owner = ?",
                    (owner_name, row_id, owner),
                )
                return bool(row.rowcount)
        return False

    def save(self, row_id: int | None, key: Key, state: WriterState) -> int | None:
        """Write the state of a transfer; return its row number, None if that failed."""
        text = json.dumps(asdict(state))
        if row_id is not None:
            changed_rows = self.execute(
                "UPDATE transfers SET state = ?, updated = ? WHERE id = ?",
                text,
                time.time(),
                row_id,
            )
            if changed_rows:
                return row_id
        with self._locked():
            db = self._connection()
            if db is not None and self._owner is not None:
                row = db.execute(
                    "INSERT INTO transfers (target, subject, size, state, owner, updated)"
                    " VALUES (?, ?, ?, ?, ?, ?)",
                    (*key, text, self._owner.name, time.time()),
                )
                return row.lastrowid
        return None

    def query(self, statement: str, *values: object) -> list[Any]:
        """Run a statement and return its rows; empty if the journal is unusable."""
        with self._locked():
            db = self._connection()
            if db is not None:
                return db.execute(statement, values).fetchall()
        return []

    def execute(self, statement: str, *values: object) -> int:
        """Run one statement; return the number of changed rows, 0 if the journal is unusable."""
        with self._locked():
            db = self._connection()
            if db is not None:
                return db.execute(statement, values).rowcount
        return 0

    def execute_deferred(self, statement: str, *values: object) -> None:
        """Run a statement later, with others in one transaction; at the latest on close.

        For records that are cheap to lose: one transaction per blob would take as long as
        the requests for the blob.
        """
        with self._lock:
            self._deferred.append((statement, values))
            elapsed = time.monotonic() - self._last_flush
            is_due = len(self._deferred) >= _MAX_DEFERRED or elapsed > _FLUSH_INTERVAL
        if is_due:
            self.flush()

    def flush(self) -> None:
        """Run the deferred statements."""
        with self._locked():
            statements, self._deferred = self._deferred, []
            self._last_flush = time.monotonic()
            db = self._connection() if statements else None
            if db is not None:
                db.execute("BEGIN")
                for statement, values in statements:
                    db.execute(statement, values)
                db.execute("COMMIT")

    def _connection(self) -> sqlite3.Connection | None:
        """Return the open database; None if it is unusable. The caller holds the lock."""
        if self._db is None and self._is_usable and self.path is not None:
            self._db = open_database(self.path, _BUSY_TIMEOUT)
        return self._db

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the lock; an error disables the journal, after one warning.

        The database is also opened and closed under the lock, so that no fork copies it.
        """
        reason = None
        with self._lock:
            try:
                yield
            except (sqlite3.Error, OSError, MemoryError, JournalVersionError) as error:
                reason = str(error) or "out of memory"
                broken, self._db, self._is_usable = self._db, None, False
                with contextlib.suppress(sqlite3.Error):
                    if broken is not None:
                        broken.close()
        if reason is not None:  # without the lock: a handler of the user may fork, too
            logger.warning(
                "the journal %s cannot be used (%s); continuing without it: an interrupted "
                "transfer will start over",
                self.path,
                reason,
            )
