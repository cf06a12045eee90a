"""The ways to ask for a token: identity tokens by a form, passwords by GET, fall-backs."""

from __future__ import annotations

import json
import logging
import math
import threading
import time
import traceback
import urllib.parse
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from concil.auth.credentials.credentials import Credentials
from concil.auth.token_service import Token, TokenRequest, TokenService, parse_token
from concil.config import Timeouts
from concil.errors import (
    AccessDenied,
    ConcilError,
    ConnectionLost,
    ProtocolViolation,
    RegistryDenied,
    StatusError,
)
from concil.http.redirects import MAX_REDIRECTS
from concil.http.requests_session import create_session
from concil.http.transport import Transport
from tests.support.quick_retries import UNTIMED
from tests.support.scripted_server import (
    Elsewhere,
    ReceivedRequest,
    ScriptedResponse,
    ScriptedServer,
    reply,
)
from tests.support.token_protected_registry import basic

HOME = "https://reg.example"
REALM = TokenRequest(
    "https://auth.example/token", "reg", ("repository:a:pull,push", "repository:b:pull"), HOME
)
ALICE = Credentials("alice", "s3cr3t")
LOGIN = Credentials("<token>", "", identity_token="id3ntity")
Fetch = Callable[[Credentials | None], Token]


@pytest.fixture
def service(server: ScriptedServer) -> Iterator[TokenService]:
    with create_session() as session:
        session.mount("https://", Elsewhere(server))
        timeouts = Timeouts(connect=5, idle=10)
        yield TokenService(Transport(session, timeouts=timeouts))


@pytest.fixture
def fetch(service: TokenService) -> Fetch:
    return lambda credentials: service.fetch_token(REALM, credentials)


def given_token(name: str = "t", **more: object) -> ScriptedResponse:
    return reply(200, json.dumps({"token": name, **more}))


def form(seen: ReceivedRequest) -> dict[str, list[str]]:
    return urllib.parse.parse_qs(seen.body.decode())


def ways(server: ScriptedServer) -> list[str]:
    """Return how the service was asked, in order."""
    return [seen.method for seen in server.requests]


# Identity tokens ---------------------------------------------------------------------------


def test_an_identity_token_goes_into_a_form(server: ScriptedServer, fetch: Fetch) -> None:
    server.respond("POST", "/token", given_token())

    assert fetch(LOGIN).header == "Bearer t"

    [seen] = server.requests
    assert form(seen) == {
        "grant_type": ["refresh_token"],
        "refresh_token": ["id3ntity"],
        "client_id": ["concil"],
        "service": ["reg"],
        "scope": ["repository:a:pull,push repository:b:pull"],
    }
    assert seen.headers["content-type"] == "application/x-www-form-urlencoded"
    assert "authorization" not in seen.headers
    assert "id3ntity" not in seen.path


@pytest.mark.parametrize("status", [400, 401, 404, 405])
def test_a_service_without_forms_is_asked_by_get(
    server: ScriptedServer, fetch: Fetch, status: int
) -> None:
    server.respond("POST", "/token", reply(status))
    server.respond("GET", r"/token\?.*", given_token())

    assert [fetch(LOGIN).header for _ in range(2)] == ["Bearer t"] * 2

    assert ways(server) == ["POST", "GET", "GET"]  # it is known from then on
    assert server.requests[1].headers["authorization"] == basic("", "id3ntity")


def test_the_user_of_an_identity_token_goes_along_by_get(
    server: ScriptedServer, fetch: Fetch
) -> None:
    server.respond("POST", "/token", reply(404))
    server.respond("GET", r"/token\?.*", given_token())

    fetch(Credentials("alice", "", identity_token="id3ntity"))
    fetch(Credentials("alice", "s3cr3t", identity_token="id3ntity"))

    sent = [seen.headers["authorization"] for seen in server.matching_requests("GET")]
    assert sent == [basic("alice", "id3ntity"), basic("alice", "s3cr3t")]


@pytest.mark.parametrize("status", [400, 401])
def test_an_identity_token_that_has_expired_is_a_denial(
    server: ScriptedServer, fetch: Fetch, status: int
) -> None:
    server.respond("POST", "/token", reply(status, '{"error": "invalid_grant"}'))

    with pytest.raises(RegistryDenied, match="identity token") as caught:
        fetch(LOGIN)

    assert "id3ntity" not in f"{caught.value!r} {caught.value}"
    assert ways(server) == ["POST"]


def test_trouble_with_a_form_is_no_reason_for_another_way(
    server: ScriptedServer, fetch: Fetch
) -> None:
    server.respond("POST", "/token", reply(503))

    with pytest.raises(StatusError, match="503"):
        fetch(LOGIN)

    assert ways(server) == ["POST"]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("target", ["https://other.example/token", "/moved"])
def test_a_form_is_never_sent_on(
    server: ScriptedServer, fetch: Fetch, status: int, target: str
) -> None:
    server.respond("POST", "/token", reply(status, Location=target))
    server.respond("GET", r"/token\?.*", reply(401))

    with pytest.raises(RegistryDenied):
        fetch(LOGIN)

    assert ways(server) == ["POST", "GET"]
    assert {seen.headers["host"] for seen in server.requests} == {"auth.example"}


def test_a_refresh_token_in_an_answer_is_used_from_then_on(
    server: ScriptedServer, fetch: Fetch
) -> None:
    server.respond("POST", "/token", given_token(), given_token())
    server.respond("GET", r"/token\?.*", given_token(refresh_token="r3fresh"))

    for _ in range(3):
        fetch(ALICE)

    assert ways(server) == ["GET", "POST", "POST"]
    assert form(server.requests[1])["refresh_token"] == ["r3fresh"]


def test_an_identity_token_that_is_replaced_is_not_used_again(
    server: ScriptedServer, fetch: Fetch
) -> None:
    server.respond("POST", "/token", given_token(refresh_token="second"), given_token())

    for _ in range(3):
        fetch(LOGIN)

    sent = [form(seen)["refresh_token"][0] for seen in server.requests]
    assert sent == ["id3ntity", "second", "second"]


def test_a_refresh_token_that_is_refused_is_forgotten(server: ScriptedServer, fetch: Fetch) -> None:
    server.respond("POST", "/token", reply(400, '{"error": "invalid_grant"}'))
    server.respond("GET", r"/token\?.*", given_token(refresh_token="r3fresh"), given_token())

    for _ in range(3):
        fetch(ALICE)

    assert ways(server) == ["GET", "POST", "GET", "GET"]


def test_no_refresh_token_is_asked_for(server: ScriptedServer, fetch: Fetch) -> None:
    server.respond("POST", "/token", given_token())
    server.respond("GET", r"/token\?.*", given_token())

    fetch(LOGIN)
    fetch(ALICE)

    wire = " ".join(seen.path + seen.body.decode() for seen in server.requests)
    assert "offline" not in wire


# Passwords ---------------------------------------------------------------------------------


def test_a_password_goes_by_get_and_the_scopes_each_for_itself(
    server: ScriptedServer, fetch: Fetch
) -> None:
    server.respond("GET", r"/token\?.*", given_token())

    fetch(ALICE)

    [seen] = server.requests
    assert seen.query == {"service": ["reg"], "scope": list(REALM.scopes)}
    assert seen.headers["authorization"] == basic("alice", "s3cr3t")


@pytest.mark.parametrize("status", [404, 405])
def test_a_password_goes_into_a_form_where_get_is_not_known(
    server: ScriptedServer, fetch: Fetch, status: int
) -> None:
    server.respond("GET", r"/token\?.*", reply(status))
    server.respond("POST", "/token", given_token())

    fetch(ALICE)
    fetch(ALICE)

    assert ways(server) == ["GET", "POST", "POST"]
    sent = form(server.requests[1])
    assert (sent["grant_type"], sent["username"]) == (["password"], ["alice"])
    assert sent["password"] == ["s3cr3t"]


@pytest.mark.parametrize("status", [400, 401, 403])
def test_a_password_that_is_refused_is_not_tried_in_another_way(
    server: ScriptedServer, fetch: Fetch, status: int
) -> None:
    server.respond("GET", r"/token\?.*", reply(status))

    with pytest.raises(StatusError, match="as user 'alice'") as caught:
        fetch(ALICE)

    assert "s3cr3t" not in str(caught.value)
    assert ways(server) == ["GET"]


def test_nobody_is_asked_for_by_a_form(server: ScriptedServer, fetch: Fetch) -> None:
    with pytest.raises(StatusError, match="404"):
        fetch(None)

    assert ways(server) == ["GET"]


def test_no_secret_is_logged_or_told(
    server: ScriptedServer, fetch: Fetch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server.respond(
        "POST", "/token", reply(405), reply(400, '{"error": "invalid_grant"}'), reply(401)
    )
    server.respond("GET", r"/token\?.*", given_token("t0ken", refresh_token="r3fresh"), reply(405))
    both = Credentials("alice", "s3cr3t", identity_token="id3ntity")

    fetch(both)
    with pytest.raises(ConcilError) as caught:
        fetch(both)

    assert len(server.matching_requests("POST")) == 3
    told = "".join([caplog.text, *traceback.format_exception(caught.value), repr(both)])
    for secret in ("s3cr3t", "id3ntity", "t0ken", "r3fresh", both.basic_header()):
        assert secret not in told


# Redirects ---------------------------------------------------------------------------------


def test_a_redirect_at_home_keeps_the_password(server: ScriptedServer, fetch: Fetch) -> None:
    server.respond("GET", r"/token\?.*", reply(307, Location="/moved?a=b"))
    server.respond("GET", r"/moved\?a=b", given_token())

    fetch(ALICE)

    assert server.requests[1].headers["authorization"] == basic("alice", "s3cr3t")


def test_the_password_does_not_come_back_on_the_way_back(
    server: ScriptedServer, fetch: Fetch
) -> None:
    server.respond("GET", r"/token\?.*", reply(302, Location="https://other.example/there"))
    server.respond("GET", "/there", reply(302, Location="https://auth.example/back"))
    server.respond("GET", "/back", given_token())

    fetch(ALICE)

    sent = ["authorization" in seen.headers for seen in server.requests]
    assert sent == [True, False, False]


@pytest.mark.parametrize(
    "target",
    [
        "http://other.example/token",
        "https://127.0.0.1/token",
        "https://0x7f.1/token",
        "https://169.254.169.254/latest/meta-data",
        "https://localhost./token",
        "https://[::ffff:10.0.0.1]/token",
        "ftp://auth.example/token",
        "https://[bad",
    ],
)
def test_a_redirect_is_judged_like_a_realm(
    server: ScriptedServer, fetch: Fetch, target: str
) -> None:
    server.respond("GET", r"/token\?.*", reply(307, Location=target))

    with pytest.raises(ProtocolViolation):
        fetch(None)

    assert len(server.requests) == 1


def test_redirects_end(server: ScriptedServer, fetch: Fetch) -> None:
    server.respond("GET", r"/token\?.*", reply(307, Location="/token?round"))

    with pytest.raises(ProtocolViolation, match=f"more than {MAX_REDIRECTS} redirects"):
        fetch(ALICE)

    assert len(server.requests) == 9


# Answers -----------------------------------------------------------------------------------


def test_an_answer_that_trickles_is_not_waited_for(
    server: ScriptedServer, service: TokenService
) -> None:
    service._transport.timeouts = Timeouts(idle=0.5)
    server.respond("GET", r"/token\?.*", ScriptedResponse(200, b"x" * 60_000))
    clock = iter(range(0, 10_000, 5))

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(time, "monotonic", lambda: float(next(clock)))
        with pytest.raises(ConnectionLost, match="too long"):
            service.fetch_token(REALM, None)


def test_a_service_that_says_nothing_is_not_waited_for(
    server: ScriptedServer, service: TokenService
) -> None:
    service._transport.timeouts = Timeouts(idle=0.2)
    never = threading.Event()
    server.respond("GET", r"/token\?.*", ScriptedResponse(hold=never))

    try:
        with pytest.raises(ConnectionLost, match="within the timeout"):
            service.fetch_token(REALM, ALICE)
    finally:
        never.set()


@pytest.mark.parametrize("length", [None, -1])
def test_an_endless_answer_is_not_read(
    server: ScriptedServer, fetch: Fetch, length: int | None
) -> None:
    server.respond(
        "GET", r"/token\?.*", ScriptedResponse(200, b"{" + b" " * 5_000_000, length=length)
    )

    with pytest.raises(ProtocolViolation, match="larger than 65536 bytes"):
        fetch(ALICE)


@pytest.mark.parametrize("body", [b"<html>sign in</html>", b"", b"{}", b"[]", b"\xff"])
def test_who_gets_no_token_is_not_authorised(
    server: ScriptedServer, fetch: Fetch, body: bytes
) -> None:
    server.respond("GET", r"/token\?.*", ScriptedResponse(200, body))

    with pytest.raises(AccessDenied) as caught:
        fetch(ALICE)

    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("told", "lifetime"),
    [
        ("2", 2.0),
        ("0.5", 0.5),
        ("3600", 3600.0),
        ("1e400", 86400.0),
        ("1" + "0" * 400, 86400.0),
        ("Infinity", 86400.0),
        ("NaN", 60.0),
        ("-Infinity", 60.0),
        ("-1", 60.0),
        ("0", 60.0),
        ("null", 60.0),
        ("true", 60.0),
        ('"300"', 60.0),
        ("[]", 60.0),
    ],
)
def test_a_token_lives_as_long_as_it_is_told(told: str, lifetime: float) -> None:
    token = parse_token(f'{{"token": "t", "expires_in": {told}}}'.encode(), "token", 5.0)

    assert (token.lifetime, token.request_time) == (lifetime, 5.0)


@pytest.mark.parametrize(
    "issued", ["2016-01-01T00:00:00Z", "2036-01-01T00:00:00Z", "nonsense", 0, None]
)
def test_the_services_clock_is_not_looked_at(issued: object) -> None:
    body = json.dumps({"token": "t", "expires_in": 300, "issued_at": issued}).encode()

    token = parse_token(body, "token", time.monotonic())

    assert not token.needs_refresh


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=8,
)
NAMES = st.sampled_from(["token", "access_token", "expires_in", "refresh_token", "issued_at"])


@UNTIMED
@given(st.dictionaries(NAMES, JSON).map(lambda told: json.dumps(told).encode()) | st.binary())
def test_no_answer_raises_anything_but_ours(body: bytes) -> None:
    try:
        token = parse_token(body, "token", 0.0)
    except ConcilError:
        return

    assert token.header.isprintable()
    assert 0 < token.lifetime < math.inf


@pytest.mark.parametrize(
    "body",
    [
        b'{"Token": "t", "Expires_In": 90}',
        b'{"access_token": "t", "expires_in": 90}\n{"token": "other"}',
        b'{"ACCESS_TOKEN": "t", "expires_in": 90} and more \xff',
    ],
)
def test_an_answer_is_read_as_other_clients_read_it(body: bytes) -> None:
    token = parse_token(body, "service", 0)

    assert (token.header, token.lifetime) == ("Bearer t", 90)
