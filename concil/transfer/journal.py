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
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from concil.digest import Digest
from concil.errors import InvalidDigest
from concil.store.protocol import WriterState
from concil.transfer.journal_schema import SCHEMA

logger = logging.getLogger(__name__)

VERSION = 1
_BUSY = 5.0  # seconds to wait for another process's write
_LATER = 1.0  # seconds, and statements, until what is for later is written
_MOST_LATER = 256


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A transfer that could be gone on with, as `Journal.unfinished` lists it."""

    number: int
    target: str
    subject: str  # a digest, or the identity of a file
    size: int  # bytes
    state: WriterState
    running: bool  # a living process is at it
    updated: float  # seconds since the epoch


class Entry:
    """One transfer's place in the journal. Any thread may call any method.

    Nothing here raises: what cannot be remembered is only sent again some day.
    """

    def __init__(self, journal: Journal, key: tuple[str, str, int], number: int | None) -> None:
        """Belong to ``journal``; made by `Journal.entry`."""
        self._journal = journal
        self._key = key
        self._number = number
        self._saving = threading.Lock()  # guards _number: of two first rows one would stay
        self.state: WriterState | None = None  # of an earlier process

    @classmethod
    def nowhere(cls) -> Entry:
        """A place of which nothing is remembered."""
        return cls(Journal(None), ("", "", 0), None)

    def save(self, state: WriterState | None) -> None:
        """Remember where the transfer stands; None: nothing to go on with."""
        if state is not None:
            with self._saving:
                self._number = self._journal._save(self._number, self._key, state)  # noqa: SLF001

    def done(self) -> None:
        """Forget the transfer: it is finished, or can never be."""
        if self._number is not None:
            self._journal.execute("DELETE FROM transfers WHERE id = ?", self._number)
        self._number = None

    def release(self) -> None:
        """Let another process go on with it."""
        if self._number is not None:
            self._journal.execute("UPDATE transfers SET owner = '' WHERE id = ?", self._number)


class Journal:
    """One SQLite file for all processes of a user; a hint, never the truth.

    Any thread may call any method. A journal that cannot be used is said so in one
    warning; after that nothing is remembered and nothing else changes.
    """

    def __init__(self, path: Path | None) -> None:
        """Use the file at ``path``; None: remember nothing.

        Upload Locations in it are secrets: the directory is made 0700, the file 0600.
        """
        self.path = path
        self._lock = threading.Lock()
        self._owner = f"{os.getpid()}:{_started(os.getpid())}"
        self._db: sqlite3.Connection | None = None
        self._later: list[tuple[str, tuple[object, ...]]] = []
        self._flushed = time.monotonic()
        if path is not None:
            with self._tolerant():
                self._db = _open(path)

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
        return self._db is not None

    def close(self) -> None:
        """Close the file."""
        self.flush()
        with self._lock:
            if self._db is not None:
                self._db.close()
            self._db = None

    def entry(self, target: str, subject: str, size: int) -> Entry:
        """Return the place of a transfer, with what an earlier process left of it.

        Args:
            target: the destination's name.
            subject: a digest, or the identity of a file whose digest is not known.
        """
        entry = Entry(self, (target, subject, size), None)
        rows = self.query(
            "SELECT id, state, owner FROM transfers"
            " WHERE target = ? AND subject = ? AND size = ? ORDER BY updated DESC",
            target,
            subject,
            size,
        )
        for number, text, owner in rows:
            if not _alive(owner) and self._claim(number, owner):
                state = _state(text)
                if state is not None:
                    claimed = Entry(self, (target, subject, size), number)
                    claimed.state = state
                    return claimed
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
            state = _state(text)
            if state is not None:
                running = _alive(owner)
                found.append(Unfinished(number, target, subject, size, state, running, updated))
        return found

    def forget(self, number: int) -> None:
        """Forget one transfer."""
        self.execute("DELETE FROM transfers WHERE id = ?", number)

    def _claim(self, number: int, owner: str) -> bool:
        """Become the owner, unless another process was quicker."""
        return bool(
            self.execute(
                "UPDATE transfers SET owner = ? WHERE id = ? AND owner = ?",
                self._owner,
                number,
                owner,
            )
        )

    def _save(
        self, number: int | None, key: tuple[str, str, int], state: WriterState
    ) -> int | None:
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
            if self._db is not None:
                row = self._db.execute(
                    "INSERT INTO transfers (target, subject, size, state, owner, updated)"
                    " VALUES (?, ?, ?, ?, ?, ?)",
                    (*key, text, self._owner, time.time()),
                )
                return row.lastrowid
        return None

    def query(self, statement: str, *values: object) -> list[Any]:
        """Run a statement and return its rows; none if it did not run."""
        with self._tolerant(), self._lock:
            if self._db is not None:
                return self._db.execute(statement, values).fetchall()
        return []

    def execute(self, statement: str, *values: object) -> int:
        """Run one statement; return the number of rows it changed, 0 if it did not run."""
        with self._tolerant(), self._lock:
            if self._db is not None:
                return self._db.execute(statement, values).rowcount
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
            if self._db is not None and waiting:
                self._db.execute("BEGIN")
                for statement, values in waiting:
                    self._db.execute(statement, values)
                self._db.execute("COMMIT")

    @contextlib.contextmanager
    def _tolerant(self) -> Iterator[None]:
        """A journal that fails is done without, after one warning."""
        try:
            yield
        except (sqlite3.Error, OSError, _Foreign) as error:
            broken, self._db = self._db, None
            with contextlib.suppress(sqlite3.Error):
                if broken is not None:
                    broken.close()
            logger.warning(
                "the journal %s cannot be used (%s); going on without: an interrupted transfer"
                " will start over",
                self.path,
                error,
            )


class _Foreign(Exception):
    """A journal of another version."""


def _open(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # SQLite would make the file readable to all; its -wal and -shm take its mode.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    db = sqlite3.connect(path, timeout=_BUSY, isolation_level=None, check_same_thread=False)
    try:
        db.execute("PRAGMA journal_mode = WAL")
        # A crash of the machine may lose the last entries; a crash of a process none.
        db.execute("PRAGMA synchronous = NORMAL")
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version not in (0, VERSION):
            raise _Foreign(f"its version is {version}, this program writes {VERSION}")  # noqa: TRY301
        db.executescript(SCHEMA)
        db.execute(f"PRAGMA user_version = {VERSION}")
    except BaseException:
        db.close()
        raise
    return db


def _state(text: str) -> WriterState | None:
    """Read a state; None for anything that is none."""
    try:
        found = json.loads(text)
        stretches = tuple((int(a), int(b)) for a, b in found["stretches"])
        return WriterState(
            str(found["location"]),
            int(found["offset"]),
            int(found["chunk_size"]),
            stretches,
            str(found["hashed"]),
        )
    except (ValueError, TypeError, KeyError):
        return None


def _alive(owner: str) -> bool:
    """Whether the process that owns a transfer still runs, and is not another of its number."""
    pid, _, started = owner.partition(":")
    return pid.isdigit() and bool(started) and _started(int(pid)) == started


def _started(pid: int) -> str:
    """When a process was started, in the kernel's ticks; "" if it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
    # The name, in parentheses, may hold anything; the fields behind it do not.
    return stat.rpartition(")")[2].split()[19]
