"""A scripted server for each test, and a client for it."""

from __future__ import annotations

from tests.support.client_fixtures import client, endpoint, server, storage, transport

__all__ = ["client", "endpoint", "server", "storage", "transport"]
