"""One TLS context for all connections to a host: the authorities are read once, not for each."""

from __future__ import annotations

import os
import ssl
import threading
from collections.abc import Iterable
from typing import Any

import urllib3.connection
import urllib3.exceptions
from urllib3.util.ssl_ import ALPN_PROTOCOLS, create_urllib3_context

_Key = tuple[Any, ...]


class Trust:
    """The authorities of a host, as its connections name them. Any thread may call any method.

    Reading the usual hundred and fifty takes 13 ms of CPU, and keeping them 0.7 MiB: urllib3
    does both for each connection.
    """

    def __init__(self) -> None:
        """Read nothing yet."""
        self._lock = threading.Lock()  # guards both below
        self._key: _Key | None = None
        self._context: ssl.SSLContext | None = None

    def share(self, connection: urllib3.connection.HTTPSConnection) -> None:
        """Give a connection that is to be made the context of the others.

        One with a client's certificate keeps to itself: urllib3 knows what can be wrong with it.

        Raises:
            SSLError: of urllib3, as it raises it: the authorities cannot be read.
        """
        where = connection.ca_certs, connection.ca_cert_dir, connection.ca_cert_data
        checked = connection.cert_reqs in ("CERT_REQUIRED", ssl.CERT_REQUIRED)
        if not checked or not any(where) or connection.cert_file or connection.ssl_context:
            return
        key = (*where, _changed(connection.ca_certs), connection.ssl_minimum_version)
        with self._lock:
            if self._context is None or self._key != key:
                self._context = _context(*where, connection.ssl_minimum_version)
                self._key = key
            connection.ssl_context = self._context
        # urllib3 would read them once more, into the context that others use meanwhile.
        connection.ca_certs = connection.ca_cert_dir = connection.ca_cert_data = None


class _Settled(ssl.SSLContext):
    """A context that many threads make connections of."""

    def set_alpn_protocols(self, alpn_protocols: Iterable[str]) -> None:
        """Leave them as they are.

        urllib3 sets the same ones before each connection, and OpenSSL frees the old list while
        another thread's connection may be copying it.
        """


def _context(
    file: str | None, directory: str | None, data: str | bytes | None, least: int | None
) -> ssl.SSLContext:
    context = create_urllib3_context(cert_reqs=ssl.CERT_REQUIRED, ssl_minimum_version=least)
    try:
        context.load_verify_locations(file, directory, data)
    except OSError as error:
        raise urllib3.exceptions.SSLError(error) from error
    context.set_alpn_protocols(ALPN_PROTOCOLS)
    context.__class__ = _Settled
    return context


def _changed(path: str | None) -> tuple[int, int]:
    """Which file it is, and of when: one that is replaced counts for the next connection."""
    if path is None:
        return 0, 0
    try:
        found = os.stat(path)  # noqa: PTH116 - the path as it was given
    except OSError:
        return 0, 0  # reading it says what is wrong
    return found.st_ino, found.st_mtime_ns
