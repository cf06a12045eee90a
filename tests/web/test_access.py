"""Who may read and change what: with and without a token, and from pages of other sites."""

from __future__ import annotations

import select
import socket
import time
from contextlib import ExitStack, closing
from urllib.parse import urlsplit

import pytest
import requests

from concil.web import endpoints
from concil.web.access_policy import AccessPolicy
from tests.web.conftest import Client, Serve
from tests.web.live_setup import TIMEOUT, TOKEN, LiveSetup, follow

READABLE = ("/api/status", "/metrics", "/api/events", "/api/live", "/other")
WRONG = "a-token-of-20-bytes?"


def cookie_of(answer: requests.Response) -> str:
    """The cookie that an answer sets, as a browser sends it back."""
    return answer.headers["Set-Cookie"].partition(";")[0]


def connect(url: str) -> socket.socket:
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname, parts.port), timeout=TIMEOUT)


@pytest.fixture
def ask_guarded(serve: Serve) -> Client:
    return Client(serve(token=TOKEN, metrics=lambda: b"# EOF\n").url)


@pytest.mark.parametrize("path", READABLE)
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": f"Bearer {WRONG}"},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": "Bearer "},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": TOKEN},
        {"Cookie": f"concil={TOKEN}"},
    ],
)
def test_nothing_is_read_without_the_token(
    ask_guarded: Client, path: str, headers: dict[str, str]
) -> None:
    answer = ask_guarded(path, headers=headers)

    assert (answer.status_code, answer.headers["WWW-Authenticate"][:6]) == (401, "Bearer")
    assert "registry.example" not in answer.text


def test_a_cookie_with_the_token_itself_is_no_login(ask_guarded: Client) -> None:
    name = cookie_of(ask_guarded(f"/?token={TOKEN}")).partition("=")[0]

    assert ask_guarded("/api/status", headers={"Cookie": f"{name}={TOKEN}"}).status_code == 401
    assert ask_guarded("/api/status", headers={"Cookie": f"{name}="}).status_code == 401


def test_the_token_in_the_header_opens_everything(ask_guarded: Client) -> None:
    headers = {"Authorization": f"bearer {TOKEN}"}

    assert ask_guarded("/", headers=headers).status_code == 200
    assert ask_guarded("/api/status", headers=headers).status_code == 200
    assert ask_guarded("/metrics", headers=headers).status_code == 200
    for path in ("/api/events", "/api/live"):
        with follow(ask_guarded.url, path, headers) as reader:
            assert reader.response.status == 200


def test_probes_need_no_token(ask_guarded: Client) -> None:
    assert [ask_guarded(path).text for path in ("/healthz", "/readyz")] == ["ok\n", "ok\n"]


def test_the_token_of_an_address_becomes_a_cookie_and_leaves_the_address(
    ask_guarded: Client,
) -> None:
    answer = ask_guarded(f"/?token={TOKEN}")

    assert (answer.status_code, answer.headers["Location"]) == (303, "./")
    attributes = answer.headers["Set-Cookie"]
    assert "HttpOnly; SameSite=Lax" in attributes
    assert TOKEN not in attributes
    cookie = {"Cookie": f"other=1; {cookie_of(answer)}"}
    assert ask_guarded("/api/status", headers=cookie).status_code == 200
    assert "Timeline" in ask_guarded("/", headers=cookie).text


def test_the_form_of_the_page_logs_in(ask_guarded: Client) -> None:
    form = ask_guarded("/")
    assert form.status_code == 401
    assert '<form id="login" method="post" action="login">' in form.text
    assert "Timeline" not in form.text

    rejected = ask_guarded("/login", "POST", data={"token": WRONG})
    assert rejected.status_code == 401
    assert "This is not the token" in rejected.text
    assert "Set-Cookie" not in rejected.headers
    accepted = ask_guarded("/login", "POST", data={"token": f" {TOKEN} "})
    assert accepted.status_code == 303
    cookie = {"Cookie": cookie_of(accepted)}
    assert ask_guarded("/api/status", headers=cookie).status_code == 200


def test_a_login_without_a_token_leads_to_the_page(ask: Client) -> None:
    for answer in (ask("/?token=x"), ask("/login"), ask("/login", "POST", data={"token": "x"})):
        assert (answer.status_code, answer.headers["Location"]) == (303, "./")
        assert "Set-Cookie" not in answer.headers


@pytest.mark.parametrize("token", [WRONG, "", TOKEN[:-1], "\u00e4" * 20, "x" * 3000])
def test_a_wrong_token_is_no_login(ask_guarded: Client, token: str) -> None:
    answer = ask_guarded("/", params={"token": token})

    assert answer.status_code == 401
    assert "Set-Cookie" not in answer.headers


def test_a_form_that_is_too_large_is_refused(ask_guarded: Client) -> None:
    assert ask_guarded("/login", "POST", data={"token": "x" * 10_000}).status_code == 413


def test_slow_logins_leave_room_for_probes(serve: Serve) -> None:
    """They held every connection while they sent their form, and a probe had to wait for them."""
    url = serve(token=TOKEN).url
    head = b"POST /login HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\ntoken="
    with ExitStack() as stack:
        poll = select.poll()
        slow = {}
        for _ in range(endpoints.MAX_FORMS + 3):
            sock = stack.enter_context(closing(connect(url)))
            sock.sendall(head)
            poll.register(sock, select.POLLIN)
            slow[sock.fileno()] = sock
        refused: set[int] = set()
        while len(refused) < 3:
            ready = poll.poll(TIMEOUT * 1000)
            assert ready, "a login that is one too many gets no answer"
            for descriptor, _ in ready:
                assert slow[descriptor].recv(1000).startswith(b"HTTP/1.1 503 ")
                poll.unregister(descriptor)
                refused.add(descriptor)
        assert not poll.poll(0)
        assert Client(url)("/healthz").status_code == 200
        assert Client(url)("/login", "POST", data={"token": TOKEN}).status_code == 503

    end = time.monotonic() + TIMEOUT
    while (answer := Client(url)("/login", "POST", data={"token": TOKEN})).status_code == 503:
        assert time.monotonic() < end
    assert answer.status_code == 303


def test_two_services_of_a_host_have_different_cookies() -> None:
    one, two = AccessPolicy(TOKEN, 8080), AccessPolicy(TOKEN, 8081)

    assert one.cookie_name != two.cookie_name
    assert one.set_cookie_header() != AccessPolicy(f"{TOKEN}x", 8080).set_cookie_header()


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:80",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "",
        "0",
    ],
)
@pytest.mark.parametrize("path", ["/", "/api/status", "/api/live", "/api/events", "/metrics", "/x"])
def test_a_page_of_another_site_cannot_reach_it_under_its_own_name(
    ask: Client, host: str, path: str
) -> None:
    answer = ask(path, headers={"Host": host})

    assert answer.status_code == 421
    assert "localhost" in answer.text


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:9000", "127.0.0.1", "[::1]:8080", "LOCALHOST", "127.9.9.9:1"]
)
def test_this_machine_has_several_names(ask: Client, host: str) -> None:
    assert ask("/api/status", headers={"Host": host}).status_code == 200


def test_with_a_token_any_name_will_do(ask_guarded: Client) -> None:
    headers = {"Host": "mirror.example.org", "Authorization": f"Bearer {TOKEN}"}

    assert ask_guarded("/api/status", headers=headers).status_code == 200


def test_no_run_begins_without_a_token(ask: Client, setup: LiveSetup) -> None:
    own = {"Origin": ask.url.rstrip("/"), "Sec-Fetch-Site": "same-origin"}

    assert ask("/api/run", "POST").status_code == 403
    assert "started without one" in ask("/api/run", "POST", headers=own).text
    assert setup.requested_runs == 0


def test_the_token_lets_a_run_begin(ask_guarded: Client, setup: LiveSetup) -> None:
    bearer = {"Authorization": f"Bearer {TOKEN}"}

    assert ask_guarded("/api/run", "POST").status_code == 401
    assert ask_guarded("/api/run", headers=bearer).status_code == 405
    assert setup.requested_runs == 0
    assert ask_guarded("/api/run", "POST", headers=bearer, data="{}").status_code == 202
    assert setup.requested_runs == 1
    setup.begin()
    assert ask_guarded("/api/run", "POST", headers=bearer).status_code == 409
    setup.live.request_run = None
    assert "runs once" in ask_guarded("/api/run", "POST", headers=bearer).text


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "{own}", "Sec-Fetch-Site": "same-origin"}, 202),
        ({"Origin": "{own}"}, 202),
        ({}, 403),
        ({"Host": ""}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "{own}.evil.example"}, 403),
        ({"Origin": "{own}", "Sec-Fetch-Site": "cross-site"}, 403),
        ({"Origin": "{own}", "Sec-Fetch-Site": "same-site"}, 403),
    ],
)
def test_a_cookie_counts_for_the_page_itself_only(
    ask_guarded: Client, setup: LiveSetup, headers: dict[str, str], status: int
) -> None:
    own = ask_guarded.url.rstrip("/")
    cookie = cookie_of(ask_guarded(f"/?token={TOKEN}"))
    sent = {name: value.replace("{own}", own) for name, value in headers.items()}

    assert ask_guarded("/api/run", "POST", headers={"Cookie": cookie, **sent}).status_code == status
    assert setup.requested_runs == (status == 202)


def test_the_token_is_in_no_log(ask_guarded: Client, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "concil")
    ask_guarded(f"/?token={TOKEN}")
    ask_guarded("/login", "POST", data={"token": TOKEN})
    ask_guarded(f"/{urlsplit(ask_guarded.url).path}api/status?token={TOKEN}")

    assert "GET / 303" in caplog.text
    assert TOKEN not in caplog.text
