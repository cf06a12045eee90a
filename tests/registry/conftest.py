"""A scripted server for each test, and a client for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from concil.config import Timeouts
from concil.registry.client import RegistryClient
from concil.registry.endpoint import Endpoint
from concil.registry.http_session import new_session
from concil.registry.session import Transport
from tests.registry.scripted import Scripted
from tests.registry.wiring import FAST


@pytest.fixture
def server() -> Iterator[Scripted]:
    with Scripted() as server:
        yield server


@pytest.fixture
def storage() -> Iterator[Scripted]:
    """Another origin: where a registry keeps its blobs."""
    with Scripted() as server:
        yield server


@pytest.fixture
def transport() -> Iterator[Transport]:
    with new_session() as session:
        yield Transport(session, timeouts=Timeouts(connect=5, idle=10, commit=10))


@pytest.fixture
def endpoint(server: Scripted, transport: Transport) -> Endpoint:
    return Endpoint(transport, server.url)


@pytest.fixture
def client(endpoint: Endpoint) -> RegistryClient:
    return RegistryClient(endpoint, "team/app", policy=FAST)
