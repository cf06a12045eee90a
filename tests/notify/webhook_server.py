"""A webhook that answers with a given status, or not at all."""

from __future__ import annotations

import json
import queue
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

PATIENCE = 60  # seconds


class WebhookServer:
    """Receives notifications on loopback. Ends with its ``with`` block."""

    def __init__(self, status: int | None = 204) -> None:
        """Answer with a status; None: never."""
        self.statuses: list[int | None] = []  # of the next requests; then ``status``
        self.status = status
        self.received: queue.Queue[tuple[dict[str, str], bytes]] = queue.Queue()
        self._end = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                outer.received.put((headers, body))
                status = outer.statuses.pop(0) if outer.statuses else outer.status
                if status is None:
                    outer._end.wait(PATIENCE)
                    return
                self.send_response(status)
                self.send_header("Location", f"{outer.url}/elsewhere")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.host = f"127.0.0.1:{self._server.server_port}"
        self.url = f"http://{self.host}/hooks/T0KEN-in-the-path"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end.set()
        self._server.shutdown()
        self._thread.join(PATIENCE)
        self._server.server_close()

    def document(self) -> dict[str, Any]:
        """Return the next notification."""
        document: dict[str, Any] = json.loads(self.received.get(timeout=PATIENCE)[1])
        return document
