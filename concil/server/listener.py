"""Connections and their threads: accepted, served, timed out, joined at the end."""

from __future__ import annotations

import contextlib
import errno
import logging
import selectors
import socket
import ssl
import threading
from collections.abc import Callable

from concil.forking import keep_socket_from_children, renew_in_child
from concil.limits import THREADS, reached, start_thread
from concil.server.connection import Connection

logger = logging.getLogger(__name__)

_BACKLOG = 256
_MOST = 500  # connections at once: each has a thread, and two or three descriptors
_PAUSE = 0.1  # seconds until the next try, where no connection or thread can be had
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
        self._lock = threading.Lock()  # guards _open and _closed
        self._open: dict[threading.Thread, socket.socket] = {}
        self._closed = False
        self._refused = ""  # what was told of the last connection that was not accepted
        self._thread = threading.Thread(target=self._accept, name="registry", daemon=True)
        for sock in (self._socket, self._waker, self._sleeper):
            keep_socket_from_children(sock)
        renew_in_child(self, Listener.after_fork)

    def after_fork(self) -> None:
        """Leave all connections to the parent: a forked child serves nobody."""
        self._lock = threading.Lock()
        self._open = {}
        self._closed = True

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
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._waker.send(b"x")
        if self._thread.ident is not None:
            self._thread.join(_JOIN)
        with self._lock:
            open_now = dict(self._open)
        for sock in open_now.values():
            _shut(sock)
        for thread in open_now:
            thread.join(_JOIN)
        for sock in (self._socket, self._waker, self._sleeper):
            sock.close()

    def _accept(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._socket, selectors.EVENT_READ)
            selector.register(self._sleeper, selectors.EVENT_READ)
            while not any(key.fileobj is self._sleeper for key, _ in selector.select()):
                try:
                    sock, _ = self._socket.accept()
                except OSError as error:
                    self._not_accepted(error)
                    continue
                self._refused = ""
                keep_socket_from_children(sock)
                self._begin(sock)

    def _not_accepted(self, error: OSError) -> None:
        """The client has left already, or there are no descriptors to spare: then wait a little.

        What waits stays ready to be accepted: without a pause this thread would do nothing else.
        """
        limit = reached(error)
        told = str(error) if limit is None else "; ".join(limit)
        if told != self._refused:
            logger.warning("cannot accept a connection: %s", told)
        if limit is not None:
            self._refused = told
            self._sleeper.settimeout(_PAUSE)
            with contextlib.suppress(TimeoutError):
                self._sleeper.recv(1, socket.MSG_PEEK)

    def _begin(self, sock: socket.socket) -> None:
        thread = threading.Thread(target=self._run, args=(sock,), name="registry-client")
        thread.daemon = True
        with self._lock:
            full = len(self._open) >= _MOST
            if not full:
                self._open[thread] = sock
        if full:
            logger.warning("more than %d connections: one is closed", _MOST)
            sock.close()
            return
        if not start_thread(thread, "one connection is closed"):
            with self._lock:
                self._open.pop(thread, None)
            _refuse(sock, plain=self._context is None)

    def _run(self, sock: socket.socket) -> None:
        try:
            sock.settimeout(self._idle)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._context is not None:
                sock = self._secured(sock, self._context)
            self._serve(Connection(sock))
        except OSError as error:
            logger.debug("a connection ended: %s", error)
        except Exception:
            # A thread that dies silently would be found by nobody.
            logger.exception("a connection failed")
        finally:
            with self._lock:
                # Another object than `sock` where the TLS handshake failed.
                latest = self._open.pop(threading.current_thread(), sock)
            sock.close()
            latest.close()

    def _secured(self, sock: socket.socket, context: ssl.SSLContext) -> ssl.SSLSocket:
        """Speak TLS on a connection; `close` must find the socket that is in use."""
        secured = context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        keep_socket_from_children(secured)
        with self._lock:
            self._open[threading.current_thread()] = secured
            if self._closed:
                _shut(secured)
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


def _shut(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        # Not SSLSocket.shutdown: it takes the session away from the thread that reads.
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
