"""Builds one TLS context per host and reuses it; finds the CA of the environment."""

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


def environment_ca() -> str | None:
    """Return the CA file or directory that the environment names."""
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        path = os.environ.get(name)
        if path:
            return path
    return None


class SharedSSLContext:
    """TLS context shared by a host's connections. Any thread may call any method.

    Loading the usual 150 CA certificates takes 13 ms of CPU time and 0.7 MiB of memory, and
    urllib3 would do it for each connection.
    """

    def __init__(self) -> None:
        """Create no context yet."""
        self._lock = threading.Lock()  # guards both below
        self._key: _Key | None = None
        self._context: ssl.SSLContext | None = None

    def apply_to(self, connection: urllib3.connection.HTTPSConnection) -> None:
        """Set the shared context on a connection that is about to connect.

        A connection with a client certificate is left to urllib3, which reports what is wrong
        with the certificate.

        Raises:
            urllib3.exceptions.SSLError: the CA certificates cannot be read.
        """
        locations = connection.ca_certs, connection.ca_cert_dir, connection.ca_cert_data
        is_verified = connection.cert_reqs in ("CERT_REQUIRED", ssl.CERT_REQUIRED)
        if not is_verified or not any(locations) or connection.cert_file or connection.ssl_context:
            return
        key = (*locations, _file_signature(connection.ca_certs), connection.ssl_minimum_version)
        with self._lock:
            if self._context is None or self._key != key:
                self._context = _create_context(*locations, connection.ssl_minimum_version)
                self._key = key
            connection.ssl_context = self._context
        # urllib3 would load them again, into the context that other connections are using.
        connection.ca_certs = connection.ca_cert_dir = connection.ca_cert_data = None


class _FixedALPNContext(ssl.SSLContext):
    """TLS context that several threads connect with."""

    def set_alpn_protocols(self, alpn_protocols: Iterable[str]) -> None:
        """Ignore the call, because the protocols are set already.

        urllib3 sets the same list before each connection, and OpenSSL frees the old list while
        another thread's connection may be copying it.
        """


def _create_context(
    ca_certs: str | None,
    ca_cert_dir: str | None,
    ca_cert_data: str | bytes | None,
    minimum_version: int | None,
) -> ssl.SSLContext:
    context = create_urllib3_context(
        cert_reqs=ssl.CERT_REQUIRED, ssl_minimum_version=minimum_version
    )
    try:
        context.load_verify_locations(ca_certs, ca_cert_dir, ca_cert_data)
    except OSError as error:
        raise urllib3.exceptions.SSLError(error) from error
    context.set_alpn_protocols(ALPN_PROTOCOLS)
    context.__class__ = _FixedALPNContext
    return context


def _file_signature(path: str | None) -> tuple[int, int]:
    """Return inode and modification time, so that a replaced CA file is loaded again."""
    if path is None:
        return 0, 0
    try:
        status = os.stat(path)  # noqa: PTH116 - the path as it was given
    except OSError:
        return 0, 0  # loading it raises the error
    return status.st_ino, status.st_mtime_ns
