"""Accepts connections and runs a thread for each."""

from __future__ import annotations

import contextlib
import errno
import logging
import selectors
import socket
import ssl
import threading
import time
from collections.abc import Callable

from concil.runtime.forking import close_socket_in_child, register_after_fork
from concil.runtime.limits import THREADS_REMEDY, describe_limit, start_thread
from concil.server.connection import Connection
from concil.server.connection_table import ConnectionTable, OpenConnection, network_of

logger = logging.getLogger(__name__)

_BACKLOG = 1024  # the system may have a lower limit
_RETRY_DELAY = 0.1  # seconds until the next attempt without descriptors or threads
_TRIES = 5  # attempts to start a thread, each after a pause or the end of another connection
_QUIET = 60.0  # seconds between warnings about closed connections
_UNAVAILABLE_RESPONSE = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\n"
    b"Content-Length: 0\r\nConnection: close\r\n\r\n"
)
_JOIN_TIMEOUT = 30.0  # seconds for a thread to end after its socket was shut down


class Listener:
    """Accepts connections and runs a thread for each.

    `close` may be called by any thread, more than once.
    """

    def __init__(  # noqa: PLR0913 - each has a default or is a part of the server
        self,
        address: tuple[str, int],
        serve: Callable[[Connection], None],
        *,
        idle_timeout: float,
        ssl_context: ssl.SSLContext | None = None,
        name: str = "registry",
        max_connections: int | None = None,
    ) -> None:
        """Bind the address; connections wait until `start`.

        Args:
            address: host and port; port 0 selects a free one.
            serve: called in a new thread for each connection.
            idle_timeout: seconds without data until a connection is closed.
            ssl_context: enables TLS.
            name: of the server, for its threads and messages.
            max_connections: at a time; each has a thread. None: `MAX_CONNECTIONS`.

        Raises:
            OSError: the address is in use or not local.
        """
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._socket = socket.create_server(address, family=family, backlog=_BACKLOG)
        self.address: tuple[str, int] = self._socket.getsockname()[:2]
        self._serve = serve
        self._idle_timeout = idle_timeout
        self._ssl_context = ssl_context
        self._wakeup_writer, self._wakeup_reader = socket.socketpair()
        self._name = name
        self._max_connections = max_connections
        self._connections = ConnectionTable(max_connections)
        self._warned = -_QUIET  # monotonic seconds of the last warning
        self._last_accept_error = ""  # not to be logged again
        self._thread = threading.Thread(target=self._accept_loop, name=name, daemon=True)
        for sock in (self._socket, self._wakeup_writer, self._wakeup_reader):
            close_socket_in_child(sock)
        register_after_fork(self, Listener.after_fork)

    def after_fork(self) -> None:
        """Leave all connections to the parent process: a forked child serves none."""
        self._connections = ConnectionTable(self._max_connections)
        self._connections.close()

    def start(self) -> None:
        """Start to accept connections.

        Raises:
            OSError: no thread can be started.
        """
        if not start_thread(
            self._thread, f"the {self._name} cannot accept connections", is_required=True
        ):
            self.close()
            raise OSError(errno.EAGAIN, f"cannot start a thread; {THREADS_REMEDY}")

    def close(self) -> None:
        """Stop accepting, shut down every connection, and join their threads."""
        if not self._connections.close():
            return
        self._wakeup_writer.send(b"x")
        if self._thread.ident is not None:
            self._thread.join(_JOIN_TIMEOUT)
        for thread in self._connections.shut_down_all():
            thread.join(_JOIN_TIMEOUT)
        for sock in (self._socket, self._wakeup_writer, self._wakeup_reader):
            sock.close()

    def _accept_loop(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._socket, selectors.EVENT_READ)
            selector.register(self._wakeup_reader, selectors.EVENT_READ)
            while not any(key.fileobj is self._wakeup_reader for key, _ in selector.select()):
                try:
                    sock, address = self._socket.accept()
                except OSError as error:
                    self._handle_accept_error(error)
                    continue
                self._last_accept_error = ""
                close_socket_in_child(sock)
                self._start_connection(sock, network_of(address[0]))

    def _handle_accept_error(self, error: OSError) -> None:
        """Log the error; without free descriptors, close an idle connection.

        The pending connection stays ready: without the pause this thread would spin.
        """
        limit = describe_limit(error)
        message = str(error) if limit is None else "; ".join(limit)
        if message != self._last_accept_error:
            logger.warning("cannot accept a connection: %s", message)
        if limit is not None:
            self._last_accept_error = message
            self._connections.close_longest_idle(_RETRY_DELAY)

    def _start_connection(self, sock: socket.socket, network: str) -> None:
        if not self._make_room(network):
            _send_unavailable(sock, plain=self._ssl_context is None)
            return
        for attempt in range(_TRIES):
            connection = OpenConnection(sock, network)
            thread = threading.Thread(
                target=self._run_connection, args=(connection,), name=f"{self._name}-client"
            )
            thread.daemon = True
            connection.thread = thread
            self._connections.add(connection)
            if start_thread(
                thread, "" if attempt else "closing the connection that has been idle longest"
            ):
                return
            self._connections.remove(connection)
            self._connections.close_longest_idle(_RETRY_DELAY)
        _send_unavailable(sock, plain=self._ssl_context is None)

    def _make_room(self, network: str) -> bool:
        """Wait until one more connection is within the limits; return False to refuse it."""
        while network and (limit := self._connections.describe_limit(network)):
            self._warn(limit)
            if not self._connections.close_longest_idle(_RETRY_DELAY, network=network):
                return False
        while (limit := self._connections.describe_limit()) and not self._connections.is_closed:
            self._warn(limit)
            self._connections.close_longest_idle(_RETRY_DELAY)
        return not self._connections.is_closed

    def _warn(self, cause: str) -> None:
        """Log why connections are closed, at most once in `_QUIET` seconds."""
        if time.monotonic() - self._warned >= _QUIET:
            self._warned = time.monotonic()
            logger.warning("%s: closing the one that has been idle longest", cause)

    def _run_connection(self, connection: OpenConnection) -> None:
        sock = connection.sock
        try:
            sock.settimeout(self._idle_timeout)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._ssl_context is not None:
                sock = self._wrap_tls(connection, self._ssl_context)
            self._serve(Connection(sock, connection.activity))
        except OSError as error:
            logger.debug("a connection ended: %s", error)
        except Exception:
            # Otherwise the thread would end without a trace.
            logger.exception("a connection failed")
        finally:
            # They differ if the TLS handshake failed.
            self._connections.remove(connection, sock, connection.sock)

    def _wrap_tls(self, connection: OpenConnection, context: ssl.SSLContext) -> ssl.SSLSocket:
        """Start TLS on a connection; `close` must find the socket in use."""
        secured = context.wrap_socket(
            connection.sock, server_side=True, do_handshake_on_connect=False
        )
        close_socket_in_child(secured)
        self._connections.replace_socket(connection, secured)
        secured.do_handshake()
        return secured


def _send_unavailable(sock: socket.socket, *, plain: bool) -> None:
    """Answer 503, so that the client retries."""
    with contextlib.suppress(OSError):
        if plain:
            sock.settimeout(_RETRY_DELAY)
            sock.sendall(_UNAVAILABLE_RESPONSE)
            sock.shutdown(socket.SHUT_WR)
    sock.close()
