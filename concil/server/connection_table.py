"""The open connections of a listener, and which of them is closed to make room for another."""

from __future__ import annotations

import contextlib
import ipaddress
import resource
import select
import socket
import threading
import time
from dataclasses import dataclass, field

from concil.server.connection import Activity

MAX_CONNECTIONS = 500  # at once: each has a thread
_FEW_CONNECTIONS = 8  # at least, however few descriptors the process may have
_OWN_DESCRIPTORS = 64  # which are left for the rest of the process
MAX_PER_ADDRESS = 250  # of one address; not of loopback, which a proxy and all users here share
_HEADER_TIME = 0.25  # seconds that a new client gets to send its first header
_PAUSE = 10.0  # seconds that a client that has sent a request may pause, in it or behind it
_SHORT_PAUSE = 1.0  # seconds, behind a request, where every other client has sent one, too


@dataclass(slots=True, eq=False)
class OpenConnection:
    """An accepted connection; `sock` is replaced when it begins to speak TLS."""

    sock: socket.socket
    network: str  # of `network_of`
    activity: Activity = field(default_factory=Activity)
    thread: threading.Thread | None = None
    is_closing: bool = False  # nobody shuts it down any more


def network_of(address: str) -> str:
    """Return the network that has a limit of its own; empty for loopback, which has none."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if parsed.is_loopback:
        return ""
    # A subscriber has at least a /64 of IPv6 (RFC 6177).
    return str(ipaddress.ip_network((int(parsed), 64), strict=False)) if ":" in address else address


class ConnectionTable:
    """The connections of a listener. Any thread may call any method."""

    def __init__(self) -> None:
        """Begin empty."""
        self._changed = threading.Condition()  # its lock guards the fields below
        self._open: dict[OpenConnection, None] = {}  # in the order in which they came
        self._is_closed = False

    @property
    def is_closed(self) -> bool:
        """Whether nothing is accepted any more."""
        return self._is_closed

    def close(self) -> bool:
        """Let nobody wait for room any more; False if it was closed before."""
        with self._changed:
            was_closed, self._is_closed = self._is_closed, True
            self._changed.notify_all()
            return not was_closed

    def shut_all(self) -> list[threading.Thread]:
        """Shut every connection down; return the threads that end now."""
        with self._changed:
            for each in self._open:
                if not each.is_closing:
                    shut_down(each.sock)
            return [each.thread for each in self._open if each.thread is not None]

    def add(self, connection: OpenConnection) -> None:
        """Count a connection whose thread is about to start."""
        with self._changed:
            self._open[connection] = None

    def remove(self, connection: OpenConnection, *sockets: socket.socket) -> None:
        """Forget a connection that has ended, and close its sockets before it counts as gone."""
        with self._changed:
            connection.is_closing = True
        for sock in sockets:
            sock.close()
        with self._changed:
            self._open.pop(connection, None)
            self._changed.notify_all()

    def replace_socket(self, connection: OpenConnection, sock: socket.socket) -> None:
        """Use another socket from now on: the one that speaks TLS."""
        with self._changed:
            connection.sock = sock
            if self._is_closed or connection.is_closing:
                shut_down(sock)

    def limit_reached(self, network: str = "") -> str:
        """Name the limit that keeps one more connection out: of all, or of one network.

        Returns:
            Words for a log; empty where there is room.
        """
        with self._changed:
            if not network:
                most = _most_connections()
                why = "; ulimit -n allows no more" if most < MAX_CONNECTIONS else ""
                return f"more than {most} connections{why}" if len(self._open) >= most else ""
            count = sum(each.network == network for each in self._open)
            most = MAX_PER_ADDRESS
            return f"more than {most} connections from {network}" if count >= most else ""

    def close_silent(self, timeout: float, *, network: str = "") -> bool:
        """Close the connection that has been silent longest, and wait until it has ended.

        Args:
            timeout: seconds to wait for its end; or, where every connection is new or at
                work, for any to end.
            network: only a connection of this one; then nothing is waited for in vain.

        Returns:
            Whether a connection was shut down.
        """
        with self._changed:
            silent = self._longest_silent(network)
            if silent is not None:
                silent.is_closing = True
                shut_down(silent.sock)
                self._changed.wait_for(lambda: silent not in self._open or self._is_closed, timeout)
            elif not network and not self._is_closed:
                self._changed.wait(timeout)
            return silent is not None

    def _longest_silent(self, network: str) -> OpenConnection | None:
        """The connection to close; None while all of them are new or at work."""
        now = time.monotonic()
        ranked: list[tuple[float, OpenConnection]] = []
        idle: list[tuple[float, OpenConnection]] = []
        has_new = False
        for each in self._open:
            activity = each.activity
            since = activity.silent_since
            if since is None or each.is_closing or (network and each.network != network):
                continue
            if not activity.has_sent_request:
                has_new = True
                if network or now - since >= _HEADER_TIME:
                    ranked.append((since, each))
            elif now - since >= _PAUSE:
                ranked.append((since + _PAUSE, each))
            elif not activity.is_in_request and now - since >= _SHORT_PAUSE:
                idle.append((since, each))
        if not ranked and not has_new:
            ranked = idle
        ranked.sort(key=lambda pair: pair[0])
        # What has arrived already is read as soon as the thread gets its turn.
        waiting = (each for _, each in ranked if not _has_arrived(each.sock))
        return next(waiting, ranked[0][1] if ranked else None)


def _most_connections() -> int:
    """How many connections there may be: each has a socket and, now and then, a file."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptors == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    return min(MAX_CONNECTIONS, max(_FEW_CONNECTIONS, (descriptors - _OWN_DESCRIPTORS) // 2))


def shut_down(sock: socket.socket) -> None:
    """Let the thread that reads or writes find the connection closed."""
    with contextlib.suppress(OSError):
        # Not SSLSocket.shutdown: it takes the session away from the thread that reads.
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


def _has_arrived(sock: socket.socket) -> bool:
    """Whether something can be read; also while the socket changes hands to TLS."""
    descriptor = sock.fileno()
    if descriptor < 0:
        return True
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))
