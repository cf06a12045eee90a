"""A registry of the internet that wants tokens, and the service that gives them."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable

import requests

from tests.support.scripted_server import (
    Elsewhere,
    ReceivedRequest,
    ScriptedResponse,
    ScriptedServer,
    reply,
)

REGISTRY = "https://reg.example"
REALM = "https://auth.example/token"


def basic(username: str, password: str) -> str:
    """What a client sends for Basic."""
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()


class TokenProtectedRegistry:
    """Every request to the registry wants the newest token; both hosts are one server.

    ``challenge``, ``grant``, ``let_in`` and ``content`` are a test's to change.
    """

    def __init__(self, server: ScriptedServer) -> None:
        self.server = server
        self.challenge = f'Bearer realm="{REALM}",service="reg"'
        self.issued = 0
        self._lock = threading.Lock()
        self.grant: Callable[[str], dict[str, object]] = lambda token: {"token": token}
        self.let_in: Callable[[ReceivedRequest], bool] = self._has_newest
        self.content: Callable[[ReceivedRequest], ScriptedResponse] = lambda _: reply(
            200, b"content"
        )
        server.respond("*", "/v2/.*", self._registry)
        server.respond("GET", r"/token.*", self._token)

    @property
    def token_requests(self) -> list[ReceivedRequest]:
        """What the token service was asked."""
        return [seen for seen in self.server.requests if seen.path.startswith("/token")]

    @property
    def refusals(self) -> int:
        """How often the registry said 401."""
        return self.refused

    def reach(self, session: requests.Session) -> None:
        """Let a session find both hosts here."""
        session.mount("https://", Elsewhere(self.server))

    def _has_newest(self, seen: ReceivedRequest) -> bool:
        return bool(self.issued) and seen.headers.get("authorization") == f"Bearer t{self.issued}"

    refused = 0

    def _registry(self, seen: ReceivedRequest) -> ScriptedResponse:
        if self.let_in(seen):
            return self.content(seen)
        with self._lock:
            self.refused += 1
        return reply(401, '{"errors": [{"code": "UNAUTHORIZED"}]}', WWW_Authenticate=self.challenge)

    def _token(self, seen: ReceivedRequest) -> ScriptedResponse:
        with self._lock:
            self.issued += 1
            return reply(200, json.dumps(self.grant(f"t{self.issued}")))
