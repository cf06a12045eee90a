"""Proxies: a real one on loopback, and what must not get past it."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import requests

from concil.errors import ConcilError, RegistryError, Unreachable, UsageError
from concil.http.proxies import find_proxy, is_exempt
from concil.http.requests_session import TLSSettings, create_session
from concil.http.transport import Transport
from concil.registry.endpoint import Call, Endpoint
from tests.support.proxy import Proxy
from tests.support.scripted_server import ScriptedServer, reply
from tests.support.tls import CertificateAuthority

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
    server: ScriptedServer, transport: Transport, through: Set
) -> None:
    server.respond("GET", "/v2/", reply(200, b"content"))
    with Proxy(password=PASSWORD) as proxy:
        through(proxy.url)

        answer = ask(transport, f"http://reg.example:{server.port}/v2/")

    assert answer.content == b"content"
    [passed] = proxy.requests
    [seen] = server.requests
    assert passed.headers["proxy-authorization"].startswith("Basic ")
    assert "proxy-authorization" not in seen.headers
    assert seen.headers["authorization"] == "Bearer secret"


def test_tls_goes_through_the_proxy_by_connect(ca: CertificateAuthority, through: Set) -> None:
    issued = ca.issue("reg.example")
    with (
        Proxy(password=PASSWORD) as proxy,
        ScriptedServer(context=issued.server_context()) as server,
        create_session(TLSSettings(str(ca.path))) as session,
    ):
        through(proxy.url)
        server.respond("GET", "/v2/", reply(200, b"content"))

        answer = ask(Transport(session), f"https://reg.example:{server.port}/v2/")

    assert answer.content == b"content"
    [passed] = proxy.requests
    [seen] = server.requests
    assert (passed.method, passed.target) == ("CONNECT", f"reg.example:{server.port}")
    assert "proxy-authorization" in passed.headers
    assert "authorization" not in passed.headers
    assert "proxy-authorization" not in seen.headers


def test_the_password_of_the_proxy_follows_no_redirect_past_it(
    server: ScriptedServer,
    storage: ScriptedServer,
    transport: Transport,
    through: Set,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server.respond("GET", "/a", reply(307, Location=f"http://localhost:{storage.port}/b"))
    storage.respond("GET", "/b", reply(200, b"content"))
    with Proxy(password=PASSWORD) as proxy:
        through(proxy.url)
        monkeypatch.setenv("no_proxy", "localhost")

        ask(transport, f"{server.url}/a")

    assert len(proxy.requests) == 1
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
        with pytest.raises(RegistryError, match="407") as caught:
            Endpoint(transport, f"{scheme}://reg.example").send(Call("GET", "/v2/"))

    assert f"{scheme}_proxy=http://user:password@host:port" in caught.value.remedy
    assert "s3cret" not in str(caught.value) + caught.value.remedy


@pytest.mark.parametrize("status", [403, 502])
def test_a_proxy_that_refuses_is_one_line(transport: Transport, through: Set, status: int) -> None:
    with Proxy(connect_status=status) as proxy:
        through(proxy.url)

        with pytest.raises(Unreachable, match=f"the proxy responds with {status}") as caught:
            ask(transport, "https://reg.example/v2/")

    assert str(caught.value).isprintable()
    assert not caught.value.has_answered_before


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


def test_the_password_of_a_proxy_is_known_before_any_thread_uses_it(
    server: ScriptedServer, transport: Transport, through: Set, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise an error of that thread could show it."""
    registered = []
    url = f"http://reg.example:{server.port}/v2/"

    def register(proxy: str) -> None:
        registered.append(proxy)
        if len(registered) == 1:  # another thread sends a request at this moment
            thread = threading.Thread(target=ask, args=(transport, url))
            thread.start()
            thread.join()

    monkeypatch.setattr("concil.http.transport.register_user", register)
    server.respond("GET", "/v2/", reply(200, b"content"), reply(200, b"content"))
    with Proxy(password=PASSWORD) as proxy:
        through(proxy.url)

        ask(transport, url)

        assert registered == [proxy.url, proxy.url]


# Which variable, and which hosts -----------------------------------------------------------

VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Set the variables of proxies, and none but these."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.delenv("REQUEST_METHOD", raising=False)

    def set_all(**variables: str) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return set_all


@pytest.mark.parametrize(
    "exemptions",
    [
        "{host}",
        "{host}:{port}",
        "other.example, {host}:{port}",
        "other.example:80,{host}:{port},third:1",
        "  {host}:{port}  ",
        "other.example {host}:{port}",
        "127.0.0.0/8",
        "127.0.0.1/32",
        "*",
        "*:{port}",
        "a.example,*",
    ],
)
@pytest.mark.parametrize("name", ["no_proxy", "NO_PROXY"])
def test_a_host_that_is_exempt_is_asked_directly(
    server: ScriptedServer,
    transport: Transport,
    environment: Callable[..., None],
    exemptions: str,
    name: str,
) -> None:
    """Requests takes no port behind an address."""
    server.respond("GET", "/v2/", reply(200, b"content"))
    environment(
        http_proxy="http://127.0.0.1:1",
        **{name: exemptions.format(host="127.0.0.1", port=server.port)},
    )

    assert ask(transport, f"{server.url}/v2/").content == b"content"
    assert not transport.is_proxied(f"{server.url}/v2/")


@pytest.mark.parametrize(
    ("exemptions", "url", "exempt"),
    [
        ("10.0.0.1:5000", "http://10.0.0.1:5000/v2/", True),
        ("10.0.0.1:5000", "http://10.0.0.1:5001/v2/", False),
        ("10.0.0.1:5000", "http://10.0.0.12:5000/v2/", False),
        ("10.0.0.1:80", "http://10.0.0.1/v2/", True),
        ("10.0.0.1:443", "https://10.0.0.1/v2/", True),
        ("10.0.0.0/24", "https://10.0.0.77:1/v2/", True),
        ("10.0.0.0/24", "https://10.0.1.77/v2/", False),
        ("10.0.0.0/24", "https://ten.example/v2/", False),
        ("[::1]:5000", "http://[::1]:5000/v2/", True),
        ("[::1]:5000", "http://[::1]:5001/v2/", False),
        ("[::1]", "http://[::1]:5001/v2/", True),
        ("::1", "http://[::1]:5001/v2/", True),
        ("fd00::/8", "https://[fd12::5]:7/v2/", True),
        ("0:0::1", "http://[::1]/v2/", True),
        ("10.0.0.1", "https://[fd12::5]:7/v2/", False),
        ("reg.example", "https://reg.example/v2/", True),
        ("REG.Example", "https://reg.EXAMPLE/v2/", True),
        ("reg.example", "https://a.reg.example:5/v2/", True),
        (".example", "https://reg.example/v2/", True),
        (".reg.example", "https://reg.example/v2/", True),
        ("*.example", "https://reg.example/v2/", True),
        ("reg.example.", "https://reg.example/v2/", True),
        ("reg.example", "https://reg.example./v2/", True),
        ("reg.example", "https://otherreg.example/v2/", False),
        ("reg.example:443", "https://reg.example/v2/", True),
        ("reg.example:5000", "https://a.reg.example:5000/v2/", True),
        ("reg.example:5000", "https://reg.example/v2/", False),
        ("localhost:5000", "http://localhost:5000/v2/", True),
        ("*", "https://reg.example/v2/", True),
        ("", "https://reg.example/v2/", False),
        (",, ,", "https://reg.example/v2/", False),
        (".", "https://reg.example/v2/", False),
        (":5000", "https://reg.example:5000/v2/", False),
        ("reg.example:port", "https://reg.example/v2/", False),
        ("[::1", "http://[::1]/v2/", False),
        ("10.0.0.0/99", "http://10.0.0.0/v2/", False),
    ],
)
def test_which_hosts_a_list_of_exemptions_has(exemptions: str, url: str, exempt: bool) -> None:
    assert is_exempt(url, exemptions) is exempt


@pytest.mark.parametrize(
    ("variables", "url", "setting"),
    [
        ({"http_proxy": "http://one:1"}, "http://reg.example/", "http_proxy"),
        ({"HTTP_PROXY": "http://one:1"}, "http://reg.example/", "HTTP_PROXY"),
        (
            {"HTTP_PROXY": "http://two:2", "http_proxy": "http://one:1"},
            "http://reg.example/",
            "http_proxy",
        ),
        ({"HTTPS_PROXY": "http://one:1"}, "https://reg.example/", "HTTPS_PROXY"),
        ({"HTTPS_PROXY": "http://one:1"}, "http://reg.example/", None),
        ({"ALL_PROXY": "http://one:1"}, "http://reg.example/", "ALL_PROXY"),
        (
            {"ALL_PROXY": "http://two:2", "https_proxy": "http://one:1"},
            "https://reg.example/",
            "https_proxy",
        ),
        (
            {"http_proxy": "http://one:1", "no_proxy": "else", "NO_PROXY": "reg.example"},
            "http://reg.example/",
            "http_proxy",
        ),
        (
            {"http_proxy": "http://one:1", "no_proxy": "reg.example", "NO_PROXY": "else"},
            "http://reg.example/",
            None,
        ),
        ({}, "http://reg.example/", None),
    ],
)
def test_the_variable_that_names_a_proxy(
    environment: Callable[..., None], variables: dict[str, str], url: str, setting: str | None
) -> None:
    environment(**variables)

    found = find_proxy(url)

    assert (found and found.setting) == setting
    if found is not None:
        assert found.url == "http://one:1"


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"])
def test_a_proxy_that_is_not_there_is_named_by_its_variable(
    transport: Transport, environment: Callable[..., None], name: str
) -> None:
    scheme = "https" if name.startswith("https") else "http"
    environment(**{name: "http://user:s3cret@127.0.0.1:1"})

    with pytest.raises(Unreachable, match="the proxy cannot be reached") as caught:
        ask(transport, f"{scheme}://reg.example/v2/")

    assert caught.value.remedy == f"check {name}, or name the host in NO_PROXY"
    assert "s3cret" not in str(caught.value)


def test_a_proxy_of_the_session_is_no_variable(transport: Transport) -> None:
    transport.session.proxies = {"http": "http://user:s3cret@127.0.0.1:1"}

    with pytest.raises(Unreachable) as caught:
        ask(transport, "http://reg.example/v2/")

    assert "the proxies of the session" in caught.value.remedy


@pytest.mark.parametrize("status", [502, 503, 504])
def test_an_answer_that_may_be_the_proxys_names_the_variable(
    server: ScriptedServer, transport: Transport, environment: Callable[..., None], status: int
) -> None:
    server.respond("GET", "http://reg.example/v2/", reply(status))
    environment(HTTP_PROXY=f"http://user:s3cret@{server.host}")

    with pytest.raises(RegistryError, match=str(status)) as caught:
        Endpoint(transport, "http://reg.example").send(Call("GET", "/v2/"))

    assert "HTTP_PROXY" in caught.value.remedy
    assert "s3cret" not in str(caught.value) + caught.value.remedy


def test_an_unusable_proxy_for_other_hosts_does_no_harm(
    server: ScriptedServer, transport: Transport, environment: Callable[..., None]
) -> None:
    """Neither does a list of exemptions that would be no URL."""
    server.respond("GET", "/v2/", reply(200, b"content"))
    environment(https_proxy="http://host:port", no_proxy="a:1,b:2,[c", ftp_proxy="//")

    assert ask(transport, f"{server.url}/v2/").content == b"content"
