"""Tables of the journal, and how its database is opened."""

from __future__ import annotations

import os
import sqlite3
import sys
from pathlib import Path

VERSION = 1
# A free-threaded interpreter lets the thread that created an object free it, when that thread
# next runs. A cached statement of another thread would therefore keep the files open after
# close(), and the next fork would copy them: both processes would then write, without a lock.
_CACHED_STATEMENTS = 0 if "t" in sys.abiflags else 128  # 128: the default of sqlite3

SCHEMA = """
CREATE TABLE IF NOT EXISTS transfers (
    id INTEGER PRIMARY KEY,
    target TEXT NOT NULL,
    subject TEXT NOT NULL,
    size INTEGER NOT NULL,
    state TEXT NOT NULL,
    owner TEXT NOT NULL,
    updated REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS transfers_by_subject ON transfers (target, subject);
CREATE TABLE IF NOT EXISTS digests (
    path TEXT PRIMARY KEY,
    identity TEXT NOT NULL,
    digest TEXT NOT NULL,
    updated REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS hosts (
    host TEXT PRIMARY KEY,
    known TEXT NOT NULL,
    updated REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS images (
    source TEXT NOT NULL,
    target TEXT NOT NULL,
    platforms TEXT NOT NULL,
    source_digest TEXT NOT NULL,
    digest TEXT NOT NULL,
    updated REAL NOT NULL,
    PRIMARY KEY (source, target, platforms)
);
CREATE TABLE IF NOT EXISTS places (
    realm TEXT NOT NULL,
    digest TEXT NOT NULL,
    repository TEXT NOT NULL,
    updated REAL NOT NULL,
    PRIMARY KEY (realm, digest)
);
CREATE TABLE IF NOT EXISTS created (
    digest TEXT NOT NULL,
    platforms TEXT NOT NULL,
    time REAL,
    updated REAL NOT NULL,
    PRIMARY KEY (digest, platforms)
);
CREATE TABLE IF NOT EXISTS list_pages (
    url TEXT NOT NULL,
    identity TEXT NOT NULL,
    etag TEXT NOT NULL,
    link TEXT NOT NULL,
    content BLOB NOT NULL,
    size INTEGER NOT NULL,
    updated REAL NOT NULL,
    PRIMARY KEY (url, identity)
);
CREATE TABLE IF NOT EXISTS verified (
    target TEXT NOT NULL,
    digest TEXT NOT NULL,
    run TEXT NOT NULL,
    state TEXT NOT NULL,
    updated REAL NOT NULL,
    PRIMARY KEY (target, digest)
);
CREATE TABLE IF NOT EXISTS accepted (
    policy TEXT NOT NULL,
    digest TEXT NOT NULL,
    updated REAL NOT NULL,
    PRIMARY KEY (policy, digest)
);
"""


class JournalVersionError(Exception):
    """The journal was written by another version of the program."""


def open_database(path: Path, busy_timeout: float) -> sqlite3.Connection:
    """Open the database of a journal, and create it if it is missing.

    Args:
        busy_timeout: seconds to wait for another process that writes.
    Raises:
        JournalVersionError, sqlite3.Error, OSError: it cannot be used.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # SQLite would create a world-readable file; -wal and -shm inherit its mode.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    db = sqlite3.connect(
        path,
        timeout=busy_timeout,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=_CACHED_STATEMENTS,
    )
    try:
        db.execute("PRAGMA journal_mode = WAL")
        # A crash of the machine may lose the last entries, a crash of the process none.
        db.execute("PRAGMA synchronous = NORMAL")
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version not in (0, VERSION):
            raise JournalVersionError(f"its version is {version}, this program writes {VERSION}")  # noqa: TRY301
        db.executescript(SCHEMA)
        db.execute(f"PRAGMA user_version = {VERSION}")
    except BaseException:
        db.close()
        raise
    return db
