"""Connections and their threads: accepted, served, timed out, joined at the end."""

from __future__ import annotations

import contextlib
import logging
import selectors
import socket
import ssl
import threading
from collections.abc import Callable

from concil.server.connection import Connection

logger = logging.getLogger(__name__)

_BACKLOG = 256
_MOST = 500  # connections at once: each has a thread, and two or three descriptors
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
        self._thread = threading.Thread(target=self._accept, name="registry", daemon=True)

    def start(self) -> None:
        """Begin to accept."""
        self._thread.start()

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
                    # The client has left already, or there are no descriptors to spare.
                    logger.warning("cannot accept a connection: %s", error)
                    continue
                self._begin(sock)

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
        thread.start()

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
        with self._lock:
            self._open[threading.current_thread()] = secured
            if self._closed:
                _shut(secured)
        secured.do_handshake()
        return secured


def _shut(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        # Not SSLSocket.shutdown: it takes the session away from the thread that reads.
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
