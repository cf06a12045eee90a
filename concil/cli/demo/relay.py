"""TCP relay that limits bandwidth and breaks one upload."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from types import TracebackType
from typing import Self

_BUFFER_SIZE = 64 * 1024  # bytes
_LINGER_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends RST and drops unsent bytes


class Relay:
    """Forwards connections to a server; resets the first one that has sent enough bytes.

    Thread-safe.
    """

    def __init__(self, server_address: tuple[str, int], *, rate: int, cut_after: int) -> None:
        """Start to listen.

        Args:
            server_address: host and port of the server.
            rate: upstream bytes per second of all connections together.
            cut_after: upstream bytes of one connection before it is reset; only one
                connection is.
        """
        self._server_address = server_address
        self._rate = rate
        self._cut_after = cut_after
        self._lock = threading.Lock()  # guards the fields below
        self._sockets: set[socket.socket] = set()
        self._next_free_time = time.monotonic()  # monotonic seconds
        self._bytes_up = 0  # upstream
        self._was_cut = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept_loop, name="concil-demo-link", daemon=True).start()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the listener and every connection."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            open_sockets = list(self._sockets)
        for sock in open_sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    @property
    def bytes_up(self) -> int:
        """Upstream bytes of all connections."""
        with self._lock:
            return self._bytes_up

    @property
    def was_cut(self) -> bool:
        """Whether a connection has been reset."""
        with self._lock:
            return self._was_cut

    def _accept_loop(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # closed
            try:
                server = socket.create_connection(self._server_address, timeout=10)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            with self._lock:
                self._sockets |= {client, server}
            threading.Thread(target=self._relay, args=(client, server), daemon=True).start()

    def _relay(self, client: socket.socket, server: socket.socket) -> None:
        """Relay one connection until both sides have ended."""
        down_thread = threading.Thread(target=self._relay_down, args=(server, client), daemon=True)
        down_thread.start()
        cut = self._relay_up(client, server)
        if cut:
            for sock in (client, server):
                with contextlib.suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RESET)
                    sock.shutdown(socket.SHUT_RD)  # wakes the thread that reads
        down_thread.join()
        with self._lock:
            self._sockets -= {client, server}
        client.close()
        server.close()

    def _relay_up(self, client: socket.socket, server: socket.socket) -> bool:
        """Relay upstream bytes; return True if the connection is to be reset."""
        sent = 0
        with contextlib.suppress(OSError):
            while piece := client.recv(_BUFFER_SIZE):
                self._throttle(len(piece))
                server.sendall(piece)
                sent += len(piece)
                if self._count_bytes(len(piece), sent):
                    return True
            server.shutdown(socket.SHUT_WR)
        return False

    def _relay_down(self, server: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := server.recv(_BUFFER_SIZE):
                client.sendall(piece)
            client.shutdown(socket.SHUT_WR)

    def _throttle(self, count: int) -> None:
        """Wait until the rate allows this many bytes."""
        with self._lock:
            now = time.monotonic()
            self._next_free_time = max(now, self._next_free_time) + count / self._rate
            wait = self._next_free_time - now
        if wait > 0.01:
            time.sleep(wait)

    def _count_bytes(self, count: int, passed: int) -> bool:
        """Count bytes; return True for the one connection that is to be reset."""
        with self._lock:
            self._bytes_up += count
            if self._was_cut or passed < self._cut_after:
                return False
            self._was_cut = True
            return True
