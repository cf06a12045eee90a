"""A scripted server for each test, and a client for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from concil.config import Timeouts
from concil.http.requests_session import create_session
from concil.http.transport import Transport
from concil.registry.client import RegistryClient
from concil.registry.endpoint import Endpoint
from tests.support.quick_retries import FAST
from tests.support.scripted_server import ScriptedServer


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        yield server


@pytest.fixture
def storage() -> Iterator[ScriptedServer]:
    """Another origin: where a registry keeps its blobs."""
    with ScriptedServer() as server:
        yield server


@pytest.fixture
def transport() -> Iterator[Transport]:
    with create_session() as session:
        yield Transport(session, timeouts=Timeouts(connect=5, idle=10, commit=10))


@pytest.fixture
def endpoint(server: ScriptedServer, transport: Transport) -> Endpoint:
    return Endpoint(transport, server.url)


@pytest.fixture
def client(endpoint: Endpoint) -> RegistryClient:
    return RegistryClient(endpoint, "team/app", policy=FAST)
