"""A connection of urllib3's pool, used without urllib3."""

from __future__ import annotations

from typing import Any

import requests
from urllib3.connectionpool import HTTPConnectionPool

from concil.config import KIB, MIB
from concil.http import unsafe_fast_path
from concil.http.tls_context import save_session

_JOINED_BLOCK_SIZE = 64 * KIB  # bytes of a block that is sent together with the headers
_BLOCK_SIZE = 1 * MIB


class PooledConnection:
    """A connection for one exchange. One thread at a time; end it by `release` or `discard`."""

    def __init__(
        self, pool: HTTPConnectionPool, connect_timeout: float | None, idle_timeout: float | None
    ) -> None:
        """Take an idle connection from the pool, or connect.

        Args:
            connect_timeout: seconds to connect; None: no limit.
            idle_timeout: seconds without a byte, in either direction; None: no limit.
        Raises:
            urllib3.exceptions.HTTPError, OSError: it could not connect.
        """
        self.pool = pool
        self._connection = unsafe_fast_path.take_connection(pool)
        self._has_unsent_bytes = False
        try:
            self._sock = self._connect(connect_timeout)
            if self._sock.gettimeout() != idle_timeout:  # a system call for each setting
                self._sock.settimeout(idle_timeout)
        except BaseException:
            self.discard()
            raise
        self.recv = self._sock.recv
        self.recv_into = self._sock.recv_into

    def send(self, head: bytes, request: requests.PreparedRequest) -> None:
        """Send a head and the body of ``request``.

        A server may answer before it has read the body, and close the connection: that is no
        error yet.
        """
        body: Any = request.body
        try:
            if not body:
                self._sock.sendall(head)
            elif isinstance(body, bytes):
                self._send_joined(head, body)
            else:
                self._send_joined(head, body.read(_BLOCK_SIZE))
                while block := body.read(_BLOCK_SIZE):
                    self._sock.sendall(block)
        except (BrokenPipeError, ConnectionResetError):
            self._has_unsent_bytes = True

    def release(self, *, is_reusable: bool) -> None:
        """Return the connection to its pool, or close it if it cannot be used again."""
        save_session(self._sock)
        if is_reusable and not self._has_unsent_bytes:
            unsafe_fast_path.return_connection(self.pool, self._connection)
        else:
            self.discard()

    def discard(self) -> None:
        """Close the connection; the pool opens another one in its place."""
        self._connection.close()
        unsafe_fast_path.return_connection(self.pool, None)

    def _connect(self, timeout: float | None) -> Any:  # noqa: ANN401 - a socket or TLS socket
        connection = self._connection
        if connection.sock is None:
            connection.timeout = timeout
            unsafe_fast_path.connect(self.pool, connection)
        return connection.sock

    def _send_joined(self, head: bytes, block: bytes | memoryview) -> None:
        """Send a head and the first block of a body, in one call if the block is small."""
        if len(block) <= _JOINED_BLOCK_SIZE:
            self._sock.sendall(head + block)
        else:
            self._sock.sendall(head)
            self._sock.sendall(block)
