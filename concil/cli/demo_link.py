"""The demo's bad line: a TCP relay that is slow enough to watch, and cuts one upload."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from types import TracebackType
from typing import Self

_PIECE = 64 * 1024  # bytes
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing throws away what is unsent


class Link:
    """Forwards connections to a server; resets the first that has carried enough.

    Any thread may call any method.
    """

    def __init__(self, target: tuple[str, int], *, rate: int, cut_after: int) -> None:
        """Begin to listen.

        Args:
            target: host and port of the server.
            rate: bytes a second that all connections together carry upwards.
            cut_after: bytes that one connection carries upwards before it is cut; only
                one connection is.
        """
        self._target = target
        self._rate = rate
        self._cut_after = cut_after
        self._lock = threading.Lock()  # guards the fields below
        self._open: set[socket.socket] = set()
        self._free = time.monotonic()  # when the line has carried what it has
        self._carried = 0  # bytes upwards
        self._was_cut = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, name="concil-demo-link", daemon=True).start()

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
            left = list(self._open)
        for each in left:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    @property
    def carried(self) -> int:
        """Bytes that went upwards, on all connections."""
        with self._lock:
            return self._carried

    @property
    def was_cut(self) -> bool:
        """Whether a connection has been cut."""
        with self._lock:
            return self._was_cut

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # closed
            try:
                server = socket.create_connection(self._target, timeout=10)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            with self._lock:
                self._open |= {client, server}
            threading.Thread(target=self._connect, args=(client, server), daemon=True).start()

    def _connect(self, client: socket.socket, server: socket.socket) -> None:
        """Carry one connection until both sides have ended."""
        back = threading.Thread(target=self._down, args=(server, client), daemon=True)
        back.start()
        cut = self._up(client, server)
        if cut:
            for each in (client, server):
                with contextlib.suppress(OSError):
                    each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                    each.shutdown(socket.SHUT_RD)  # wakes the thread that reads
        back.join()
        with self._lock:
            self._open -= {client, server}
        client.close()
        server.close()

    def _up(self, client: socket.socket, server: socket.socket) -> bool:
        """Carry what the client sends; True if the connection is to be cut."""
        passed = 0
        with contextlib.suppress(OSError):
            while piece := client.recv(_PIECE):
                self._wait(len(piece))
                server.sendall(piece)
                passed += len(piece)
                if self._count(len(piece), passed):
                    return True
            server.shutdown(socket.SHUT_WR)
        return False

    def _down(self, server: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := server.recv(_PIECE):
                client.sendall(piece)
            client.shutdown(socket.SHUT_WR)

    def _wait(self, count: int) -> None:
        """Take the line's time for so many bytes."""
        with self._lock:
            now = time.monotonic()
            self._free = max(now, self._free) + count / self._rate
            left = self._free - now
        if left > 0.01:
            time.sleep(left)

    def _count(self, count: int, passed: int) -> bool:
        """Take note of bytes; True for the one connection that has carried enough."""
        with self._lock:
            self._carried += count
            if self._was_cut or passed < self._cut_after:
                return False
            self._was_cut = True
            return True
