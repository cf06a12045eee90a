"""The fast path and stock requests do the same; the fast path can be switched off."""

from __future__ import annotations

import hashlib
import http.client
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator

import pytest
import requests

from concil.errors import ConnectionLost
from concil.http import unsafe_fast_path
from concil.http.requests_session import create_session
from concil.http.transport import Transport, drain_response, read_limited
from concil.oci.descriptor import Descriptor
from concil.oci.manifest import Digest
from concil.registry.client import RegistryClient
from concil.registry.endpoint import Endpoint
from concil.registry.quirks import HostProfiles
from concil.store.registry.repository import RepositoryStore
from tests.support.quick_retries import FAST
from tests.support.scripted_server import ReceivedRequest, ScriptedResponse, ScriptedServer, reply

BLOB = bytes(range(256)) * 3000
BLOB_TYPE = "application/vnd.oci.image.layer.v1.tar"


@pytest.fixture(params=[True, False], ids=["fast", "stock"])
def enabled(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(unsafe_fast_path, "ENABLED", request.param)
    return bool(request.param)


@pytest.fixture
def session(enabled: bool) -> Iterator[requests.Session]:
    with create_session() as made:
        yield made


@pytest.fixture
def transport(session: requests.Session) -> Transport:
    return Transport(session)


@pytest.fixture
def store(session: requests.Session, server: ScriptedServer) -> RepositoryStore:
    client = RegistryClient(Endpoint(Transport(session), server.url), "team/app", policy=FAST)
    return RepositoryStore(client, name="app", host_profiles=HostProfiles())


def descriptor(content: bytes) -> Descriptor:
    return Descriptor(BLOB_TYPE, Digest.from_bytes(content), len(content))


def test_the_classes_of_the_libraries_are_used_when_it_is_off(
    session: requests.Session, server: ScriptedServer, enabled: bool
) -> None:
    server.respond("GET", "/a", reply(200, b"content"))

    with session.get(f"{server.url}/a", stream=True) as response:
        kind = type(response.raw._original_response)

    assert kind is (unsafe_fast_path.BoundedResponse if enabled else http.client.HTTPResponse)
    assert (unsafe_fast_path.unwrap_body(response.raw) is not None) is enabled
    assert unsafe_fast_path.can_bypass_session() is enabled


@pytest.mark.parametrize("length", [None, -1], ids=["with a length", "until the end"])
@pytest.mark.parametrize("times", [1, 3])
def test_a_blob_arrives(
    store: RepositoryStore, server: ScriptedServer, length: int | None, times: int
) -> None:
    server.respond("GET", "/v2/.*", ScriptedResponse(200, BLOB, length=length))

    for _ in range(times):
        reader, received, buffer = store.open_blob(descriptor(BLOB)), b"", bytearray(100_000)
        while count := reader.readinto(memoryview(buffer)):
            received += buffer[:count]
        reader.close()
        assert received == BLOB

    if length is None:
        assert server.connections == 1


def test_a_body_in_chunks_arrives(transport: Transport, server: ScriptedServer) -> None:
    chunks = b"5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nTrailer: t\r\n\r\n"
    headers = (("Transfer-Encoding", "chunked"), ("Connection", "close"))
    server.respond("GET", "/a", ScriptedResponse(200, chunks, headers, length=-1))

    for _ in range(2):
        response = transport.send(requests.Request("GET", f"{server.url}/a"))
        assert read_limited(response, 100, "an answer") == b"hello world"


def test_connections_are_used_again(transport: Transport, server: ScriptedServer) -> None:
    server.respond("GET", "/a", reply(200, b"x" * 1000))

    for _ in range(5):
        drain_response(transport.send(requests.Request("GET", f"{server.url}/a")))

    assert server.connections == 1


def test_a_body_is_sent(transport: Transport, server: ScriptedServer) -> None:
    def answer(seen: ReceivedRequest) -> ScriptedResponse:
        return reply(201, hashlib.sha256(seen.read()).hexdigest())

    server.respond("PUT", "/a", answer)

    response = transport.send(requests.Request("PUT", f"{server.url}/a", data=BLOB))

    assert response.content.decode() == hashlib.sha256(BLOB).hexdigest()


def test_a_redirect_is_followed(transport: Transport, server: ScriptedServer) -> None:
    server.respond("GET", "/a", reply(307, b"moved", Location="/b?sig=a%2Fb"))
    server.respond("GET", r"/b\?sig=a%2Fb", reply(200, b"content"))

    response = transport.send(requests.Request("GET", f"{server.url}/a"))

    assert response.content == b"content"
    assert server.connections == 1


def test_a_body_that_breaks_off_is_an_error_of_ours(
    transport: Transport, server: ScriptedServer
) -> None:
    server.respond("GET", "/a", ScriptedResponse(200, b"short", length=100, cut="fin"))
    response = transport.send(requests.Request("GET", f"{server.url}/a"))

    with pytest.raises(ConnectionLost, match="an answer"):
        read_limited(response, 1000, "an answer")


def test_a_pickled_session_works(session: requests.Session, server: ScriptedServer) -> None:
    server.respond("GET", "/a", reply(200, b"content"))

    with pickle.loads(pickle.dumps(session)) as copy:
        assert copy.get(f"{server.url}/a").content == b"content"


@pytest.mark.parametrize(
    ("value", "expected"), [(None, True), ("", True), ("0", True), ("1", False)]
)
def test_the_environment_switches_it_off(value: str | None, expected: bool) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "CONCIL_STOCK_HTTP"}
    if value is not None:
        environment["CONCIL_STOCK_HTTP"] = value
    program = "from concil.http import unsafe_fast_path; print(unsafe_fast_path.ENABLED)"

    printed = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        check=True,
        timeout=60,
    ).stdout

    assert printed.decode().strip() == str(expected)
