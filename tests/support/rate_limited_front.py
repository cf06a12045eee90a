"""An HTTP front before a real registry that allows so many requests a second and counts all."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import math
import socket
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

TIMEOUT = 60  # seconds
_HOP_BY_HOP = frozenset({"connection", "keep-alive", "transfer-encoding"})


class Limit(Protocol):
    """What a front allows. One thread at a time."""

    def ask(self, now: float) -> float:
        """Take a request; return 0, or the seconds until another one is allowed."""


class TokenBucket:
    """So many requests a second, and a burst of so many more: as nginx and Envoy count."""

    def __init__(self, rate: float, burst: int) -> None:
        self._rate = rate
        self._burst = burst
        self._level = float(burst)
        self._last: float | None = None

    def ask(self, now: float) -> float:
        """See `Limit`."""
        passed = 0.0 if self._last is None else now - self._last
        self._last = now
        self._level = min(self._burst, self._level + passed * self._rate)
        if self._level >= 1:
            self._level -= 1
            return 0.0
        return (1 - self._level) / self._rate


class FixedWindow:
    """So many requests within each second of the clock: as counters in a database do it."""

    def __init__(self, count: int, seconds: float = 1.0) -> None:
        self._count = count
        self._seconds = seconds
        self._window = 0
        self._used = 0

    def ask(self, now: float) -> float:
        """See `Limit`."""
        window = int(now / self._seconds)
        if window != self._window:
            self._window, self._used = window, 0
        if self._used < self._count:
            self._used += 1
            return 0.0
        return (window + 1) * self._seconds - now


@dataclass(frozen=True, slots=True)
class ReceivedRequest:
    """One request."""

    time: float  # monotonic seconds
    method: str
    path: str
    status: int


class RateLimitedFront:
    """Passes requests on to a registry, as many as are allowed; it ends with its `with` block.

    Args:
        target: Host and port of the registry.
        limit: What is allowed.
        tells: Whether a refusal has a Retry-After, in whole seconds.
        status: Of a refusal; nginx has 503 unless it is told otherwise.
    """

    def __init__(
        self, target: str, limit: Limit, *, retry_after: bool = True, status: int = 429
    ) -> None:
        self.status = status
        self._target = target
        self._limit = limit  # asked under the lock, too
        self._has_retry_after = retry_after
        self._requests: list[ReceivedRequest] = []
        self._open: set[socket.socket] = set()
        self._concurrent = 0
        self._max_concurrent = 0
        self._lock = threading.Lock()  # guards all above
        self._server = _Server(self)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    @property
    def host(self) -> str:
        """Host and port, as in an image reference."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """The address for plain http."""
        return f"http://{self.host}"

    @property
    def requests(self) -> list[ReceivedRequest]:
        """All requests, in the order of their answers."""
        with self._lock:
            return list(self._requests)

    @property
    def rejected_requests(self) -> list[ReceivedRequest]:
        """Those that were refused."""
        return [each for each in self.requests if each.status == self.status]

    @property
    def max_concurrent(self) -> int:
        """How many requests were under way at once, at most."""
        with self._lock:
            return self._max_concurrent

    @contextlib.contextmanager
    def count_concurrent(self) -> Iterator[None]:
        """Count a request as under way."""
        with self._lock:
            self._concurrent += 1
            self._max_concurrent = max(self._max_concurrent, self._concurrent)
        try:
            yield
        finally:
            with self._lock:
                self._concurrent -= 1

    def connect(self) -> http.client.HTTPConnection:
        """Connect to the registry."""
        return http.client.HTTPConnection(self._target, timeout=TIMEOUT)

    def admit(self) -> dict[str, str] | None:
        """Return None for a request that may pass, else the headers of its refusal."""
        with self._lock:
            wait = self._limit.ask(time.monotonic())
        if not wait:
            return None
        return {"Retry-After": str(math.ceil(wait))} if self._has_retry_after else {}

    def record_request(self, method: str, path: str, status: int) -> None:
        """Count a request."""
        with self._lock:
            self._requests.append(ReceivedRequest(time.monotonic(), method, path, status))

    def track_connection(self, connection: socket.socket, *, opened: bool) -> None:
        """Know which connections are open."""
        with self._lock:
            (self._open.add if opened else self._open.discard)(connection)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        with self._lock:
            left = list(self._open)
        for connection in left:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._server.server_close()


class _Server(http.server.ThreadingHTTPServer):
    """Knows its front."""

    daemon_threads = False
    request_queue_size = 128

    def __init__(self, front: RateLimitedFront) -> None:
        self.front = front
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """Close the connection without a word if the registry or the client has gone."""
        if not isinstance(sys.exception(), OSError | http.client.HTTPException):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = TIMEOUT
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.server.front.track_connection(self.connection, opened=True)
        self._registry = self.server.front.connect()

    def finish(self) -> None:
        self._registry.close()
        self.server.front.track_connection(self.connection, opened=False)
        super().finish()

    def serve(self) -> None:
        """Pass a request on, or refuse it."""
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        refusal = self.server.front.admit()
        if refusal is not None:
            self._send_response(self.server.front.status, refusal, b"slow down\n")
            return
        headers = {
            name: value for name, value in self.headers.items() if name.lower() not in _HOP_BY_HOP
        }
        with self.server.front.count_concurrent():
            self._registry.request(self.command, self.path, body or None, headers)
            answer = self._registry.getresponse()
            content = answer.read()
        self._send_response(answer.status, dict(answer.getheaders()), content)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = serve  # noqa: N815 - its names

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name
        """Say nothing."""

    def _send_response(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.server.front.record_request(self.command, self.path, status)
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in _HOP_BY_HOP:
                self.send_header(name, value)
        if "content-length" not in {name.lower() for name in headers}:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
