"""The authorities of a host: read once for all its connections, and each of them is checked."""

from __future__ import annotations

import shutil
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from concil.errors import TLSFailure
from concil.http.requests_session import TLSSettings, create_session
from concil.http.transport import Transport
from tests.support.scripted_server import (
    ReceivedRequest,
    ScriptedResponse,
    ScriptedServer,
    reply,
)
from tests.support.tcp_peers import TIMEOUT
from tests.support.tls import CertificateAuthority

AT_ONCE = 8


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What authorities were read, each time."""
    seen: list[object] = []
    load = ssl.SSLContext.load_verify_locations

    def noting(context: ssl.SSLContext, *where: Any) -> None:  # noqa: ANN401 - ssl's
        seen.append(where[0])
        load(context, *where)

    monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", noting)
    return seen


def replace(path: Path, by: CertificateAuthority) -> None:
    """Write another authority into a file, as a package manager would."""
    new = path.with_suffix(".new")
    shutil.copy(by.path, new)
    new.replace(path)


def test_connections_at_once_read_the_authorities_once(
    ca: CertificateAuthority, reads: list[object]
) -> None:
    together = threading.Barrier(AT_ONCE)

    def wait(_: ReceivedRequest) -> ScriptedResponse:
        together.wait(TIMEOUT)
        return reply(200, b"x")

    with (
        ScriptedServer(context=ca.issue().server_context()) as server,
        create_session(TLSSettings(str(ca.path))) as session,
        ThreadPoolExecutor(AT_ONCE) as threads,
    ):
        server.respond("GET", "/a", wait)
        transport = Transport(session)

        def ask(_: int) -> int:
            response = transport.send(requests.Request("GET", f"{server.url}/a"))
            assert response.content == b"x"
            return response.status_code

        assert list(threads.map(ask, range(AT_ONCE))) == [200] * AT_ONCE

    assert reads == [str(ca.path)]


def test_each_connection_is_checked_for_its_name(ca: CertificateAuthority) -> None:
    """Two names of one machine, one in the certificate; what was learned of one helps nobody."""
    with (
        ScriptedServer(context=ca.issue("127.0.0.1").server_context()) as server,
        create_session(TLSSettings(str(ca.path))) as session,
    ):
        server.respond("GET", "/a", reply(200))
        transport = Transport(session)
        other = server.url.replace("127.0.0.1", "localhost")
        for url in (server.url, other, server.url, other):
            request = requests.Request("GET", f"{url}/a", headers={"Connection": "close"})
            if url == server.url:
                assert transport.send(request).status_code == 200
            else:
                with pytest.raises(TLSFailure, match="not trusted"):
                    transport.send(request)


def test_an_authority_that_is_replaced_counts_for_the_next_connection(
    ca: CertificateAuthority, tmp_path: Path
) -> None:
    other = CertificateAuthority(tmp_path / "other")
    path = tmp_path / "ca.pem"
    replace(path, other)
    with (
        ScriptedServer(context=ca.issue().server_context()) as server,
        create_session(TLSSettings(str(path))) as session,
    ):
        server.respond("GET", "/a", reply(200))
        transport = Transport(session)
        request = requests.Request("GET", f"{server.url}/a", headers={"Connection": "close"})

        with pytest.raises(TLSFailure, match="not trusted"):
            transport.send(request)
        replace(path, ca)
        assert transport.send(request).status_code == 200
        replace(path, other)
        with pytest.raises(TLSFailure, match="not trusted"):
            transport.send(request)


def test_a_session_without_checks_does_not_loosen_another(ca: CertificateAuthority) -> None:
    with (
        ScriptedServer(context=ca.issue().server_context()) as server,
        create_session(TLSSettings(str(ca.path))) as session,
    ):
        server.respond("GET", "/a", reply(200))
        transport = Transport(session)
        request = requests.Request("GET", f"{server.url}/a", headers={"Connection": "close"})
        assert transport.send(request).status_code == 200
        with pytest.warns(match="Unverified"):
            loose = session.get(f"{server.url}/a", verify=False)
        assert loose.status_code == 200
        session.verify = True  # the usual authorities, which do not know this one
        with pytest.raises(TLSFailure, match="not trusted"):
            transport.send(request)


def test_further_connections_resume_the_session_of_the_first(ca: CertificateAuthority) -> None:
    context = ca.issue().server_context()
    with (
        ScriptedServer(context=context) as server,
        create_session(TLSSettings(str(ca.path))) as session,
    ):
        server.respond("GET", "/a", reply(200))
        transport = Transport(session)
        for _ in range(4):
            request = requests.Request("GET", f"{server.url}/a", headers={"Connection": "close"})
            assert transport.send(request).status_code == 200

        statistics = context.session_stats()
    assert statistics["accept_good"] == 4
    assert statistics["hits"] == 3


def test_a_session_is_not_resumed_with_another_authority(
    ca: CertificateAuthority, tmp_path: Path
) -> None:
    path = tmp_path / "ca.pem"
    replace(path, ca)
    with (
        ScriptedServer(context=ca.issue().server_context()) as server,
        create_session(TLSSettings(str(path))) as session,
    ):
        server.respond("GET", "/a", reply(200))
        transport = Transport(session)
        request = requests.Request("GET", f"{server.url}/a", headers={"Connection": "close"})
        assert transport.send(request).status_code == 200
        replace(path, CertificateAuthority(tmp_path / "other"))
        with pytest.raises(TLSFailure, match="not trusted"):
            transport.send(request)


def test_a_session_that_the_server_has_forgotten_is_no_error(ca: CertificateAuthority) -> None:
    issued = ca.issue()
    with create_session(TLSSettings(str(ca.path))) as session:
        transport = Transport(session)
        with ScriptedServer(context=issued.server_context()) as server:
            server.respond("GET", "/a", reply(200))
            request = requests.Request("GET", f"{server.url}/a", headers={"Connection": "close"})
            assert transport.send(request).status_code == 200
            server_context = server._context = issued.server_context()  # other ticket keys
            assert transport.send(request).status_code == 200
            assert transport.send(request).status_code == 200
    assert server_context.session_stats()["accept_good"] == 2
