"""A small OCI registry over an OCI image layout directory, standard library only."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import socket
import ssl
import threading
from collections import deque
from types import TracebackType
from typing import Self

from concil.errors import LimitReached, StoreError, shown
from concil.forking import renew_in_child
from concil.limits import THREADS
from concil.server.connection import Connection
from concil.server.http import Reply, Request, path_for_log, read_request, write_reply
from concil.server.listener import Listener
from concil.server.personality import Chunk, Exchange, Observer, Personality
from concil.server.refusal import BodyBroken, Hangup, Refusal
from concil.server.repositories import Repositories
from concil.server.routes import answer
from concil.server.service import Service
from concil.server.uploads import Upload, Uploads
from concil.store.layout import Layout

__all__ = [
    "Chunk",
    "EmbeddedRegistry",
    "Exchange",
    "Hangup",
    "Personality",
    "Refusal",
    "Reply",
    "Request",
    "Upload",
]

logger = logging.getLogger(__name__)

_LONGEST_PATH = 1000  # characters of a path that are remembered
_REMEMBERED = 20_000  # exchanges; the oldest are forgotten


class EmbeddedRegistry:
    """A registry in this process, in threads of its own.

        with EmbeddedRegistry(tmp_path / "layout") as registry:
            requests.get(f"{registry.url}/v2/")

    Any thread may call any method. ``idle``, ``durable`` and ``on_request`` can be
    set before `start`.
    """

    idle = 60.0  # seconds of silence after which a connection is closed
    durable = False  # whether a blob is on the disk for certain before it gets its name
    on_request: Observer | None = None  # called after each exchange, in the connection's thread

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        address: tuple[str, int] = ("127.0.0.1", 0),
        read_only: bool = False,
        personality: Personality | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        """Open the layout; a missing or empty directory becomes one, unless it is read-only.

        Raises:
            NotFound, StoreError, InvalidManifest: it is not a layout that can be served.
        """
        self._layout = Layout(path, create=not read_only).logging()
        self._asked = address
        self._read_only = read_only
        self._personality = personality or Personality()
        self._context = ssl_context
        self._listener: Listener | None = None
        self._lock = threading.Lock()  # guards _exchanges
        self._exchanges: deque[Exchange] = deque(maxlen=_REMEMBERED)
        renew_in_child(self, EmbeddedRegistry._after_fork)

    def _after_fork(self) -> None:
        """Serve nobody in a forked child, until it is started there."""
        self._lock = threading.Lock()

    def start(self) -> None:
        """Bind the address and serve until `close`.

        Raises:
            StoreError: the address cannot be had, or the directory cannot be written.
        """
        uploads = Uploads(self._layout, durable=self.durable)
        if not self._read_only:
            uploads.prepare()
        service = Service(
            self._layout,
            Repositories(self._layout),
            uploads,
            self._personality,
            self._read_only,
        )
        try:
            self._listener = Listener(
                self._asked,
                functools.partial(self._serve, service),
                idle=self.idle,
                context=self._context,
            )
        except OSError as error:
            raise StoreError(
                f"cannot listen on {shown(_joined(self._asked))}: {_cause(error)}",
                remedy="choose another address with address=; port 0 takes a free one",
            ) from error
        try:
            self._listener.start()
        except OSError as error:
            message = "cannot serve: no thread can be started"
            raise LimitReached(message, remedy=THREADS) from error

    def close(self) -> None:
        """Break off every connection and end every thread. Uploads can be resumed later."""
        if self._listener is not None:
            self._listener.close()
        self._layout.index_file.close()

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""
        self.close()

    @property
    def host(self) -> str:
        """The ``host:port`` that is listened on."""
        return _joined(self._listener.address if self._listener else self._asked)

    @property
    def url(self) -> str:
        """The address with its scheme, without a slash at the end."""
        return f"{'https' if self._context else 'http'}://{self.host}"

    @property
    def requests(self) -> list[Exchange]:
        """What was asked and answered so far, in order of the answers; the last 20 000."""
        with self._lock:
            return list(self._exchanges)

    def forget_requests(self) -> None:
        """Empty `requests`."""
        with self._lock:
            self._exchanges.clear()

    def _serve(self, service: Service, connection: Connection) -> None:
        """Answer requests on a connection until one side ends it."""
        while True:
            try:
                request = read_request(connection)
            except Refusal as refusal:
                write_reply(connection, Reply.of(refusal), head=False, close=True)
                return
            if request is None or not self._exchange(service, connection, request):
                return

    def _exchange(self, service: Service, connection: Connection, request: Request) -> bool:
        """Answer one request; False if the connection is of no more use."""
        seen = Exchange(request.method, request.path[:_LONGEST_PATH], 0)
        try:
            reply = answer(service, request)
        except (BodyBroken, Hangup) as error:
            logger.info("%s %s: %s", request.method, request.told, str(error) or "hung up")
            self._remember(seen, request)
            self._tell(seen)
            return False
        close = not request.keep_alive or not request.body.drainable
        head = request.method == "HEAD"
        seen.status = reply.status
        seen.sent = 0 if head else reply.length
        self._remember(seen, request)
        try:
            sent = write_reply(connection, reply, head=head, close=close)
        except OSError:
            sent, close = 0, True
        finally:
            reply.close()
        close = close or (not head and sent < reply.length)
        seen.sent = sent
        drained = request.body.done or request.body.drain()
        seen.received = request.body.received
        self._tell(seen)
        if close and drained:
            _finish(connection)
        return drained and not close

    def _remember(self, seen: Exchange, request: Request) -> None:
        seen.received = request.body.received
        with self._lock:
            self._exchanges.append(seen)

    def _tell(self, seen: Exchange) -> None:
        logger.info(
            "%s %s %d in=%d out=%d",
            seen.method,
            path_for_log(seen.path),
            seen.status,
            seen.received,
            seen.sent,
        )
        if self.on_request is not None:
            self.on_request(seen)


def _finish(connection: Connection) -> None:
    with contextlib.suppress(OSError):
        connection.sock.shutdown(socket.SHUT_WR)


def _cause(error: OSError) -> str:
    """What the system says, without the address that `create_server` adds to it."""
    return os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)


def _joined(address: tuple[str, int]) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
