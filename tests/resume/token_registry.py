"""A registry that wants tokens which die young, or in the middle of something."""

from __future__ import annotations

import itertools
import json
import threading
import time

from concil.server import RegistryBehavior, Request, Response


class ShortTokens(RegistryBehavior):
    """Gives out tokens itself, at /token, and takes each for ``lifetime`` seconds.

    With ``kill_at`` all tokens die when the n-th PATCH or blob GET comes in, counted
    from 1: the request that brought one is refused although its body is on its way.
    """

    def __init__(self, *, lifetime: float = 3600, kill_at: int = 0) -> None:
        self.lifetime = lifetime  # seconds
        self.kill_at = kill_at
        self.given = 0  # tokens
        self._alive: dict[str, float] = {}  # by token: monotonic seconds of its death
        self._numbers = itertools.count(1)
        self._bodies = itertools.count(1)
        self._lock = threading.Lock()

    def before_request(self, request: Request) -> Response | None:
        if request.path == "/token":
            return self._give()
        reads = request.method == "GET" and "/blobs/sha256" in request.path
        with self._lock:
            if reads or request.method == "PATCH":
                self._strike()
            token = request.headers.get("authorization", "").removeprefix("Bearer ")
            if self._alive.get(token, 0) > time.monotonic():
                return None
        host = request.headers["host"]
        challenge = f'Bearer realm="http://{host}/token",service="lab",scope="repository:x:pull"'
        return Response(401, {"WWW-Authenticate": challenge})

    def _strike(self) -> None:
        if next(self._bodies) == self.kill_at:
            self._alive.clear()

    def _give(self) -> Response:
        with self._lock:
            self.given += 1
            token = f"token-{next(self._numbers)}"
            self._alive[token] = time.monotonic() + self.lifetime
        told = {"token": token, "expires_in": self.lifetime}
        return Response(200, {"Content-Type": "application/json"}, json.dumps(told).encode())
