"""Builds one TLS context per host, reuses it and its sessions; finds the CA of the environment."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import threading
import time
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


def answers_in_plain_http(host: str, port: int, timeout: float) -> bool:
    """Return whether a server answers a ClientHello with a plain HTTP response.

    False also if there is no answer. It costs a connection and saves loading the CA certificates.

    Args:
        timeout: seconds to connect, and seconds to wait for the answer.
    """
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client = context.wrap_bio(incoming, outgoing, server_hostname=host)
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    try:
        with socket.create_connection((host, port), timeout) as connection:
            connection.sendall(outgoing.read())
            return connection.recv(1) == b"H"  # of HTTP/; no TLS record begins with it
    except OSError:
        return False


def save_session(connected: object) -> None:
    """Let later connections of the same host resume the session of ``connected``.

    A resumed session saves the certificates and two thirds of the CPU time of a handshake. The
    name and the certificate were verified by the connection that it comes from.

    Args:
        connected: a socket, from which a response was read: TLS 1.3 sends its tickets after the
            handshake. Sockets without a context of this module are ignored.
    """
    if isinstance(connected, ssl.SSLSocket):
        context = connected.context
        if isinstance(context, _SharedContext) and not context.has_usable_session():
            context.session = connected.session


class _SharedContext(ssl.SSLContext):
    """TLS context that several threads connect to one host with."""

    session: ssl.SSLSession | None = None  # of an earlier connection

    def has_usable_session(self) -> bool:
        """Whether there is a session in the first half of its lifetime."""
        session = self.session
        return session is not None and time.time() < session.time + session.timeout / 2

    def wrap_socket(  # noqa: PLR0913, PLR0917 - ssl's
        self,
        sock: socket.socket,
        server_side: bool = False,  # noqa: FBT001, FBT002 - ssl's
        do_handshake_on_connect: bool = True,  # noqa: FBT001, FBT002 - ssl's
        suppress_ragged_eofs: bool = True,  # noqa: FBT001, FBT002 - ssl's
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLSocket:
        """Connect; resume the saved session if the server still accepts it."""
        return super().wrap_socket(
            sock,
            server_side,
            do_handshake_on_connect,
            suppress_ragged_eofs,
            server_hostname,
            session or self.session,
        )

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
    context.__class__ = _SharedContext
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
