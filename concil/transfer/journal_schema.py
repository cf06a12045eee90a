"""The tables of the journal."""

from __future__ import annotations

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
"""
