"""LiveServer: serves the live page in threads of this process."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import time
from typing import Self

from concil.errors import LimitReached, StoreError, safe_repr
from concil.runtime.limits import THREADS_REMEDY
from concil.server.connection import Body, Connection
from concil.server.connection_table import connection_limit
from concil.server.errors import ErrorResponse, IncompleteBody
from concil.server.http import Request, Response, read_request, write_response
from concil.server.listener import Listener
from concil.web.access_policy import AccessPolicy
from concil.web.endpoints import (
    SECURITY_HEADERS,
    STREAM_PATHS,
    Endpoints,
    RenderMetrics,
    error_response,
    text_response,
)
from concil.web.live_mirror import LiveMirror
from concil.web.page_feed import PageFeed
from concil.web.streams import MAX_STREAMS, SEND_TIMEOUT, Stream, StreamTable, encode_message

logger = logging.getLogger(__name__)

MAX_CONNECTIONS = 2 * MAX_STREAMS
IDLE_TIMEOUT = 10.0  # seconds without data until a connection is closed
_EVENT_INTERVAL = 0.25  # seconds between two looks for new events
_MAX_EVENTS = 1000  # in one write
_DISCARD_TIMEOUT = 2.0  # seconds for the rest of a body
_MAX_DISCARDED = 64 << 10  # bytes


class LiveServer:
    """Serves the live page of a mirror. Thread-safe."""

    def __init__(
        self,
        live: LiveMirror,
        address: tuple[str, int],
        *,
        token: str = "",
        metrics: RenderMetrics | None = None,
    ) -> None:
        """Bind the address; requests wait until `start`.

        Args:
            address: host and port; port 0 selects a free one.
            token: that requests need; empty: none.
            metrics: returns OpenMetrics text for /metrics; None: there are no metrics.
        Raises:
            StoreError: the address cannot be bound.
        """
        try:
            self._listener = Listener(
                address,
                self._serve_connection,
                idle_timeout=IDLE_TIMEOUT,
                name="live page",
                max_connections=MAX_CONNECTIONS,
            )
        except OSError as error:
            reason = _reason_of(error)
            raise StoreError(
                f"cannot serve the live page at {safe_repr(_format_address(address))}: {reason}",
                remedy="choose another address; port 0 chooses a free port",
            ) from error
        self._live = live
        self._access = AccessPolicy(token, self._listener.address[1])
        self._endpoints = Endpoints(live, self._access, metrics)
        self._feed = PageFeed(live, can_run=bool(token) and live.request_run is not None)
        # Half of the connections, so that streams leave room for other requests.
        self._streams = StreamTable(min(MAX_STREAMS, connection_limit(MAX_CONNECTIONS) // 2))

    def start(self) -> None:
        """Serve until `close`.

        Raises:
            LimitReached: no thread can be started.
        """
        try:
            self._listener.start()
        except OSError as error:
            message = "cannot serve the live page: no thread can be started"
            raise LimitReached(message, remedy=THREADS_REMEDY) from error

    def close(self) -> None:
        """Shut down every connection and thread."""
        self._listener.close()

    def __enter__(self) -> Self:
        """Start the server."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Close the server."""
        self.close()

    @property
    def url(self) -> str:
        """The address of the page."""
        return f"http://{_format_address(self._listener.address)}/"

    def _serve_connection(self, connection: Connection) -> None:
        """Answer requests on a connection until one side closes it."""
        connection.send_timeout = SEND_TIMEOUT
        while True:
            try:
                request = read_request(connection)
            except ErrorResponse as refusal:
                write_response(connection, error_response(refusal), head=False, close=True)
                return
            if request is None or not self._handle_request(connection, request):
                return

    def _handle_request(self, connection: Connection, request: Request) -> bool:
        """Answer one request; return False if the connection must be closed."""
        response = self._endpoints.refuse(request)
        if response is None and request.method == "GET" and request.path in STREAM_PATHS:
            self._run_stream(connection, request)
            return False
        if response is None:
            try:
                response = self._answer(request)
            except IncompleteBody:
                return False
        logger.debug("%s %s %d", request.method, request.log_path, response.status)
        close = not request.keep_alive or not request.body.is_complete
        write_response(connection, response, head=request.method == "HEAD", close=close)
        if not request.body.is_complete:
            _discard_body(connection, request.body)
        return not close

    def _answer(self, request: Request) -> Response:
        try:
            return self._endpoints.answer(request)
        except ErrorResponse as refusal:
            return error_response(refusal)
        except IncompleteBody:
            raise
        except Exception:
            logger.exception("the live page cannot answer %s", request.log_path)
            return text_response(500, "this is a defect; the log has more")

    def _run_stream(self, connection: Connection, request: Request) -> None:
        """Send events until the reader leaves, or is too slow."""
        logger.debug("%s %s: stream", request.method, request.log_path)
        last = self._last_number(request)
        # Before the head: a reader gets all events from then on.
        first_event = self._live.events.last_number if last is None else last
        with self._streams.open(connection) as stream:
            stream.begin(SECURITY_HEADERS)
            if request.path == "/api/events":
                self._send_events(stream, first_event)
            else:
                self._send_updates(stream, last)

    def _last_number(self, request: Request) -> int | None:
        """Return the number of the last message that the reader has; None: it has none.

        Numbers of another process count as 0.
        """
        identifier = request.headers.get("last-event-id")
        if not identifier:
            return None
        instance, _, number = identifier.partition("-")
        is_known = instance == self._live.instance and number.isascii() and number.isdigit()
        return int(number[:18]) if is_known else 0

    def _send_events(self, stream: Stream, number: int) -> None:
        log = self._live.events
        while True:
            missed, events = log.after(number, _MAX_EVENTS)
            parts = [b'event: missed\ndata: {"missed": %d}\n\n' % missed] if missed else []
            parts += [
                encode_message(f"{self._live.instance}-{n}", text.encode()) for n, text in events
            ]
            if parts:
                stream.send(b"".join(parts))
                number = events[-1][0] if events else number
            if len(events) < _MAX_EVENTS and not stream.wait(_EVENT_INTERVAL):
                return

    def _send_updates(self, stream: Stream, last: int | None) -> None:
        number = last or None
        while True:
            for message in self._feed.after(number):
                identifier = f"{self._live.instance}-{message.number}"
                stream.send(encode_message(identifier, message.data, message.event))
                number = message.number
            if not stream.wait(self._feed.interval):
                return


def _discard_body(connection: Connection, body: Body) -> None:
    """Read a part of a body that nobody wants: otherwise a reset might overtake the answer."""
    end = time.monotonic() + _DISCARD_TIMEOUT
    buffer = memoryview(bytearray(_MAX_DISCARDED))
    with contextlib.suppress(OSError, IncompleteBody, ErrorResponse):
        connection.sock.shutdown(socket.SHUT_WR)
        connection.sock.settimeout(_DISCARD_TIMEOUT)
        while body.received < _MAX_DISCARDED and time.monotonic() < end:
            if body.is_continue_pending or not body.readinto(buffer):
                return


def _reason_of(error: OSError) -> str:
    """Return the system's message, without the address that `create_server` adds."""
    if error.errno and error.errno > 0:
        return os.strerror(error.errno)
    return str(error.strerror or error).partition(" (while")[0].rpartition("] ")[2]


def _format_address(address: tuple[str, int]) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
