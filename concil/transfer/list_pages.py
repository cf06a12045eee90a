"""Keeps pages of lists of tags and repositories in the journal."""

from __future__ import annotations

import threading
import time
import zlib
from collections.abc import Mapping

from concil.config import KIB, MIB
from concil.oci.cached_page import MAX_PAGE_SIZE, CachedPage
from concil.transfer.journal import Journal

MAX_TOTAL_SIZE = 32 * MIB  # compressed bytes of all pages
_LIFETIME = 90 * 24 * 3600  # seconds until an unused page is dropped
_USE_INTERVAL = 24 * 3600  # seconds until the use of a page is recorded again
_TRIM_INTERVAL = 256  # pages
_MAX_DEFERRED_SIZE = 64 * KIB  # bytes; larger pages are written at once, to save memory


class ListPages:
    """Pages of lists, compressed and bounded in size. See `PageStore`.

    Any thread may call any method.
    """

    def __init__(self, journal: Journal) -> None:
        """Keep them in ``journal``."""
        self._journal = journal
        self._lock = threading.Lock()  # guards the field below
        self._count = 0  # pages that were stored

    def etags(self, url: str) -> Mapping[str, str]:
        """Return the entity tags of a page by the identity of who read it."""
        rows = self._journal.query("SELECT identity, etag FROM list_pages WHERE url = ?", url)
        return {str(identity): str(etag) for identity, etag in rows}

    def load(self, url: str, identity: str) -> CachedPage | None:
        """Return a page; None: it was dropped or is damaged."""
        key = url, identity
        rows = self._journal.query(
            "SELECT etag, link, content, updated FROM list_pages WHERE url = ? AND identity = ?",
            *key,
        )
        if not rows:
            return None
        etag, link, packed, updated = rows[0]
        if time.time() - updated > _USE_INTERVAL:
            self._journal.execute_deferred(
                "UPDATE list_pages SET updated = ? WHERE url = ? AND identity = ?",
                time.time(),
                *key,
            )
        decompressor = zlib.decompressobj()
        try:
            content = decompressor.decompress(packed, MAX_PAGE_SIZE)
        except (zlib.error, TypeError):
            return None
        return CachedPage(str(etag), str(link), content) if decompressor.eof else None

    def store(self, url: str, identity: str, page: CachedPage) -> None:
        """Keep a page."""
        with self._lock:
            is_due = self._count % _TRIM_INTERVAL == 0
            self._count += 1
        if is_due:
            self._trim()
        packed = zlib.compress(page.content, 1)
        run = self._journal.execute_deferred
        (run if len(packed) < _MAX_DEFERRED_SIZE else self._journal.execute)(
            "INSERT OR REPLACE INTO list_pages VALUES (?, ?, ?, ?, ?, ?, ?)",
            url,
            identity,
            page.etag,
            page.link,
            packed,
            len(packed),
            time.time(),
        )

    def _trim(self) -> None:
        """Delete pages that were not used for long, and the least recently used of too many."""
        self._journal.execute(
            "DELETE FROM list_pages WHERE updated < ? OR rowid IN (SELECT rowid FROM"
            " (SELECT rowid, SUM(size) OVER (ORDER BY updated DESC) AS total FROM list_pages)"
            " WHERE total > ?)",
            time.time() - _LIFETIME,
            MAX_TOTAL_SIZE,
        )
