"""Where a registry answers: plain http on loopback, the errors of a request, repeating."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import requests

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
from concil.registry.client import RegistryClient
from concil.registry.credentials import Credentials, Login
from concil.registry.endpoint import Call, Endpoint
from concil.registry.http_session import TLSSettings, new_session
from concil.registry.session import Transport
from concil.registry.upload import UploadSession
from tests.lab.tls import CertificateAuthority
from tests.registry.guarded import REALM, basic
from tests.registry.scripted import GONE, Answer, Scripted, Seen, reply
from tests.registry.wiring import FAST

ROOT = Call("GET", "/v2/")


@contextmanager
def reached(host: str, tls: TLSSettings | None = None) -> Iterator[Endpoint]:
    """A registry that was named without saying whether it speaks TLS."""
    with new_session(tls) as session:
        yield Endpoint(Transport(session), f"https://{host}", may_be_plain=True)


def ask(endpoint: Endpoint, call: Call = ROOT) -> bytes:
    with endpoint.send(call) as response:
        return response.content


def test_a_plain_registry_is_asked_over_http_from_then_on(server: Scripted) -> None:
    server.on("GET", "/v2/.*", reply(200, b"plain"))
    with reached(server.host) as endpoint:
        assert ask(endpoint) == b"plain"
        assert endpoint.base == server.url
        connections = server.connections
        assert ask(endpoint, Call("GET", f"https://{server.host}/v2/x")) == b"plain"

    assert [seen.path for seen in server.requests] == ["/v2/", "/v2/x"]
    assert server.connections == connections  # TLS is not tried again


def test_threads_find_out_together(server: Scripted) -> None:
    server.on("GET", "/v2/", reply(200, b"plain"))
    everybody = threading.Barrier(8)
    with reached(server.host) as endpoint, ThreadPoolExecutor(8) as pool:

        def one(_: int) -> bytes:
            everybody.wait(20)
            return ask(endpoint)

        assert list(pool.map(one, range(8))) == [b"plain"] * 8


def test_who_finds_it_out_while_another_does_goes_over_too(
    server: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.on("GET", "/v2/", reply(200, b"plain"))
    with reached(server.host) as endpoint:
        is_home = endpoint._is_home
        asked = 0

        def meanwhile(url: str) -> bool:
            """Let another thread be quicker whenever it may be."""
            nonlocal asked
            asked += 1
            if asked > 1 and not endpoint._lock.locked():
                endpoint._base = f"http://{server.host}"
            return is_home(url)

        monkeypatch.setattr(endpoint, "_is_home", meanwhile)

        assert ask(endpoint) == b"plain"


def test_a_host_that_hangs_up_on_tls_is_taken_as_plain() -> None:
    with Scripted(plain=b"SSH-2.0-nothing\r\n") as server, reached(server.host) as endpoint:
        with pytest.raises(ConnectionLost):
            ask(endpoint)

        assert endpoint.base == server.url


def test_an_untrusted_certificate_is_never_answered_with_plain_http(
    ca: CertificateAuthority,
) -> None:
    with (
        Scripted(context=ca.issue().server_context()) as server,
        reached(server.host) as endpoint,
    ):
        with pytest.raises(TLSFailure, match="not trusted"):
            ask(endpoint)

        assert endpoint.base == f"https://{server.host}"
        assert not server.requests


def test_a_ca_file_that_is_missing_is_no_reason_for_plain_http(server: Scripted) -> None:
    with reached(server.host, TLSSettings("/nowhere/ca.pem")) as endpoint:
        with pytest.raises(TLSFailure, match=r"/nowhere/ca\.pem"):
            ask(endpoint)

        assert endpoint.base.startswith("https://")
    assert not server.requests


def test_a_host_that_is_away_is_not_tried_over_http(server: Scripted) -> None:
    host = server.host
    server.close()
    with reached(host) as endpoint:
        with pytest.raises(Unreachable):
            ask(endpoint)

        assert endpoint.base.startswith("https://")


def test_a_host_that_has_spoken_tls_keeps_to_it(ca: CertificateAuthority) -> None:
    with (
        Scripted(context=ca.issue().server_context()) as server,
        reached(server.host, TLSSettings(str(ca.path))) as endpoint,
    ):
        server.on("GET", "/v2/", reply(200, b"tls"), GONE)
        assert ask(endpoint) == b"tls"

        with pytest.raises(ConnectionLost):
            ask(endpoint)

        assert endpoint.base.startswith("https://")


def test_who_asked_for_tls_gets_tls(transport: Transport) -> None:
    with Scripted(plain=b"HTTP/1.1 400 Bad Request\r\n\r\n") as server:
        endpoint = Endpoint(transport, f"https://{server.host}")

        with pytest.raises(TLSFailure, match="does not speak TLS"):
            ask(endpoint)

    assert endpoint.base.startswith("https://")


# Errors ------------------------------------------------------------------------------------


def test_a_status_that_is_not_expected_is_raised(server: Scripted, endpoint: Endpoint) -> None:
    server.on("GET", "/v2/x", reply(404, '{"errors": [{"code": "BLOB_UNKNOWN", "message": "m"}]}'))

    with pytest.raises(RegistryNotFound, match="BLOB_UNKNOWN: m") as caught:
        endpoint.send(Call("GET", "/v2/x"))

    assert caught.value.response is not None
    assert caught.value.response.json()["errors"][0]["code"] == "BLOB_UNKNOWN"
    with endpoint.send(Call("GET", "/v2/x", expect=frozenset({404}))) as response:
        assert response.status_code == 404


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        pytest.param(Answer(413, b"<html>" + b"x" * 100_000), "", id="a long page"),
        pytest.param(Answer(413, b"too lar", length=100, cut="fin"), "", id="cut"),
        pytest.param(Answer(413, b"too large", length=-1), "too large", id="without a length"),
        pytest.param(Answer(416, b"{}", length=1_000_000), "", id="distribution 2.8's 416"),
        pytest.param(Answer(416, b"at most 4.00MiB"), "at most 4.00MiB", id="GHCR's 416"),
        pytest.param(Answer(502), "", id="nothing"),
    ],
)
def test_the_status_counts_whatever_becomes_of_the_text(
    server: Scripted, endpoint: Endpoint, answer: Answer, text: str
) -> None:
    server.on("GET", "/v2/", answer)

    with pytest.raises(StatusError) as caught:
        ask(endpoint)

    assert caught.value.status == answer.status
    assert text in str(caught.value)
    assert caught.value.response is not None
    assert text in caught.value.response.text


def test_a_refusal_that_breaks_off_is_answered_all_the_same(
    server: Scripted, endpoint: Endpoint
) -> None:
    challenge = (("WWW-Authenticate", f'Bearer realm="{server.url}/token"'),)
    server.on("GET", "/v2/", Answer(401, b"{", challenge, length=50, cut="fin"), reply(200, b"in"))
    server.on("GET", "/token.*", reply(200, '{"token": "t"}'))

    assert ask(endpoint) == b"in"
    assert REALM not in str(server.requests)


# Repeating ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "trouble",
    [
        *(pytest.param(reply(s), id=str(s)) for s in (408, 429, 500, 502, 503, 504, 522)),
        pytest.param(GONE, id="no answer"),
        pytest.param(Answer(0, cut="rst"), id="reset"),
    ],
)
def test_small_requests_are_repeated(server: Scripted, endpoint: Endpoint, trouble: Answer) -> None:
    server.on("GET", "/v2/", *[trouble] * 5, reply(200, b"at last"))

    with endpoint.repeat(ROOT, FAST) as response:
        assert response.content == b"at last"

    assert len(server.requests) == 6


@pytest.mark.parametrize("trouble", [reply(503), GONE])
def test_six_tries_are_all(server: Scripted, endpoint: Endpoint, trouble: Answer) -> None:
    server.on("GET", "/v2/", trouble)

    with pytest.raises((StatusError, ConnectionLost)):
        endpoint.repeat(ROOT, FAST)

    assert len(server.requests) == 6


@pytest.mark.parametrize("status", [400, 403, 404, 405, 413, 416, 501])
def test_what_is_meant_is_not_repeated(server: Scripted, endpoint: Endpoint, status: int) -> None:
    server.on("GET", "/v2/", reply(status))

    with pytest.raises(StatusError):
        endpoint.repeat(ROOT, FAST)

    assert len(server.requests) == 1


def test_a_host_that_never_answered_is_not_waited_for(server: Scripted, endpoint: Endpoint) -> None:
    server.close()

    with pytest.raises(Unreachable):
        endpoint.repeat(ROOT, RetryPolicy(base=1000))


def test_retry_after_is_waited_for_and_can_be_cancelled(
    server: Scripted, endpoint: Endpoint
) -> None:
    def busy(_seen: Seen) -> Answer:
        endpoint.cancel.set()
        return reply(503, Retry_After="200")

    server.on("GET", "/v2/", busy)

    with pytest.raises(Cancelled):
        endpoint.repeat(ROOT, FAST)

    assert len(server.requests) == 1


def test_the_error_of_the_last_try_is_the_one_that_is_raised(
    server: Scripted, endpoint: Endpoint
) -> None:
    server.on("GET", "/v2/", *[reply(503)] * 5, reply(500, "the last"))

    with pytest.raises(ConcilError, match="the last"):
        endpoint.repeat(ROOT, FAST)


def test_keywords_for_the_request_reach_it(server: Scripted, endpoint: Endpoint) -> None:
    server.on("GET", "/v2/", reply(200))
    heard: list[requests.Response] = []
    hooks = {"response": lambda response, **_: heard.append(response)}

    ask(endpoint, Call("GET", "/v2/", extra={"hooks": hooks, "auth": ("a", "b")}))

    assert server.requests[0].headers["authorization"].startswith("Basic ")
    assert len(heard) == 1


def test_a_session_of_another_process_finds_its_plain_registry(server: Scripted) -> None:
    """Its http Location is the first thing that this process asks for, with credentials."""
    wanted = basic("alice", "secret")

    def answer(seen: Seen) -> Answer:
        if seen.headers.get("authorization") != wanted:
            return reply(401, WWW_Authenticate='Basic realm="lab"')
        return reply(204, Location=f"{server.url}/session?state=2", Range="0-4")

    server.on("GET", "/v2/", reply(401, WWW_Authenticate='Basic realm="lab"'))
    server.on("GET", "/(v2/|session.*)", answer)
    login = Login(Credentials("alice", "secret"))
    with new_session() as session:
        endpoint = Endpoint(
            Transport(session), f"https://{server.host}", login=login, may_be_plain=True
        )
        upload = UploadSession(
            RegistryClient(endpoint, "app", policy=FAST), f"{server.url}/session"
        )
        upload.sent = 5

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
    assert Endpoint(transport, base, may_be_plain=may_be_plain).absolute(url) == absolute
