"""Tracks open connections and evicts the longest idle one."""

from __future__ import annotations

import contextlib
import ipaddress
import resource
import select
import socket
import threading
import time
from dataclasses import field

from concil.runtime.dataclass import dataclass
from concil.server.connection import Activity

MAX_CONNECTIONS = 500  # simultaneous connections; each has a thread
_FEW_CONNECTIONS = 8  # minimum, even if the process may have only a few descriptors
_OWN_DESCRIPTORS = 64  # descriptors reserved for the rest of the process
MAX_PER_ADDRESS = 250  # of one address; not of loopback, which a proxy and all local users share
_HEADER_TIME = 0.25  # seconds until a new client must have sent its first header
_PAUSE = 10.0  # seconds that a client may pause during or after a request
_SHORT_PAUSE = 1.0  # seconds that a client may pause after a request if all others have sent one


@dataclass(slots=True, eq=False)
class OpenConnection:
    """An accepted connection; `sock` is replaced when TLS starts."""

    sock: socket.socket
    network: str  # as returned by `network_of`
    activity: Activity = field(default_factory=Activity)
    thread: threading.Thread | None = None
    is_closing: bool = False  # already shut down


def network_of(address: str) -> str:
    """Return the network that a connection limit applies to; empty for loopback: no limit."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if parsed.is_loopback:
        return ""
    # An IPv6 subscriber has at least a /64 (RFC 6177).
    return str(ipaddress.ip_network((int(parsed), 64), strict=False)) if ":" in address else address


class ConnectionTable:
    """The connections of a listener. Thread-safe."""

    def __init__(self, max_connections: int | None = None) -> None:
        """Create an empty table.

        Args:
            max_connections: the limit if there are enough descriptors; None: MAX_CONNECTIONS.
        """
        self._max_connections = max_connections
        self._changed = threading.Condition()  # its lock guards the fields below
        self._open: dict[OpenConnection, None] = {}  # in order of acceptance
        self._is_closed = False

    @property
    def is_closed(self) -> bool:
        """Whether new connections are refused."""
        return self._is_closed

    def close(self) -> bool:
        """Refuse new connections and wake waiting threads; return False if already closed."""
        with self._changed:
            was_closed, self._is_closed = self._is_closed, True
            self._changed.notify_all()
            return not was_closed

    def shut_down_all(self) -> list[threading.Thread]:
        """Shut down every connection; return the threads to join."""
        with self._changed:
            for connection in self._open:
                if not connection.is_closing:
                    shut_down(connection.sock)
            return [connection.thread for connection in self._open if connection.thread is not None]

    def add(self, connection: OpenConnection) -> None:
        """Add a connection whose thread is about to start."""
        with self._changed:
            self._open[connection] = None

    def remove(self, connection: OpenConnection, *sockets: socket.socket) -> None:
        """Remove an ended connection; its sockets are closed before it stops counting."""
        with self._changed:
            connection.is_closing = True
        for sock in sockets:
            sock.close()
        with self._changed:
            self._open.pop(connection, None)
            self._changed.notify_all()

    def replace_socket(self, connection: OpenConnection, sock: socket.socket) -> None:
        """Replace the socket of a connection by its TLS socket."""
        with self._changed:
            connection.sock = sock
            if self._is_closed or connection.is_closing:
                shut_down(sock)

    def describe_limit(self, network: str = "") -> str:
        """Return the limit that one more connection would exceed: in total, or of one network.

        Returns:
            Text for a log; empty if there is room.
        """
        with self._changed:
            if not network:
                limit = connection_limit(self._max_connections)
                is_few = limit < (self._max_connections or MAX_CONNECTIONS)
                reason = ", the limit of open files (ulimit -n)" if is_few else ""
                return f"more than {limit} connections{reason}" if len(self._open) >= limit else ""
            count = sum(connection.network == network for connection in self._open)
            limit = MAX_PER_ADDRESS
            return f"more than {limit} connections from {network}" if count >= limit else ""

    def close_longest_idle(self, timeout: float, *, network: str = "") -> bool:
        """Close the connection that has been idle longest, and wait until it has ended.

        Args:
            timeout: seconds to wait for its end; if every connection is new or active, for
                any to end.
            network: only a connection of this network; without one, return at once.

        Returns:
            Whether a connection was shut down.
        """
        with self._changed:
            idlest = self._find_longest_idle(network)
            if idlest is not None:
                idlest.is_closing = True
                shut_down(idlest.sock)
                self._changed.wait_for(lambda: idlest not in self._open or self._is_closed, timeout)
            elif not network and not self._is_closed:
                self._changed.wait(timeout)
            return idlest is not None

    def _find_longest_idle(self, network: str) -> OpenConnection | None:
        """Return the connection to close; None if all of them are new or active."""
        now = time.monotonic()
        ranked: list[tuple[float, OpenConnection]] = []
        idle: list[tuple[float, OpenConnection]] = []
        has_new = False
        for connection in self._open:
            activity = connection.activity
            since = activity.silent_since
            if (
                since is None
                or connection.is_closing
                or (network and connection.network != network)
            ):
                continue
            if not activity.has_sent_request:
                has_new = True
                if network or now - since >= _HEADER_TIME:
                    ranked.append((since, connection))
            elif now - since >= _PAUSE:
                ranked.append((since + _PAUSE, connection))
            elif not activity.is_in_request and now - since >= _SHORT_PAUSE:
                idle.append((since, connection))
        if not ranked and not has_new:
            ranked = idle
        ranked.sort(key=lambda pair: pair[0])
        # Data that has arrived is read as soon as the thread runs: prefer other connections.
        waiting = (connection for _, connection in ranked if not _has_arrived(connection.sock))
        return next(waiting, ranked[0][1] if ranked else None)


def connection_limit(most: int | None = None) -> int:
    """Return how many connections there may be: `most`, or fewer without descriptors.

    Args:
        most: None: `MAX_CONNECTIONS`.
    """
    return min(most or MAX_CONNECTIONS, _max_connections())


def _max_connections() -> int:
    """Return the connection limit: each needs a socket and sometimes a file."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptors == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    return min(MAX_CONNECTIONS, max(_FEW_CONNECTIONS, (descriptors - _OWN_DESCRIPTORS) // 2))


def shut_down(sock: socket.socket) -> None:
    """Make the thread that reads or writes find the connection closed."""
    with contextlib.suppress(OSError):
        # Not SSLSocket.shutdown, which drops the TLS session that the reading thread uses.
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


def _has_arrived(sock: socket.socket) -> bool:
    """Return whether data can be read; also during the switch to TLS."""
    descriptor = sock.fileno()
    if descriptor < 0:
        return True
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))
