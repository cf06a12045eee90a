"""Accepts connections, serves each in a thread of its own, joins the threads at the end."""

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

from concil.forking import keep_socket_from_children, renew_in_child
from concil.limits import THREADS, reached, start_thread
from concil.server.connection import Connection
from concil.server.connection_table import ConnectionTable, OpenConnection, network_of

logger = logging.getLogger(__name__)

_BACKLOG = 1024  # the system may have a lower limit
_PAUSE = 0.1  # seconds until the next try, where no connection or thread can be had
_TRIES = 5  # to start a thread, each after a pause or the end of another connection
_QUIET = 60.0  # seconds without another warning of connections that were closed
_BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\n"
    b"Content-Length: 0\r\nConnection: close\r\n\r\n"
)
_JOIN = 30.0  # seconds that a thread gets to end after its socket was shut down


class Listener:
    """Accepts connections and gives each a thread of its own.

    `close` may be called by any thread, more than once.
    """

    def __init__(
        self,
        address: tuple[str, int],
        serve: Callable[[Connection], None],
        *,
        idle: float,
        context: ssl.SSLContext | None,
    ) -> None:
        """Bind the address; connections wait until `start`.

        Args:
            address: host and port; port 0 takes a free one.
            serve: called in a thread of its own with each connection.
            idle: seconds of silence after which a connection is closed.
            context: for TLS.

        Raises:
            OSError: the address is in use or not of this machine.
        """
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._socket = socket.create_server(address, family=family, backlog=_BACKLOG)
        self.address: tuple[str, int] = self._socket.getsockname()[:2]
        self._serve = serve
        self._idle = idle
        self._context = context
        self._waker, self._sleeper = socket.socketpair()
        self._connections = ConnectionTable()
        self._warned = -_QUIET  # when the last warning of a closed connection was given
        self._refused = ""  # what was told of the last connection that was not accepted
        self._thread = threading.Thread(target=self._accept, name="registry", daemon=True)
        for sock in (self._socket, self._waker, self._sleeper):
            keep_socket_from_children(sock)
        renew_in_child(self, Listener.after_fork)

    def after_fork(self) -> None:
        """Leave all connections to the parent: a forked child serves nobody."""
        self._connections = ConnectionTable()
        self._connections.close()

    def start(self) -> None:
        """Begin to accept.

        Raises:
            OSError: no thread can be had.
        """
        if not start_thread(self._thread, "nobody can be served", needed=True):
            self.close()
            raise OSError(errno.EAGAIN, f"cannot start a thread; {THREADS}")

    def close(self) -> None:
        """Stop accepting, break off every connection, and wait for their threads."""
        if not self._connections.close():
            return
        self._waker.send(b"x")
        if self._thread.ident is not None:
            self._thread.join(_JOIN)
        for thread in self._connections.shut_all():
            thread.join(_JOIN)
        for sock in (self._socket, self._waker, self._sleeper):
            sock.close()

    def _accept(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._socket, selectors.EVENT_READ)
            selector.register(self._sleeper, selectors.EVENT_READ)
            while not any(key.fileobj is self._sleeper for key, _ in selector.select()):
                try:
                    sock, address = self._socket.accept()
                except OSError as error:
                    self._not_accepted(error)
                    continue
                self._refused = ""
                keep_socket_from_children(sock)
                self._begin(sock, network_of(address[0]))

    def _not_accepted(self, error: OSError) -> None:
        """The client has left already, or there are no descriptors to spare: then make room.

        What waits stays ready to be accepted: without a pause this thread would do nothing else.
        """
        limit = reached(error)
        told = str(error) if limit is None else "; ".join(limit)
        if told != self._refused:
            logger.warning("cannot accept a connection: %s", told)
        if limit is not None:
            self._refused = told
            self._connections.close_silent(_PAUSE)

    def _begin(self, sock: socket.socket, network: str) -> None:
        if not self._make_room(network):
            _refuse(sock, plain=self._context is None)
            return
        for attempt in range(_TRIES):
            connection = OpenConnection(sock, network)
            thread = threading.Thread(target=self._run, args=(connection,), name="registry-client")
            thread.daemon = True
            connection.thread = thread
            self._connections.add(connection)
            if start_thread(thread, "" if attempt else "one connection is closed"):
                return
            self._connections.remove(connection)
            self._connections.close_silent(_PAUSE)
        _refuse(sock, plain=self._context is None)

    def _make_room(self, network: str) -> bool:
        """Wait until one more connection is within the limits; False if it is not to be."""
        while network and (limit := self._connections.limit_reached(network)):
            self._warn(limit)
            if not self._connections.close_silent(_PAUSE, network=network):
                return False
        while (limit := self._connections.limit_reached()) and not self._connections.is_closed:
            self._warn(limit)
            self._connections.close_silent(_PAUSE)
        return not self._connections.is_closed

    def _warn(self, cause: str) -> None:
        """Say why connections are closed; not for each of a flood."""
        if time.monotonic() - self._warned >= _QUIET:
            self._warned = time.monotonic()
            logger.warning("%s: one is closed that has been silent", cause)

    def _run(self, connection: OpenConnection) -> None:
        sock = connection.sock
        try:
            sock.settimeout(self._idle)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._context is not None:
                sock = self._secured(connection, self._context)
            self._serve(Connection(sock, connection.activity))
        except OSError as error:
            logger.debug("a connection ended: %s", error)
        except Exception:
            # A thread that dies silently would be found by nobody.
            logger.exception("a connection failed")
        finally:
            # They are two objects where the TLS handshake failed.
            self._connections.remove(connection, sock, connection.sock)

    def _secured(self, connection: OpenConnection, context: ssl.SSLContext) -> ssl.SSLSocket:
        """Speak TLS on a connection; `close` must find the socket that is in use."""
        secured = context.wrap_socket(
            connection.sock, server_side=True, do_handshake_on_connect=False
        )
        keep_socket_from_children(secured)
        self._connections.replace_socket(connection, secured)
        secured.do_handshake()
        return secured


def _refuse(sock: socket.socket, *, plain: bool) -> None:
    """Let a client try again in a moment."""
    with contextlib.suppress(OSError):
        if plain:
            sock.settimeout(_PAUSE)
            sock.sendall(_BUSY)
            sock.shutdown(socket.SHUT_WR)
    sock.close()
