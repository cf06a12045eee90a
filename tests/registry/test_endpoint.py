"""Where a registry answers: plain http on loopback, the errors of a request, repeating."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from concil.auth.credentials.credentials import CredentialProviders, Credentials
from concil.config import RetryPolicy
from concil.errors import (
    Cancelled,
    ConcilError,
    ConnectionLost,
    RegistryNotFound,
    StatusError,
    TLSFailure,
    Unreachable,
)
from concil.http.requests_session import TLSSettings, create_session
from concil.http.throttle.host_limiters import HostLimiters
from concil.http.transport import Transport
from concil.registry.client import RegistryClient
from concil.registry.endpoint import Call, Endpoint
from concil.registry.upload_session import UploadSession
from concil.server import EmbeddedRegistry
from tests.support.clock import Clock
from tests.support.quick_retries import FAST, drop_backoff
from tests.support.scripted_server import (
    NO_RESPONSE,
    ReceivedRequest,
    ScriptedResponse,
    ScriptedServer,
    reply,
)
from tests.support.tcp_peers import TCPServer
from tests.support.tls import CertificateAuthority
from tests.support.token_protected_registry import REALM, basic

ROOT = Call("GET", "/v2/")


@contextmanager
def reached(host: str, tls: TLSSettings | None = None) -> Iterator[Endpoint]:
    """A registry that was named without saying whether it speaks TLS."""
    with create_session(tls) as session:
        yield Endpoint(Transport(session), f"https://{host}", allow_plain_http=True)


def ask(endpoint: Endpoint, call: Call = ROOT) -> bytes:
    with endpoint.send(call) as response:
        return response.content


def test_a_plain_registry_is_asked_over_http_from_then_on(server: ScriptedServer) -> None:
    server.respond("GET", "/v2/.*", reply(200, b"plain"))
    with reached(server.host) as endpoint:
        assert ask(endpoint) == b"plain"
        assert endpoint.base_url == server.url
        connections = server.connections
        assert ask(endpoint, Call("GET", f"https://{server.host}/v2/x")) == b"plain"

    assert [seen.path for seen in server.requests] == ["/v2/", "/v2/x"]
    assert server.connections == connections  # TLS is not tried again


def test_no_ca_certificates_are_loaded_for_a_plain_registry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They would take a fifth of the CPU time of a short command."""
    loaded: list[object] = []
    monkeypatch.setattr(
        ssl.SSLContext, "load_verify_locations", lambda _, *where: loaded.append(where)
    )
    with EmbeddedRegistry(tmp_path) as embedded, reached(embedded.host) as endpoint:
        ask(endpoint)

    assert endpoint.base_url == embedded.url
    assert loaded == []


def test_a_host_that_closes_the_probe_is_still_asked_over_tls() -> None:
    received: list[bytes] = []

    def close(connection: socket.socket) -> None:
        received.append(connection.recv(1))

    with (
        TCPServer(close) as server,
        reached(server.host) as endpoint,
        pytest.raises(ConnectionLost),
    ):
        ask(endpoint)

    assert received[:2] == [b"\x16", b"\x16"]  # the probe, and the handshake


def test_threads_find_out_together(server: ScriptedServer) -> None:
    server.respond("GET", "/v2/", reply(200, b"plain"))
    everybody = threading.Barrier(8)
    with reached(server.host) as endpoint, ThreadPoolExecutor(8) as pool:

        def one(_: int) -> bytes:
            everybody.wait(20)
            return ask(endpoint)

        assert list(pool.map(one, range(8))) == [b"plain"] * 8


def test_who_finds_it_out_while_another_does_goes_over_too(
    server: ScriptedServer, ca: CertificateAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.respond("GET", "/v2/", reply(200, b"plain"))
    # With a CA of its own the host is not probed: its TLS handshake fails.
    with reached(server.host, TLSSettings(str(ca.path))) as endpoint:
        is_home = endpoint._is_own_url
        asked = 0

        def meanwhile(url: str) -> bool:
            """Let another thread be quicker whenever it may be."""
            nonlocal asked
            asked += 1
            if asked > 1 and not endpoint._lock.locked():
                endpoint._base_url = f"http://{server.host}"
            return is_home(url)

        monkeypatch.setattr(endpoint, "_is_own_url", meanwhile)

        assert ask(endpoint) == b"plain"


def test_a_host_that_hangs_up_on_tls_is_taken_as_plain() -> None:
    with ScriptedServer(plain=b"SSH-2.0-nothing\r\n") as server, reached(server.host) as endpoint:
        with pytest.raises(ConnectionLost):
            ask(endpoint)

        assert endpoint.base_url == server.url


def test_an_untrusted_certificate_is_never_answered_with_plain_http(
    ca: CertificateAuthority,
) -> None:
    with (
        ScriptedServer(context=ca.issue().server_context()) as server,
        reached(server.host) as endpoint,
    ):
        with pytest.raises(TLSFailure, match="not trusted"):
            ask(endpoint)

        assert endpoint.base_url == f"https://{server.host}"
        assert not server.requests


def test_a_ca_file_that_is_missing_is_no_reason_for_plain_http(server: ScriptedServer) -> None:
    with reached(server.host, TLSSettings("/nowhere/ca.pem")) as endpoint:
        with pytest.raises(TLSFailure, match=r"/nowhere/ca\.pem"):
            ask(endpoint)

        assert endpoint.base_url.startswith("https://")
    assert not server.requests


def test_a_host_that_is_away_is_not_tried_over_http(server: ScriptedServer) -> None:
    host = server.host
    server.close()
    with reached(host) as endpoint:
        with pytest.raises(Unreachable):
            ask(endpoint)

        assert endpoint.base_url.startswith("https://")


def test_a_host_that_has_spoken_tls_keeps_to_it(ca: CertificateAuthority) -> None:
    with (
        ScriptedServer(context=ca.issue().server_context()) as server,
        reached(server.host, TLSSettings(str(ca.path))) as endpoint,
    ):
        server.respond("GET", "/v2/", reply(200, b"tls"), NO_RESPONSE)
        assert ask(endpoint) == b"tls"

        with pytest.raises(ConnectionLost):
            ask(endpoint)

        assert endpoint.base_url.startswith("https://")


def test_who_asked_for_tls_gets_tls(transport: Transport) -> None:
    with ScriptedServer(plain=b"HTTP/1.1 400 Bad Request\r\n\r\n") as server:
        endpoint = Endpoint(transport, f"https://{server.host}")

        with pytest.raises(TLSFailure, match="does not speak TLS"):
            ask(endpoint)

    assert endpoint.base_url.startswith("https://")


# Errors ------------------------------------------------------------------------------------


def test_a_status_that_is_not_expected_is_raised(
    server: ScriptedServer, endpoint: Endpoint
) -> None:
    server.respond(
        "GET", "/v2/x", reply(404, '{"errors": [{"code": "BLOB_UNKNOWN", "message": "m"}]}')
    )

    with pytest.raises(RegistryNotFound, match="BLOB_UNKNOWN: m") as caught:
        endpoint.send(Call("GET", "/v2/x"))

    assert caught.value.response is not None
    assert caught.value.response.json()["errors"][0]["code"] == "BLOB_UNKNOWN"
    with endpoint.send(Call("GET", "/v2/x", expected_statuses=frozenset({404}))) as response:
        assert response.status_code == 404


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        pytest.param(ScriptedResponse(413, b"<html>" + b"x" * 100_000), "", id="a long page"),
        pytest.param(ScriptedResponse(413, b"too lar", length=100, cut="fin"), "", id="cut"),
        pytest.param(
            ScriptedResponse(413, b"too large", length=-1), "too large", id="without a length"
        ),
        pytest.param(
            ScriptedResponse(416, b"{}", length=1_000_000), "", id="distribution 2.8's 416"
        ),
        pytest.param(ScriptedResponse(416, b"at most 4.00MiB"), "at most 4.00MiB", id="GHCR's 416"),
        pytest.param(ScriptedResponse(502), "", id="nothing"),
    ],
)
def test_the_status_counts_whatever_becomes_of_the_text(
    server: ScriptedServer, endpoint: Endpoint, answer: ScriptedResponse, text: str
) -> None:
    server.respond("GET", "/v2/", answer)

    with pytest.raises(StatusError) as caught:
        ask(endpoint)

    assert caught.value.status == answer.status
    assert text in str(caught.value)
    assert caught.value.response is not None
    assert text in caught.value.response.text


def test_a_refusal_that_breaks_off_is_answered_all_the_same(
    server: ScriptedServer, endpoint: Endpoint
) -> None:
    challenge = (("WWW-Authenticate", f'Bearer realm="{server.url}/token"'),)
    server.respond(
        "GET",
        "/v2/",
        ScriptedResponse(401, b"{", challenge, length=50, cut="fin"),
        reply(200, b"in"),
    )
    server.respond("GET", "/token.*", reply(200, '{"token": "t"}'))

    assert ask(endpoint) == b"in"
    assert REALM not in str(server.requests)


# Repeating ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "trouble",
    [
        *(pytest.param(reply(s), id=str(s)) for s in (408, 429, 500, 502, 503, 504, 522)),
        pytest.param(NO_RESPONSE, id="no answer"),
        pytest.param(ScriptedResponse(0, cut="rst"), id="reset"),
    ],
)
def test_small_requests_are_repeated(
    server: ScriptedServer,
    endpoint: Endpoint,
    trouble: ScriptedResponse,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drop_backoff(monkeypatch)
    server.respond("GET", "/v2/", *[trouble] * 5, reply(200, b"at last"))

    with endpoint.send_with_retry(ROOT, FAST) as response:
        assert response.content == b"at last"

    assert len(server.requests) == 6


@pytest.mark.parametrize("trouble", [reply(503), NO_RESPONSE])
def test_six_tries_are_all(
    server: ScriptedServer, endpoint: Endpoint, trouble: ScriptedResponse
) -> None:
    server.respond("GET", "/v2/", trouble)

    with pytest.raises((StatusError, ConnectionLost)):
        endpoint.send_with_retry(ROOT, FAST)

    assert len(server.requests) == 6


@pytest.mark.parametrize("status", [400, 403, 404, 405, 413, 416, 501])
def test_what_is_meant_is_not_repeated(
    server: ScriptedServer, endpoint: Endpoint, status: int
) -> None:
    server.respond("GET", "/v2/", reply(status))

    with pytest.raises(StatusError):
        endpoint.send_with_retry(ROOT, FAST)

    assert len(server.requests) == 1


def test_a_host_that_never_answered_is_not_waited_for(
    server: ScriptedServer, endpoint: Endpoint
) -> None:
    server.close()

    with pytest.raises(Unreachable):
        endpoint.send_with_retry(ROOT, RetryPolicy(backoff_base=1000))


def test_retry_after_is_waited_for_and_can_be_cancelled(
    server: ScriptedServer, endpoint: Endpoint
) -> None:
    def busy(_seen: ReceivedRequest) -> ScriptedResponse:
        endpoint.cancel.set()
        return reply(503, Retry_After="200")

    server.respond("GET", "/v2/", busy)

    with pytest.raises(Cancelled):
        endpoint.send_with_retry(ROOT, FAST)

    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [429, 502, 503])
@pytest.mark.parametrize(
    ("asked", "maximum", "waited"),
    [(20, 300, 20), (20, 1, 1), (1000, 300, 300), (1000, 3600, 1000)],
)
def test_a_retry_after_is_waited_for_once_up_to_the_maximum(
    server: ScriptedServer,
    monkeypatch: pytest.MonkeyPatch,
    *,
    status: int,
    asked: int,
    maximum: float,
    waited: float,
) -> None:
    server.respond("GET", "/v2/", reply(status, Retry_After=str(asked)), reply(200))
    with create_session() as session:
        limiters = HostLimiters(max_retry_after=maximum)
        endpoint = Endpoint(Transport(session, host_limiters=limiters), server.url)
        clock = Clock(monkeypatch, endpoint.cancel)

        endpoint.send_with_retry(ROOT, RetryPolicy(max_retry_after=maximum)).close()

    assert [seconds for seconds in clock.waits if seconds] == [waited]


def test_the_error_of_the_last_try_is_the_one_that_is_raised(
    server: ScriptedServer, endpoint: Endpoint
) -> None:
    server.respond("GET", "/v2/", *[reply(503)] * 5, reply(500, "the last"))

    with pytest.raises(ConcilError, match="the last"):
        endpoint.send_with_retry(ROOT, FAST)


def test_keywords_for_the_request_reach_it(server: ScriptedServer, endpoint: Endpoint) -> None:
    server.respond("GET", "/v2/", reply(200))
    heard: list[requests.Response] = []
    hooks = {"response": lambda response, **_: heard.append(response)}

    ask(endpoint, Call("GET", "/v2/", request_arguments={"hooks": hooks, "auth": ("a", "b")}))

    assert server.requests[0].headers["authorization"].startswith("Basic ")
    assert len(heard) == 1


def test_a_session_of_another_process_finds_its_plain_registry(server: ScriptedServer) -> None:
    """Its http Location is the first thing that this process asks for, with credentials."""
    wanted = basic("alice", "secret")

    def answer(seen: ReceivedRequest) -> ScriptedResponse:
        if seen.headers.get("authorization") != wanted:
            return reply(401, WWW_Authenticate='Basic realm="lab"')
        return reply(204, Location=f"{server.url}/session?state=2", Range="0-4")

    server.respond("GET", "/v2/", reply(401, WWW_Authenticate='Basic realm="lab"'))
    server.respond("GET", "/(v2/|session.*)", answer)
    login = CredentialProviders(Credentials("alice", "secret"))
    with create_session() as session:
        endpoint = Endpoint(
            Transport(session), f"https://{server.host}", providers=login, allow_plain_http=True
        )
        upload = UploadSession(
            RegistryClient(endpoint, "app", policy=FAST), f"{server.url}/session"
        )
        upload.max_sent_offset = 5

        assert upload.status() == 5

        assert upload.location == f"{server.url}/session?state=2"


@pytest.mark.parametrize(
    ("base", "may_be_plain", "url", "absolute"),
    [
        ("https://a:1", True, "http://a:1/v2/", "https://a:1/v2/"),
        ("https://a:1", False, "http://a:1/v2/", "http://a:1/v2/"),
        ("http://a:1", True, "https://a:1/v2/", "http://a:1/v2/"),
        ("http://a:1", False, "https://a:1?x", "http://a:1?x"),
        ("http://a:1", True, "https://a:12/v2/", "https://a:12/v2/"),
        ("https://a:1", True, "http://a:1.else/v2/", "http://a:1.else/v2/"),
        ("https://a", True, "ftp://a/v2/", "ftp://a/v2/"),
        ("https://a", True, "/v2/", "https://a/v2/"),
    ],
)
def test_a_url_of_the_registry_has_the_scheme_that_it_speaks(
    transport: Transport, base: str, may_be_plain: bool, url: str, absolute: str
) -> None:
    assert Endpoint(transport, base, allow_plain_http=may_be_plain).absolute_url(url) == absolute
