"""One request over a session: redirects, credentials, time-outs, pauses, proxies, TLS."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from concil.config import Timeouts
from concil.errors import Cancelled, ConnectionLost, ProtocolViolation, TLSFailure
from concil.http.redirects import MAX_REDIRECTS
from concil.http.requests_session import TLSSettings, create_session
from concil.http.transport import (
    DEFAULT_OPTIONS,
    MAX_ERROR_SIZE,
    SendOptions,
    Transport,
    drain_response,
    read_limited,
)
from tests.support.clock import Clock
from tests.support.scripted_server import ReceivedRequest, ScriptedResponse, ScriptedServer, reply
from tests.support.tls import CertificateAuthority

BEARER = {"Authorization": "Bearer secret"}


def ask(
    transport: Transport,
    url: str,
    method: str = "GET",
    *,
    data: object = None,
    headers: dict[str, str] | None = None,
    options: SendOptions = DEFAULT_OPTIONS,
) -> requests.Response:
    """Send, and read the answer."""
    request = requests.Request(method, url, headers=headers, data=data)
    response = transport.send(request, options)
    assert response.content is not None
    response.close()
    return response


# Redirects ---------------------------------------------------------------------------------


def test_a_redirect_at_home_keeps_the_credentials(
    server: ScriptedServer, transport: Transport
) -> None:
    server.respond("GET", "/a", reply(307, Location="/b?sig=a%2Fb"))
    server.respond("GET", r"/b\?sig=a%2Fb", reply(200, b"content"))

    response = ask(transport, f"{server.url}/a", headers=BEARER)

    assert response.content == b"content"
    assert response.url == f"{server.url}/b?sig=a%2Fb"
    assert [seen.headers.get("authorization") for seen in server.requests] == ["Bearer secret"] * 2


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_to_another_port_drops_the_credentials(
    server: ScriptedServer, storage: ScriptedServer, transport: Transport, status: int
) -> None:
    server.respond("GET", "/blob", reply(status, Location=f"{storage.url}/key?sig=1"))
    storage.respond("GET", r"/key\?sig=1", reply(200, b"content"))
    headers = {
        **BEARER,
        "Cookie": "a=b",
        "Proxy-Authorization": "Basic x",
        "Range": "bytes=3-",
        "Accept-Encoding": "identity",
    }

    response = ask(transport, f"{server.url}/blob", headers=headers)

    [seen] = storage.requests
    assert response.content == b"content"
    assert not {"authorization", "cookie", "proxy-authorization"} & set(seen.headers)
    assert seen.headers["range"] == "bytes=3-"  # asked again of the storage
    assert seen.headers["accept-encoding"] == "identity"


def test_credentials_do_not_come_back_on_the_way_home(
    server: ScriptedServer, storage: ScriptedServer, transport: Transport
) -> None:
    server.respond("GET", "/a", reply(307, Location=f"{storage.url}/b"))
    storage.respond("GET", "/b", reply(307, Location=f"{server.url}/c"))
    server.respond("GET", "/c", reply(200, b"done"))

    ask(transport, f"{server.url}/a", headers=BEARER)

    [seen] = server.matching_requests(part="/c")
    assert "authorization" not in seen.headers


def test_another_name_of_the_same_address_is_another_origin(
    server: ScriptedServer, transport: Transport
) -> None:
    server.respond("GET", "/a", reply(307, Location=f"http://localhost:{server.port}/b"))
    server.respond("GET", "/b", reply(200))

    ask(transport, f"{server.url}/a", headers=BEARER)

    [seen] = server.matching_requests(part="/b")
    assert "authorization" not in seen.headers


@pytest.mark.parametrize("location", ["/a", "/b"])
def test_redirects_come_to_an_end(
    server: ScriptedServer, transport: Transport, location: str
) -> None:
    server.respond("GET", "/a", reply(302, Location=location))
    server.respond("GET", "/b", reply(302, Location="/a"))

    with pytest.raises(ProtocolViolation, match=f"more than {MAX_REDIRECTS} redirects"):
        ask(transport, f"{server.url}/a")

    assert len(server.requests) == MAX_REDIRECTS + 1


def test_a_redirect_without_a_location_is_the_answer(
    server: ScriptedServer, transport: Transport
) -> None:
    server.respond("GET", "/a", reply(302, b"nowhere"))

    assert ask(transport, f"{server.url}/a").content == b"nowhere"


@pytest.mark.parametrize("location", ["http://[::1/x", "ftp://host/x"])
def test_a_redirect_that_leads_nowhere_is_refused(
    server: ScriptedServer, transport: Transport, location: str
) -> None:
    server.respond("GET", "/a", reply(302, Location=location))

    with pytest.raises(ProtocolViolation):
        ask(transport, f"{server.url}/a")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_body_of_bytes_is_sent_again_whole(
    server: ScriptedServer, storage: ScriptedServer, transport: Transport, status: int
) -> None:
    server.respond("PUT", "/manifest", reply(status, Location=f"{storage.url}/manifest"))
    storage.respond("PUT", "/manifest", reply(201))

    response = ask(transport, f"{server.url}/manifest", "PUT", data=b"bytes", headers=BEARER)

    [seen] = storage.requests
    assert response.status_code == 201
    assert (seen.method, seen.body) == ("PUT", b"bytes")
    assert "authorization" not in seen.headers


def test_a_body_that_can_be_read_once_is_not_redirected(
    server: ScriptedServer, transport: Transport
) -> None:
    def body() -> Iterator[bytes]:
        yield b"once"

    server.respond(
        "PUT", "/blob", ScriptedResponse(307, headers=(("Location", "/other"),), cut="fin")
    )

    assert ask(transport, f"{server.url}/blob", "PUT", data=body()).status_code == 307
    assert not server.matching_requests(part="/other")


def test_redirects_are_not_followed_where_the_caller_wants_to_see_them(
    server: ScriptedServer, transport: Transport
) -> None:
    server.respond("PATCH", "/session", reply(307, Location="/other"))

    response = ask(
        transport, f"{server.url}/session", "PATCH", options=SendOptions(allow_redirects=False)
    )

    assert response.headers["Location"] == "/other"
    assert len(server.requests) == 1


# What goes along ---------------------------------------------------------------------------


def test_no_cookie_is_ever_sent_back(server: ScriptedServer, transport: Transport) -> None:
    server.respond("GET", "/.*", reply(200, Set_Cookie="sid=harbor; Path=/"))

    ask(transport, f"{server.url}/a")
    ask(transport, f"{server.url}/b")

    assert all("cookie" not in seen.headers for seen in server.requests)
    assert not transport.session.cookies


def test_netrc_does_not_replace_a_token(
    server: ScriptedServer, transport: Transport, home: Path
) -> None:
    (home / ".netrc").write_text("machine 127.0.0.1 login user password netrc-secret\n")
    server.respond("GET", "/.*", reply(200))

    ask(transport, f"{server.url}/a", headers=BEARER)
    ask(transport, f"{server.url}/b")

    first, second = server.requests
    assert first.headers["authorization"] == "Bearer secret"
    assert "authorization" not in second.headers


def test_bodies_are_asked_for_as_they_are(server: ScriptedServer, transport: Transport) -> None:
    server.respond("GET", "/", reply(200))

    ask(transport, f"{server.url}/")

    [seen] = server.requests
    assert seen.headers["accept-encoding"] == "identity"
    assert seen.headers["user-agent"].startswith("concil/")


def test_connections_are_used_again(server: ScriptedServer, transport: Transport) -> None:
    server.respond("GET", "/.*", reply(307, b"moved", Location="/b"), reply(200, b"x" * 100_000))

    for _ in range(5):
        ask(transport, f"{server.url}/b")

    assert server.connections == 1


def test_a_url_that_cannot_be_sent_is_our_error(transport: Transport) -> None:
    for url in ("https://exa mple/", "no-scheme/x", "http://"):
        with pytest.raises(ProtocolViolation):
            transport.send(requests.Request("GET", url))


def test_a_header_that_cannot_be_sent_is_our_error(
    server: ScriptedServer, transport: Transport
) -> None:
    with pytest.raises(ProtocolViolation):
        ask(transport, server.url, headers={"X": "a\r\nAuthorization: b"})

    assert not server.requests


# Time --------------------------------------------------------------------------------------


def test_a_server_that_stops_sending_is_given_up(server: ScriptedServer) -> None:
    never = threading.Event()
    server.respond("GET", "/a", ScriptedResponse(hold=never))
    with create_session() as session:
        transport = Transport(session, timeouts=Timeouts(idle=0.05))

        with pytest.raises(ConnectionLost, match="no data was received within the timeout"):
            ask(transport, f"{server.url}/a")
    never.set()


def test_a_request_may_wait_longer_than_others(server: ScriptedServer) -> None:
    now = threading.Event()
    server.respond("PUT", "/a", ScriptedResponse(201, hold=now))
    with create_session() as session:
        transport = Transport(session, timeouts=Timeouts(idle=0.01))
        timer = threading.Timer(0.1, now.set)
        timer.start()

        response = ask(transport, f"{server.url}/a", "PUT", options=SendOptions(read_timeout=20))

        timer.join()
    assert response.status_code == 201


def test_the_callers_own_timeout_counts(server: ScriptedServer, transport: Transport) -> None:
    never = threading.Event()
    server.respond("GET", "/a", ScriptedResponse(hold=never))

    with pytest.raises(ConnectionLost):
        ask(transport, f"{server.url}/a", options=SendOptions(overrides={"timeout": 0.05}))
    never.set()


# Pauses ------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_pauses_everybody_who_talks_to_the_host(
    server: ScriptedServer,
    storage: ScriptedServer,
    transport: Transport,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
) -> None:
    clock = Clock(monkeypatch, transport.cancel)
    server.respond("GET", "/a", reply(status, Retry_After="20"), reply(200))
    storage.respond("GET", "/a", reply(200))
    other = Transport(
        transport.session, host_limiters=transport.host_limiters, cancel=transport.cancel
    )

    ask(transport, f"{server.url}/a")
    ask(transport, f"{storage.url}/a")
    assert clock.waits == []  # another host is another matter
    ask(other, f"{server.url}/a")
    assert clock.waits == [20]
    ask(other, f"{server.url}/a")

    assert sum(clock.waits) < 20.2  # the second does not follow on the first one's heels


@pytest.mark.parametrize("status", [200, 404, 500])
def test_retry_after_of_other_answers_pauses_nobody(
    server: ScriptedServer, transport: Transport, status: int
) -> None:
    server.respond("GET", "/a", reply(status, Retry_After="200"))

    ask(transport, f"{server.url}/a")
    ask(transport, f"{server.url}/a")

    assert len(server.requests) == 2


def test_a_pause_can_be_cancelled(server: ScriptedServer, transport: Transport) -> None:
    server.respond("GET", "/a", reply(503, Retry_After="300"))
    ask(transport, f"{server.url}/a")
    timer = threading.Timer(0.01, transport.cancel.set)
    timer.start()

    with pytest.raises(Cancelled, match="during a pause"):
        ask(transport, f"{server.url}/a")

    timer.join()
    assert len(server.requests) == 1


def test_nothing_is_sent_once_cancelled(server: ScriptedServer, transport: Transport) -> None:
    transport.cancel.set()

    with pytest.raises(Cancelled):
        ask(transport, f"{server.url}/a")

    assert not server.requests


# Proxies and certificates of the environment -----------------------------------------------


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_the_proxy_of_the_environment_is_used(
    server: ScriptedServer, transport: Transport, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    if variable == "HTTP_PROXY":
        monkeypatch.delenv("REQUEST_METHOD", raising=False)  # a CGI's HTTP_PROXY is a header
    monkeypatch.setenv(variable, server.url)
    server.respond("GET", "http://reg.example/v2/", reply(200, b"by proxy"))

    assert ask(transport, "http://reg.example/v2/").content == b"by proxy"


def test_no_proxy_is_obeyed(
    server: ScriptedServer, transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server.respond("GET", "/v2/", reply(200))

    assert ask(transport, f"{server.url}/v2/").status_code == 200


def test_the_sessions_own_proxies_come_first(
    server: ScriptedServer, transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    transport.session.proxies = {"http": server.url}
    server.respond("GET", "http://reg.example/v2/", reply(200))

    assert ask(transport, "http://reg.example/v2/").status_code == 200


def test_https_goes_through_the_proxy_by_connect(
    server: ScriptedServer, transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", server.url)

    with pytest.raises(ConnectionLost):
        ask(transport, "https://reg.example/v2/")

    [seen] = server.requests
    assert (seen.method, seen.path) == ("CONNECT", "reg.example:443")


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"])
def test_the_authorities_of_the_environment_are_trusted(
    transport: Transport, ca: CertificateAuthority, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, str(ca.path))
    with ScriptedServer(context=ca.issue().server_context()) as server:
        server.respond("GET", "/v2/", reply(200))

        assert ask(transport, f"{server.url}/v2/").status_code == 200


def test_a_ca_that_was_named_comes_before_the_environment(
    ca: CertificateAuthority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = CertificateAuthority(tmp_path / "other")
    monkeypatch.setenv("SSL_CERT_FILE", str(ca.path))
    with (
        ScriptedServer(context=ca.issue().server_context()) as server,
        create_session(TLSSettings(str(other.path))) as session,
        pytest.raises(TLSFailure),
    ):
        ask(Transport(session), f"{server.url}/v2/")


# Bodies ------------------------------------------------------------------------------------


def test_a_small_body_is_read_and_stays_readable(
    server: ScriptedServer, transport: Transport
) -> None:
    server.respond("GET", "/a", reply(200, b"content"))
    response = transport.send(requests.Request("GET", f"{server.url}/a"))

    assert read_limited(response, 7, "an answer") == b"content"
    assert response.content == b"content"


@pytest.mark.parametrize("length", [None, -1])
def test_a_body_above_the_limit_is_refused(
    server: ScriptedServer, transport: Transport, length: int | None
) -> None:
    server.respond("GET", "/a", ScriptedResponse(body=b"12345678", length=length))
    response = transport.send(requests.Request("GET", f"{server.url}/a"))

    with pytest.raises(ProtocolViolation, match=r"an answer.*larger than 7 bytes"):
        read_limited(response, 7, "an answer")


def test_a_body_that_breaks_off_is_lost(server: ScriptedServer, transport: Transport) -> None:
    server.respond("GET", "/a", ScriptedResponse(body=b"short", length=100, cut="fin"))
    response = transport.send(requests.Request("GET", f"{server.url}/a"))

    with pytest.raises(ConnectionLost, match="an answer"):
        read_limited(response, 1000, "an answer")


def test_what_is_discarded_gives_its_connection_back(
    server: ScriptedServer, transport: Transport
) -> None:
    server.respond("GET", "/a", reply(200, b"x" * 1000))

    for _ in range(3):
        drain_response(transport.send(requests.Request("GET", f"{server.url}/a")))

    assert server.connections == 1


@pytest.mark.parametrize(
    "answer",
    [
        # distribution 2.8 announces the whole blob with its 416: reading it would hang.
        ScriptedResponse(416, b"{}", length=1000),
        ScriptedResponse(200, b"x", length=MAX_ERROR_SIZE + 1),
        ScriptedResponse(200, b"x", length=10, cut="fin"),
        ScriptedResponse(200, b"x", length=10, cut="rst"),
        ScriptedResponse(200, b"x", length=-1),
    ],
)
def test_what_cannot_be_read_to_its_end_is_closed(
    server: ScriptedServer, transport: Transport, answer: ScriptedResponse
) -> None:
    server.respond("GET", "/a", answer, reply(200, b"second"))

    drain_response(transport.send(requests.Request("GET", f"{server.url}/a")))

    assert ask(transport, f"{server.url}/a").content == b"second"
    assert server.connections == 2


def test_a_length_that_is_no_number_is_none(server: ScriptedServer, transport: Transport) -> None:
    def odd(_seen: ReceivedRequest) -> ScriptedResponse:
        return ScriptedResponse(200, b"x", headers=(("Content-Length", "\xb2"),), length=-1)

    server.respond("GET", "/a", odd)

    drain_response(transport.send(requests.Request("GET", f"{server.url}/a")))


def test_small_body_that_takes_too_long_is_closed(
    server: ScriptedServer, transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("concil.http.transport.BODY_TIMEOUT", -1.0)
    server.respond("GET", "/x", reply(200, b"x" * 1_000_000))
    response = transport.send(requests.Request("GET", f"{server.url}/x"))

    with pytest.raises(ConnectionLost, match="takes too long"):
        read_limited(response, 1_000_000, "an answer")

    assert response.raw.closed
