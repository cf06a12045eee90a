"""EmbeddedRegistry: starts and stops the server."""

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

from concil.errors import LimitReached, StoreError, safe_repr
from concil.runtime.forking import register_after_fork
from concil.runtime.limits import THREADS_REMEDY
from concil.server.behavior import Exchange, Observer, RegistryBehavior
from concil.server.connection import Connection
from concil.server.errors import DropConnection, ErrorResponse, IncompleteBody
from concil.server.http import Request, Response, path_for_log, read_request, write_response
from concil.server.listener import Listener
from concil.server.repository_index import RepositoryIndex
from concil.server.router import handle_request
from concil.server.service import Service
from concil.server.upload_store import UploadStore
from concil.store.layout.store import LayoutDirectory
from concil.store.layout.usage_lock import UsageLock

__all__ = ["EmbeddedRegistry"]

logger = logging.getLogger(__name__)

_MAX_PATH_LENGTH = 1000  # characters of a recorded path
_MAX_EXCHANGES = 20_000  # recorded exchanges; the oldest are dropped


class EmbeddedRegistry:
    """A registry that runs in threads of this process.

        with EmbeddedRegistry(tmp_path / "layout") as registry:
            requests.get(f"{registry.url}/v2/")

    Thread-safe. Set ``idle_timeout``, ``durable`` and ``on_request`` before `start`.
    """

    idle_timeout = 60.0  # seconds without data until a connection is closed
    durable = False  # whether a blob is synced to disk before it is renamed
    on_request: Observer | None = None  # called after each exchange, in the connection's thread

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        address: tuple[str, int] = ("127.0.0.1", 0),
        read_only: bool = False,
        behavior: RegistryBehavior | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        """Open the layout; a missing or empty directory becomes one, unless it is read-only.

        Raises:
            NotFound, StoreError, InvalidManifest: it is not a layout that can be served.
        """
        self._layout = LayoutDirectory(path, create=not read_only).logging()
        self._address = address
        self._read_only = read_only
        self._behavior = behavior or RegistryBehavior()
        self._ssl_context = ssl_context
        self._listener: Listener | None = None
        self._usage_lock: UsageLock | None = None  # while it is writable and serves
        self._lock = threading.Lock()  # guards _exchanges
        self._exchanges: deque[Exchange] = deque(maxlen=_MAX_EXCHANGES)
        register_after_fork(self, EmbeddedRegistry._after_fork)

    def _after_fork(self) -> None:
        """Replace the lock in a forked child: the parent's threads may hold it."""
        self._lock = threading.Lock()

    def start(self) -> None:
        """Bind the address and serve until `close`.

        Raises:
            StoreError: the address cannot be bound, or the directory cannot be written.
        """
        uploads = UploadStore(self._layout, durable=self.durable)
        if not self._read_only:
            self._usage_lock = UsageLock.shared(self._layout.path)
            uploads.prepare()
        service = Service(
            self._layout,
            RepositoryIndex(self._layout),
            uploads,
            self._behavior,
            self._read_only,
        )
        try:
            self._listener = Listener(
                self._address,
                functools.partial(self._serve_connection, service),
                idle_timeout=self.idle_timeout,
                ssl_context=self._ssl_context,
            )
        except OSError as error:
            self._release_layout()
            raise StoreError(
                f"cannot listen on {safe_repr(_format_address(self._address))}: "
                f"{_error_text(error)}",
                remedy="choose another address with address=; port 0 chooses a free port",
            ) from error
        try:
            self._listener.start()
        except OSError as error:
            message = "cannot serve: no thread can be started"
            raise LimitReached(message, remedy=THREADS_REMEDY) from error

    def close(self) -> None:
        """Shut down every connection and thread. Uploads can be resumed later."""
        if self._listener is not None:
            self._listener.close()
        self._layout.index_file.close()
        self._release_layout()

    def _release_layout(self) -> None:
        """Let garbage be collected."""
        if self._usage_lock is not None:
            self._usage_lock.close()

    def __enter__(self) -> Self:
        """Start the server."""
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the server."""
        self.close()

    @property
    def host(self) -> str:
        """The ``host:port`` of the listening socket."""
        return _format_address(self._listener.address if self._listener else self._address)

    @property
    def url(self) -> str:
        """The URL, without a trailing slash."""
        return f"{'https' if self._ssl_context else 'http'}://{self.host}"

    @property
    def requests(self) -> list[Exchange]:
        """The recorded exchanges in order of their responses, at most the last 20 000."""
        with self._lock:
            return list(self._exchanges)

    def clear_requests(self) -> None:
        """Clear `requests`."""
        with self._lock:
            self._exchanges.clear()

    def _serve_connection(self, service: Service, connection: Connection) -> None:
        """Answer requests on a connection until one side closes it."""
        while True:
            try:
                request = read_request(connection)
            except ErrorResponse as refusal:
                reply = _with_version(Response.from_error(refusal))
                write_response(connection, reply, head=False, close=True)
                return
            if request is None or not self._handle_request(service, connection, request):
                return

    def _handle_request(self, service: Service, connection: Connection, request: Request) -> bool:
        """Answer one request; return False if the connection must be closed."""
        exchange = Exchange(request.method, request.path[:_MAX_PATH_LENGTH], 0)
        try:
            reply = handle_request(service, request)
        except (IncompleteBody, DropConnection) as error:
            logger.info(
                "%s %s: %s",
                request.method,
                request.log_path,
                str(error) or "connection closed without a response",
            )
            self._record_exchange(exchange, request)
            self._report_exchange(exchange)
            return False
        close = not request.keep_alive or not request.body.can_drain
        head = request.method == "HEAD"
        exchange.status = reply.status
        exchange.sent = 0 if head else reply.length
        self._record_exchange(exchange, request)
        try:
            sent = write_response(connection, _with_version(reply), head=head, close=close)
        except OSError:
            sent, close = 0, True
        finally:
            reply.close()
        close = close or (not head and sent < reply.length)
        exchange.sent = sent
        is_drained = request.body.is_complete or request.body.drain()
        exchange.received = request.body.received
        self._report_exchange(exchange)
        if close and is_drained:
            _shutdown_write(connection)
        return is_drained and not close

    def _record_exchange(self, exchange: Exchange, request: Request) -> None:
        exchange.received = request.body.received
        with self._lock:
            self._exchanges.append(exchange)

    def _report_exchange(self, exchange: Exchange) -> None:
        logger.info(
            "%s %s %d in=%d out=%d",
            exchange.method,
            path_for_log(exchange.path),
            exchange.status,
            exchange.received,
            exchange.sent,
        )
        if self.on_request is not None:
            self.on_request(exchange)


def _with_version(response: Response) -> Response:
    """Add the header by which old clients recognize a registry."""
    response.headers = {"Docker-Distribution-Api-Version": "registry/2.0", **response.headers}
    return response


def _shutdown_write(connection: Connection) -> None:
    with contextlib.suppress(OSError):
        connection.sock.shutdown(socket.SHUT_WR)


def _error_text(error: OSError) -> str:
    """Return the system's message, without the address that `create_server` adds."""
    return os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)


def _format_address(address: tuple[str, int]) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
