"""Proxies: a real one on loopback, and what must not get past it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import requests

from concil.errors import ConcilError, Unreachable, UsageError
from concil.registry.http_session import TLSSettings, new_session
from concil.registry.session import Transport
from tests.lab.proxy import Proxy
from tests.lab.tls import CertificateAuthority
from tests.registry.scripted import Scripted, reply

PASSWORD = "alice:pr0xy-s3cret"
Set = Callable[[str], None]


@pytest.fixture
def through(monkeypatch: pytest.MonkeyPatch) -> Set:
    """Let the environment name a proxy; hosts of the tests are not on loopback by name."""

    def name(url: str) -> None:
        for variable in ("http_proxy", "https_proxy"):
            monkeypatch.setenv(variable, url)

    return name


def ask(transport: Transport, url: str) -> requests.Response:
    request = requests.Request("GET", url, headers={"Authorization": "Bearer secret"})
    response = transport.send(request)
    assert response.content is not None
    response.close()
    return response


def test_plain_requests_go_through_the_proxy(
    server: Scripted, transport: Transport, through: Set
) -> None:
    server.on("GET", "/v2/", reply(200, b"content"))
    with Proxy(password=PASSWORD) as proxy:
        through(proxy.url)

        answer = ask(transport, f"http://reg.example:{server.port}/v2/")

    assert answer.content == b"content"
    [passed] = proxy.passed
    [seen] = server.requests
    assert passed.headers["proxy-authorization"].startswith("Basic ")
    assert "proxy-authorization" not in seen.headers
    assert seen.headers["authorization"] == "Bearer secret"


def test_tls_goes_through_the_proxy_by_connect(ca: CertificateAuthority, through: Set) -> None:
    issued = ca.issue("reg.example")
    with (
        Proxy(password=PASSWORD) as proxy,
        Scripted(context=issued.server_context()) as server,
        new_session(TLSSettings(str(ca.path))) as session,
    ):
        through(proxy.url)
        server.on("GET", "/v2/", reply(200, b"content"))

        answer = ask(Transport(session), f"https://reg.example:{server.port}/v2/")

    assert answer.content == b"content"
    [passed] = proxy.passed
    [seen] = server.requests
    assert (passed.method, passed.target) == ("CONNECT", f"reg.example:{server.port}")
    assert "proxy-authorization" in passed.headers
    assert "authorization" not in passed.headers
    assert "proxy-authorization" not in seen.headers


def test_the_password_of_the_proxy_follows_no_redirect_past_it(
    server: Scripted,
    storage: Scripted,
    transport: Transport,
    through: Set,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server.on("GET", "/a", reply(307, Location=f"http://localhost:{storage.port}/b"))
    storage.on("GET", "/b", reply(200, b"content"))
    with Proxy(password=PASSWORD) as proxy:
        through(proxy.url)
        monkeypatch.setenv("no_proxy", "localhost")

        ask(transport, f"{server.url}/a")

    assert len(proxy.passed) == 1
    for seen in (*server.requests, *storage.requests):
        assert "proxy-authorization" not in seen.headers
    [there] = storage.requests
    assert "authorization" not in there.headers


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_wants_a_password_is_one_line(
    transport: Transport, through: Set, scheme: str
) -> None:
    with Proxy(password=PASSWORD) as proxy:
        through(f"http://bob:wr0ng-s3cret@127.0.0.1:{proxy.port}")

        if scheme == "http":
            assert ask(transport, "http://reg.example/v2/").status_code == 407
            return
        with pytest.raises(Unreachable, match="the proxy answers 407") as caught:
            ask(transport, "https://reg.example/v2/")

    assert "HTTPS_PROXY" in caught.value.remedy
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("status", [403, 502])
def test_a_proxy_that_refuses_is_one_line(transport: Transport, through: Set, status: int) -> None:
    with Proxy(refuses=status) as proxy:
        through(proxy.url)

        with pytest.raises(Unreachable, match=f"the proxy answers {status}") as caught:
            ask(transport, "https://reg.example/v2/")

    assert str(caught.value).isprintable()
    assert not caught.value.answered_before


@pytest.mark.parametrize(
    ("proxy", "kind"),
    [
        ("http://user:s3cret@127.0.0.1:1", Unreachable),
        ("http://user:s3cret@[bad", ConcilError),
        ("http://user:s3cret@", UsageError),
        ("http://user:s3cret@host:99999", ConcilError),
        ("http://user:s3cret@host:port", ConcilError),
        ("socks5://user:s3cret@127.0.0.1:1", UsageError),
        ("ftp://user:s3cret@127.0.0.1:1", ConcilError),
        ("//", ConcilError),
        ("http://user:s3cret@xn--\u00fc\u00fc..example:1", ConcilError),
    ],
)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_cannot_be_used_is_one_line_without_its_password(
    transport: Transport, through: Set, proxy: str, scheme: str, kind: type[ConcilError]
) -> None:
    through(proxy)

    with pytest.raises(kind) as caught:
        ask(transport, f"{scheme}://reg.example/v2/")

    assert "s3cret" not in str(caught.value) + caught.value.remedy
    assert "\n" not in str(caught.value)
