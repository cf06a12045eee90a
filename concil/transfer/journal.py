"""What survives a crash: unfinished transfers, digests of files, and what hosts taught (SQLite)."""

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

from concil.digest import Digest
from concil.errors import InvalidDigest
from concil.forking import pause_around_forks
from concil.fs.owner import Owner, is_alive
from concil.store.protocol import WriterState
from concil.transfer.journal_entry import Entry, Key, Unfinished, remove_partial, state_of
from concil.transfer.journal_schema import VERSION, ForeignJournal, open_database

__all__ = ["VERSION", "Entry", "Journal", "Unfinished"]

logger = logging.getLogger(__name__)

_BUSY = 5.0  # seconds to wait for another process's write
_LATER = 1.0  # seconds, and statements, until what is for later is written
_MOST_LATER = 256


class Journal:
    """One SQLite file for all processes of a user; a hint, never the truth.

    Any thread may call any method. A journal that cannot be used is said so in one
    warning; after that nothing is remembered and nothing else changes. Around a fork it is
    closed, for a handle of SQLite must not be in two processes; both open it again.
    """

    def __init__(self, path: Path | None) -> None:
        """Use the file at ``path``; None: remember nothing.

        Upload Locations in it are secrets: the directory is made 0700, the file 0600.
        """
        self.path = path
        self._lock = threading.Lock()
        self._owner = None if path is None else Owner(path)
        self._db: sqlite3.Connection | None = None
        self._is_usable = path is not None  # it was not closed, and has not failed
        self._later: list[tuple[str, tuple[object, ...]]] = []
        self._flushed = time.monotonic()
        if path is not None:
            pause_around_forks(self)
            with self._tolerant():
                self._db = open_database(path, _BUSY)

    @classmethod
    def default_path(cls) -> Path:
        """``$XDG_STATE_HOME/concil/journal.sqlite``.

        Source: XDG Base Directory Specification.
        """
        state = os.environ.get("XDG_STATE_HOME", "")
        base = Path(state) if state.startswith("/") else Path.home() / ".local" / "state"
        return base / "concil" / "journal.sqlite"

    @property
    def usable(self) -> bool:
        """Whether it remembers anything."""
        return self._is_usable

    def close(self) -> None:
        """Close the file."""
        self.flush()
        with self._lock:
            self._is_usable = False
            if self._db is not None:
                self._db.close()
            self._db = None
            if self._owner is not None:
                self._owner.close()

    def pause(self) -> None:
        """Close the file for a moment, and keep every thread out until `resume`."""
        self._lock.acquire()
        with contextlib.suppress(sqlite3.Error):
            if self._db is not None:
                self._db.close()
        self._db = None

    def resume(self) -> None:
        """Let threads in again after `pause`; the first one opens the file."""
        self._lock.release()

    def after_fork(self) -> None:
        """Own no row of the parent's, and write nothing of what it has still to write."""
        self._lock = threading.Lock()
        self._later = []
        if self._owner is not None:
            self._owner.leave()

    def entry(self, target: str, subject: str, size: int) -> Entry:
        """Return the place of a transfer, with what an earlier process left of it.

        Args:
            target: the destination's name.
            subject: a digest, or the identity of a file whose digest is not known.
        """
        entry = Entry(self, (target, subject, size), None)
        rows = self.query(
            "SELECT id, state, owner, updated FROM transfers"
            " WHERE target = ? AND subject = ? AND size = ? ORDER BY updated DESC",
            target,
            subject,
            size,
        )
        for number, text, owner, updated in rows:
            if not self._is_alive(owner, updated) and self._claim(number, owner):
                state = state_of(text)
                if state is not None:
                    claimed = Entry(self, (target, subject, size), number)
                    claimed.state = state
                    return claimed
                self.forget(number)
        return entry

    def digest_of(self, path: str, identity: str) -> Digest | None:
        """The digest of a file, if it is still the one that was hashed."""
        rows = self.query(
            "SELECT digest FROM digests WHERE path = ? AND identity = ?", path, identity
        )
        with contextlib.suppress(InvalidDigest):
            return Digest.parse(rows[0][0]) if rows else None
        return None

    def remember_digest(self, path: str, identity: str, digest: Digest) -> None:
        """Remember what a file hashes to."""
        self.execute(
            "INSERT OR REPLACE INTO digests VALUES (?, ?, ?, ?)",
            path,
            identity,
            str(digest),
            time.time(),
        )

    def known_of(self, host: str) -> dict[str, Any]:
        """What a host taught; empty if nothing."""
        rows = self.query("SELECT known FROM hosts WHERE host = ?", host)
        with contextlib.suppress(ValueError):
            known = json.loads(rows[0][0]) if rows else {}
            return known if isinstance(known, dict) else {}
        return {}

    def remember_host(self, host: str, known: dict[str, Any]) -> None:
        """Remember what a host taught."""
        text = json.dumps(known)
        self.execute("INSERT OR REPLACE INTO hosts VALUES (?, ?, ?)", host, text, time.time())

    def unfinished(self) -> list[Unfinished]:
        """Every transfer that could be gone on with, the newest first."""
        rows = self.query(
            "SELECT id, target, subject, size, state, owner, updated FROM transfers"
            " ORDER BY updated DESC"
        )
        found = []
        for number, target, subject, size, text, owner, updated in rows:
            state = state_of(text)
            if state is not None:
                running = self._is_alive(owner, updated)
                found.append(Unfinished(number, target, subject, size, state, running, updated))
        return found

    def forget(self, number: int) -> None:
        """Forget one transfer."""
        self.execute("DELETE FROM transfers WHERE id = ?", number)

    def release(self, number: int) -> None:
        """Let another process go on with one transfer."""
        self.execute("UPDATE transfers SET owner = '' WHERE id = ?", number)

    def take(self, number: int) -> bool:
        """Become the owner of a transfer that nobody is at, so that nobody goes on with it."""
        rows = self.query("SELECT owner, updated FROM transfers WHERE id = ?", number)
        return any(
            not self._is_alive(owner, updated) and self._claim(number, owner)
            for owner, updated in rows
        )

    def drop(self, target: str, subject: str) -> None:
        """Forget what was begun to bring some content to a place that has it now.

        A transfer that is under way is its process's own affair. A partial file goes as well.
        """
        rows = self.query(
            "SELECT id, state, owner, updated FROM transfers WHERE target = ? AND subject = ?",
            target,
            subject,
        )
        for number, text, owner, updated in rows:
            if self._is_alive(owner, updated) or not self._claim(number, owner):
                continue
            state = state_of(text)
            if state is not None:
                remove_partial(state.location)
            self.forget(number)

    def _is_alive(self, owner: str, updated: float) -> bool:
        return self.path is not None and bool(owner) and is_alive(self.path, owner, updated)

    def _claim(self, number: int, owner: str) -> bool:
        """Become the owner, unless another process was quicker."""
        with self._tolerant(), self._lock:
            db = self._opened()
            if db is not None and self._owner is not None:
                own = self._owner.name
                row = db.execute(
                    "UPDATE transfers SET owner = ? WHERE id = ? AND owner = ?",
                    (own, number, owner),
                )
                return bool(row.rowcount)
        return False

    def save(self, number: int | None, key: Key, state: WriterState) -> int | None:
        """Write where a transfer stands; return the number of its row, None if it failed."""
        text = json.dumps(asdict(state))
        if number is not None:
            changed = self.execute(
                "UPDATE transfers SET state = ?, updated = ? WHERE id = ?",
                text,
                time.time(),
                number,
            )
            if changed:
                return number
        with self._tolerant(), self._lock:
            db = self._opened()
            if db is not None and self._owner is not None:
                row = db.execute(
                    "INSERT INTO transfers (target, subject, size, state, owner, updated)"
                    " VALUES (?, ?, ?, ?, ?, ?)",
                    (*key, text, self._owner.name, time.time()),
                )
                return row.lastrowid
        return None

    def query(self, statement: str, *values: object) -> list[Any]:
        """Run a statement and return its rows; none if it did not run."""
        with self._tolerant(), self._lock:
            db = self._opened()
            if db is not None:
                return db.execute(statement, values).fetchall()
        return []

    def execute(self, statement: str, *values: object) -> int:
        """Run one statement; return the number of rows it changed, 0 if it did not run."""
        with self._tolerant(), self._lock:
            db = self._opened()
            if db is not None:
                return db.execute(statement, values).rowcount
        return 0

    def later(self, statement: str, *values: object) -> None:
        """Run a statement with others in one transaction: soon, or when the journal is closed.

        For what is cheap to lose: a transaction for each blob would cost as much as its requests.
        """
        with self._lock:
            self._later.append((statement, values))
            since = time.monotonic() - self._flushed
            due = len(self._later) >= _MOST_LATER or since > _LATER
        if due:
            self.flush()

    def flush(self) -> None:
        """Run what was to be run later."""
        with self._tolerant(), self._lock:
            waiting, self._later = self._later, []
            self._flushed = time.monotonic()
            db = self._opened() if waiting else None
            if db is not None:
                db.execute("BEGIN")
                for statement, values in waiting:
                    db.execute(statement, values)
                db.execute("COMMIT")

    def _opened(self) -> sqlite3.Connection | None:
        """The open file; None if it is of no use. The caller holds the lock."""
        if self._db is None and self._is_usable and self.path is not None:
            self._db = open_database(self.path, _BUSY)
        return self._db

    @contextlib.contextmanager
    def _tolerant(self) -> Iterator[None]:
        """A journal that fails is done without, after one warning."""
        try:
            yield
        except (sqlite3.Error, OSError, MemoryError, ForeignJournal) as error:
            broken, self._db, self._is_usable = self._db, None, False
            with contextlib.suppress(sqlite3.Error):
                if broken is not None:
                    broken.close()
            logger.warning(
                "the journal %s cannot be used (%s); going on without: an interrupted transfer"
                " will start over",
                self.path,
                str(error) or "out of memory",
            )
