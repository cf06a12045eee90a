"""Tokens: who is asked for them, what goes along, when they are renewed, what is refused."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from concil.auth.authenticator import Authenticator
from concil.auth.challenge import Challenge, parse_challenges
from concil.auth.credentials.credentials import CredentialProviders, Credentials
from concil.auth.scope import repository_scope
from concil.auth.token_cache import AuthAttempt
from concil.errors import (
    AccessDenied,
    ConcilError,
    ConnectionLost,
    ProtocolViolation,
    RegistryDenied,
    StatusError,
)
from concil.http.transport import Transport
from concil.registry.endpoint import Call, Endpoint
from tests.support.quick_retries import FAST, UNTIMED
from tests.support.scripted_server import ReceivedRequest, ScriptedResponse, ScriptedServer, reply
from tests.support.token_protected_registry import REALM, REGISTRY, TokenProtectedRegistry, basic

PULL = (repository_scope("team/app", "pull"),)
PUSH = (repository_scope("team/app", "pull", "push"),)
ALICE = Credentials("alice", "s3cr3t")


class Clock:
    """Time that a test can put forward."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ahead = 0.0  # seconds
        real = time.monotonic
        monkeypatch.setattr(time, "monotonic", lambda: real() + self.ahead)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture
def registry(server: ScriptedServer, transport: Transport) -> TokenProtectedRegistry:
    registry = TokenProtectedRegistry(server)
    registry.reach(transport.session)
    return registry


@pytest.fixture
def endpoint(registry: TokenProtectedRegistry, transport: Transport) -> Endpoint:
    return Endpoint(transport, REGISTRY)


def get(endpoint: Endpoint, scopes: tuple[str, ...] = PULL, path: str = "/v2/x") -> bytes:
    with endpoint.send(Call("GET", path, scopes)) as response:
        return response.content


# Getting a token ---------------------------------------------------------------------------


def test_an_anonymous_token_is_fetched_once(
    registry: TokenProtectedRegistry, endpoint: Endpoint
) -> None:
    assert [get(endpoint) for _ in range(3)] == [b"content"] * 3

    [asked] = registry.token_requests
    assert asked.query == {"service": ["reg"], "scope": ["repository:team/app:pull"]}
    assert "authorization" not in asked.headers
    assert registry.refused == 1


def test_user_and_password_go_to_the_token_service_only(
    registry: TokenProtectedRegistry, endpoint: Endpoint
) -> None:
    endpoint.authenticator.credentials = ALICE

    get(endpoint)

    [asked] = registry.token_requests
    assert asked.headers["host"] == "auth.example"
    assert asked.headers["authorization"] == basic("alice", "s3cr3t")
    mine = [s.headers.get("authorization") for s in registry.server.matching_requests(part="/v2/")]
    assert mine == [None, "Bearer t1"]


@pytest.mark.parametrize(
    "grant",
    [
        {"token": "t1"},
        {"access_token": "t1"},
        {"token": "t1", "access_token": "t1", "expires_in": 300, "issued_at": "nonsense"},
        {"token": "", "access_token": "t1"},
        {"token": "t1", "expires_in": "soon"},
        {"token": "t1", "expires_in": True},
        {"token": "t1", "expires_in": -5},
        {"token": "t1", "expires_in": None},
    ],
)
def test_a_token_has_either_name(
    registry: TokenProtectedRegistry, endpoint: Endpoint, grant: dict[str, object]
) -> None:
    registry.grant = lambda _: grant

    assert get(endpoint) == b"content"
    assert get(endpoint) == b"content"
    assert len(registry.token_requests) == 1


def test_pull_and_push_have_a_token_each(
    registry: TokenProtectedRegistry, endpoint: Endpoint
) -> None:
    registry.let_in = lambda seen: "authorization" in seen.headers

    for scopes in (PULL, PUSH, PULL, PUSH):
        get(endpoint, scopes)

    assert [asked.query["scope"] for asked in registry.token_requests] == [list(PULL), list(PUSH)]


@pytest.mark.parametrize(
    ("offered", "scopes", "asked"),
    [
        pytest.param("", PULL, list(PULL), id="zot: empty"),
        pytest.param(
            "repository:team/app:pull,push,delete", PULL, list(PULL), id="the same repository"
        ),
        pytest.param(
            "repository:reg.example/team/app:pull",
            PULL,
            [*PULL, "repository:reg.example/team/app:pull"],
            id="notary: another name, ours first",
        ),
        pytest.param(
            "repository:a:pull registry:b:*",
            (),
            ["repository:a:pull", "registry:b:*"],
            id="nothing of our own",
        ),
        pytest.param("", (), None, id="nothing at all"),
    ],
)
def test_the_scope_is_ours_and_what_else_the_registry_names(
    registry: TokenProtectedRegistry,
    endpoint: Endpoint,
    offered: str,
    scopes: tuple[str, ...],
    asked: list[str] | None,
) -> None:
    registry.challenge += f',scope="{offered}"'

    get(endpoint, scopes)

    assert registry.token_requests[0].query.get("scope") == asked


def test_a_service_that_is_not_named_is_not_asked_for(
    registry: TokenProtectedRegistry, endpoint: Endpoint
) -> None:
    registry.challenge = f'Bearer realm="{REALM}"'

    get(endpoint)

    assert "service" not in registry.token_requests[0].query


def test_the_parameters_of_a_realm_are_kept(
    registry: TokenProtectedRegistry, endpoint: Endpoint
) -> None:
    registry.challenge = f'Bearer realm="{REALM}?account=a%2Bb",service="reg"'

    get(endpoint)

    assert registry.token_requests[0].query["account"] == ["a+b"]
    assert registry.token_requests[0].query["service"] == ["reg"]


def test_sixteen_threads_fetch_one_token(
    registry: TokenProtectedRegistry, endpoint: Endpoint
) -> None:
    everybody = threading.Barrier(16)

    def together(seen: ReceivedRequest) -> bool:
        if "authorization" not in seen.headers:
            everybody.wait(20)  # each of them is refused before one has a token
            return False
        return True

    registry.let_in = together
    with ThreadPoolExecutor(16) as pool:
        contents = list(pool.map(lambda _: get(endpoint), range(16)))

    assert contents == [b"content"] * 16
    assert len(registry.token_requests) == 1


def test_sixteen_threads_renew_one_token(
    registry: TokenProtectedRegistry, endpoint: Endpoint, clock: Clock
) -> None:
    get(endpoint)
    clock.ahead = 59
    start = threading.Barrier(16)

    def one(_: int) -> bytes:
        start.wait(20)
        return get(endpoint)

    with ThreadPoolExecutor(16) as pool:
        contents = list(pool.map(one, range(16)))

    assert contents == [b"content"] * 16
    assert len(registry.token_requests) == 2


# Renewing ----------------------------------------------------------------------------------


def asked_for(registry: TokenProtectedRegistry) -> list[str]:
    return [seen.query["scope"][0].rpartition(":")[2] for seen in registry.token_requests]


def old_tokens_are_good(registry: TokenProtectedRegistry) -> None:
    registry.let_in = lambda seen: "authorization" in seen.headers


def test_where_more_is_in_use_too_one_token_is_renewed_for_both(
    registry: TokenProtectedRegistry, endpoint: Endpoint, clock: Clock
) -> None:
    old_tokens_are_good(registry)
    for scopes in (PULL, PUSH):
        get(endpoint, scopes)
    clock.ahead = 50

    for scopes in (PULL, PUSH, PULL):
        get(endpoint, scopes)

    assert asked_for(registry) == ["pull", "pull,push", "pull,push"]
    sent = [
        seen.headers.get("authorization") for seen in registry.server.matching_requests(part="/v2/")
    ]
    assert sent[-3:] == ["Bearer t3"] * 3


def test_what_is_in_use_no_more_is_not_renewed(
    registry: TokenProtectedRegistry, endpoint: Endpoint, clock: Clock
) -> None:
    old_tokens_are_good(registry)
    for scopes in (PULL, PUSH):
        get(endpoint, scopes)

    for ahead in (50, 100, 150):
        clock.ahead = ahead
        get(endpoint, PULL)

    assert asked_for(registry) == ["pull", "pull,push", "pull,push", "pull", "pull"]


@pytest.mark.parametrize("user", [None, ALICE], ids=["nobody", "alice"])
def test_less_may_be_had_where_more_is_not_any_more(
    registry: TokenProtectedRegistry, endpoint: Endpoint, clock: Clock, user: Credentials | None
) -> None:
    endpoint.authenticator.credentials = user
    old_tokens_are_good(registry)
    for scopes in (PULL, PUSH):
        get(endpoint, scopes)
    clock.ahead = 50
    registry.server.respond("GET", r"/token.*push.*", reply(403))

    assert [get(endpoint, PULL) for _ in range(2)] == [b"content"] * 2

    assert asked_for(registry) == ["pull", "pull,push", "pull,push", "pull"]
    with pytest.raises(RegistryDenied):
        get(endpoint, PUSH)


def test_a_token_for_more_may_be_refused_for_less(
    registry: TokenProtectedRegistry, endpoint: Endpoint, clock: Clock
) -> None:
    old_tokens_are_good(registry)
    for scopes in (PULL, PUSH):
        get(endpoint, scopes)
    clock.ahead = 50
    registry.let_in = lambda seen: seen.headers["authorization"] == "Bearer t4"

    assert get(endpoint, PULL) == b"content"

    assert asked_for(registry) == ["pull", "pull,push", "pull,push", "pull"]


def test_a_token_for_nothing_serves_for_nothing_else(
    registry: TokenProtectedRegistry, endpoint: Endpoint, clock: Clock
) -> None:
    old_tokens_are_good(registry)
    two = (*PUSH, repository_scope("other", "pull"))
    for scopes in ((), two):
        get(endpoint, scopes)
    clock.ahead = 50

    get(endpoint, two)

    assert [seen.query.get("scope") for seen in registry.token_requests] == [
        None,
        list(two),
        list(two),
    ]


def test_another_user_has_no_use_for_it(
    registry: TokenProtectedRegistry, endpoint: Endpoint, clock: Clock
) -> None:
    old_tokens_are_good(registry)
    for scopes in (PULL, PUSH):
        get(endpoint, scopes)
    clock.ahead = 50
    endpoint.authenticator.credentials = ALICE

    get(endpoint, PULL)

    assert asked_for(registry) == ["pull", "pull,push", "pull"]


@pytest.mark.parametrize(("lifetime", "due"), [(None, 48), (300, 240)])
def test_a_token_is_renewed_before_it_expires(
    registry: TokenProtectedRegistry,
    endpoint: Endpoint,
    clock: Clock,
    lifetime: int | None,
    due: float,
) -> None:
    registry.grant = lambda token: {"token": token, "expires_in": lifetime}
    get(endpoint)

    clock.ahead = due - 2
    get(endpoint)
    assert len(registry.token_requests) == 1
    clock.ahead = due
    get(endpoint)

    assert len(registry.token_requests) == 2
    assert registry.refused == 1  # the first request of all


def test_a_token_that_is_refused_is_renewed_once(
    registry: TokenProtectedRegistry, endpoint: Endpoint
) -> None:
    get(endpoint)
    registry.issued += 1  # somebody has revoked ours

    assert get(endpoint) == b"content"
    assert len(registry.token_requests) == 2


def test_a_fresh_token_that_is_refused_is_a_denial(
    registry: TokenProtectedRegistry, endpoint: Endpoint
) -> None:
    registry.let_in = lambda _: False

    with pytest.raises(RegistryDenied, match=r"401 .*UNAUTHORIZED"):
        get(endpoint)

    assert len(registry.token_requests) == 1
    assert registry.refused == 2


def test_with_a_user_too_a_denial_is_no_loop(
    registry: TokenProtectedRegistry, endpoint: Endpoint
) -> None:
    endpoint.authenticator.credentials = ALICE
    registry.let_in = lambda _: False

    with pytest.raises(RegistryDenied):
        endpoint.send_with_retry(Call("GET", "/v2/x", PULL), FAST)

    assert len(registry.token_requests) == 1
    assert registry.refused == 2


@pytest.mark.parametrize("status", [400, 403])
def test_an_aged_token_may_be_refused_in_other_words(
    registry: TokenProtectedRegistry, endpoint: Endpoint, clock: Clock, status: int
) -> None:
    get(endpoint)
    clock.ahead = 40

    def expired(seen: ReceivedRequest) -> ScriptedResponse:
        if seen.headers.get("authorization") == "Bearer t1":
            clock.ahead = 50  # the request took a while
            return reply(status, "Your Authorization Token has expired")
        return reply(200, b"renewed")

    registry.let_in = lambda _: True
    registry.content = expired

    assert get(endpoint) == b"renewed"
    assert len(registry.token_requests) == 2


@pytest.mark.parametrize("status", [400, 403])
def test_with_a_young_token_a_refusal_is_meant(
    registry: TokenProtectedRegistry, endpoint: Endpoint, status: int
) -> None:
    get(endpoint)
    registry.content = lambda _: reply(status, "no")

    with pytest.raises(StatusError):
        get(endpoint)

    assert len(registry.token_requests) == 1


def test_harbor_offers_only_basic_to_a_token_that_has_expired(
    registry: TokenProtectedRegistry, endpoint: Endpoint
) -> None:
    endpoint.authenticator.credentials = ALICE
    get(endpoint)
    bearer = registry.challenge

    def harbor(seen: ReceivedRequest) -> bool:
        registry.challenge = 'Basic realm="harbor"' if "authorization" in seen.headers else bearer
        return seen.headers.get("authorization") == "Bearer t2"

    registry.let_in = harbor

    assert get(endpoint) == b"content"
    sent = {
        seen.headers.get("authorization") for seen in registry.server.matching_requests(part="/v2/")
    }
    assert sent == {None, "Bearer t1", "Bearer t2"}


# Basic -------------------------------------------------------------------------------------


@pytest.mark.parametrize("challenge", ['Basic realm="zot"', "Basic", "Basic realm=openshift"])
def test_basic(registry: TokenProtectedRegistry, endpoint: Endpoint, challenge: str) -> None:
    registry.challenge = challenge
    registry.let_in = lambda seen: seen.headers.get("authorization") == basic("alice", "s3cr3t")
    endpoint.authenticator.credentials = ALICE

    assert [get(endpoint), get(endpoint, PUSH)] == [b"content"] * 2
    assert registry.refused == 1  # it goes along from then on


def test_a_wrong_password_is_tried_once(
    registry: TokenProtectedRegistry, endpoint: Endpoint
) -> None:
    registry.challenge = "Basic"
    endpoint.authenticator.credentials = ALICE

    for scopes in (PULL, PULL, PUSH):
        with pytest.raises(RegistryDenied, match=r"UNAUTHORIZED.*user 'alice'"):
            get(endpoint, scopes)

    asked = registry.server.matching_requests(part="/v2/")
    assert [seen.path for seen in asked if "authorization" in seen.headers] == ["/v2/"]
    assert len(asked) == 2  # nothing is asked any more


@pytest.mark.parametrize("challenge", ["Basic", "Negotiate", "", 'Digest realm="x"'])
def test_who_has_no_credentials_is_told_what_the_registry_said(
    registry: TokenProtectedRegistry, endpoint: Endpoint, challenge: str
) -> None:
    registry.challenge = challenge

    with pytest.raises(RegistryDenied, match=r"401 .*UNAUTHORIZED") as caught:
        get(endpoint)

    assert caught.value.response is not None
    assert "UNAUTHORIZED" in caught.value.response.text
    # Without any challenge the one of /v2/ is looked for.
    assert len(registry.server.matching_requests(part="/v2/x")) == 1


def test_a_token_is_preferred_where_both_are_offered(
    registry: TokenProtectedRegistry, endpoint: Endpoint, server: ScriptedServer
) -> None:
    """Gitea sends two headers."""
    pairs = (("WWW-Authenticate", "Basic"), ("WWW-Authenticate", f'Bearer realm="{REALM}"'))
    server.respond("GET", "/v2/x", ScriptedResponse(401, headers=pairs), reply(200, b"content"))
    endpoint.authenticator.credentials = ALICE

    assert get(endpoint) == b"content"
    assert server.matching_requests(part="/v2/x")[1].headers["authorization"] == "Bearer t1"


# Asking a person ---------------------------------------------------------------------------


class Person:
    """Answers once; counts how often it was asked."""

    def __init__(self, answer: Credentials | None) -> None:
        self.answer = answer
        self.asked = 0

    def __call__(self) -> Credentials | None:
        self.asked += 1
        return self.answer


@pytest.fixture
def person(endpoint: Endpoint, transport: Transport) -> Person:
    person = Person(ALICE)
    endpoint.authenticator = Authenticator(transport, REGISTRY, CredentialProviders(prompt=person))
    return person


def test_nobody_is_asked_where_an_anonymous_token_will_do(
    registry: TokenProtectedRegistry, endpoint: Endpoint, person: Person
) -> None:
    get(endpoint)

    assert person.asked == 0


def test_a_person_is_asked_when_an_anonymous_token_is_refused(
    registry: TokenProtectedRegistry, endpoint: Endpoint, person: Person
) -> None:
    registry.let_in = lambda seen: seen.headers.get("authorization") == "Bearer t2"

    assert get(endpoint) == b"content"
    assert person.asked == 1
    assert registry.token_requests[1].headers["authorization"] == basic("alice", "s3cr3t")


def test_a_person_is_asked_when_the_token_service_refuses_the_anonymous(
    registry: TokenProtectedRegistry, endpoint: Endpoint, person: Person, server: ScriptedServer
) -> None:
    """GHCR's token endpoint answers 401 itself."""

    def ghcr(seen: ReceivedRequest) -> ScriptedResponse:
        if "authorization" not in seen.headers:
            return reply(401, '{"errors": [{"code": "DENIED", "message": "requested access"}]}')
        registry.issued += 1
        return reply(200, json.dumps({"token": f"t{registry.issued}"}))

    server.respond("GET", "/token.*", ghcr)

    assert get(endpoint) == b"content"
    assert person.asked == 1


def test_without_a_person_the_token_services_refusal_is_told(
    registry: TokenProtectedRegistry, endpoint: Endpoint, server: ScriptedServer
) -> None:
    server.respond(
        "GET", "/token.*", reply(401, '{"errors": [{"code": "DENIED", "message": "m"}]}')
    )

    with pytest.raises(RegistryDenied, match=r"DENIED: m.*without credentials"):
        get(endpoint)


def test_the_user_who_was_refused_a_token_is_named(
    registry: TokenProtectedRegistry, endpoint: Endpoint, server: ScriptedServer
) -> None:
    endpoint.authenticator.credentials = ALICE
    server.respond("GET", "/token.*", reply(401))

    with pytest.raises(RegistryDenied, match="as user 'alice'") as caught:
        get(endpoint)

    assert "s3cr3t" not in str(caught.value)
    assert len(registry.token_requests) == 1


def test_who_does_not_answer_gets_what_the_registry_said(
    registry: TokenProtectedRegistry, endpoint: Endpoint, person: Person
) -> None:
    person.answer = None
    registry.let_in = lambda _: False

    with pytest.raises(RegistryDenied, match="UNAUTHORIZED"):
        get(endpoint)


def test_a_person_is_asked_for_basic_too(
    registry: TokenProtectedRegistry, endpoint: Endpoint, person: Person
) -> None:
    registry.challenge = "Basic"
    registry.let_in = lambda seen: "authorization" in seen.headers

    assert [get(endpoint), get(endpoint)] == [b"content"] * 2
    assert person.asked == 1


# Where credentials do not go ---------------------------------------------------------------


@pytest.mark.parametrize(
    "realm",
    [
        "http://auth.example/token",
        "http://reg.example/token",
        "https://127.0.0.1/token",
        "https://localhost./token",
        "https://evil.localhost/token",
        "https://[::1]/token",
        "https://[::ffff:127.0.0.1]/token",
        "https://10.0.0.1/token",
        "https://192.168.1.1:8443/token",
        "https://169.254.169.254/latest/meta-data",
        "https://0.0.0.0/token",
        "https://[fe80::1]/token",
        "ftp://auth.example/token",
        "https://[bad/token",
        "https://auth.example:port/token",
        "https://exa mple/token",
        "",
    ],
)
def test_a_realm_that_would_leak_credentials_is_refused(
    registry: TokenProtectedRegistry, endpoint: Endpoint, realm: str
) -> None:
    endpoint.authenticator.credentials = ALICE
    registry.challenge = f'Bearer realm="{realm}",service="reg"'

    with pytest.raises(ProtocolViolation):
        get(endpoint)

    assert not registry.token_requests
    assert len(registry.server.requests) == 1


def test_a_bearer_challenge_without_a_realm_is_refused(
    registry: TokenProtectedRegistry, endpoint: Endpoint
) -> None:
    registry.challenge = 'Bearer service="reg"'

    with pytest.raises(ProtocolViolation, match="does not name its realm"):
        get(endpoint)


def test_a_realm_may_be_relative(registry: TokenProtectedRegistry, endpoint: Endpoint) -> None:
    registry.challenge = 'Bearer realm="/token",service="reg"'

    get(endpoint)

    assert registry.token_requests[0].headers["host"] == "reg.example"


def test_a_local_registry_may_have_a_local_token_service(
    server: ScriptedServer, storage: ScriptedServer, transport: Transport
) -> None:
    registry = TokenProtectedRegistry(server)
    service = TokenProtectedRegistry(storage)
    registry.challenge = f'Bearer realm="http://localhost:{storage.port}/token"'
    registry.let_in = lambda seen: "authorization" in seen.headers

    get(Endpoint(transport, server.url))

    assert len(service.token_requests) == 1


def test_a_token_service_that_redirects_does_not_pass_the_password_on(
    registry: TokenProtectedRegistry, endpoint: Endpoint, server: ScriptedServer
) -> None:
    endpoint.authenticator.credentials = ALICE
    server.respond("GET", r"/token\?.*", reply(307, Location="https://other.example/moved"))
    server.respond("GET", "/moved", reply(200, '{"token": "t0"}'))
    registry.let_in = lambda seen: "authorization" in seen.headers

    get(endpoint)

    [seen] = server.matching_requests(part="/moved")
    assert "authorization" not in seen.headers


def test_a_header_that_the_caller_set_on_the_session_stays_with_the_registry(
    registry: TokenProtectedRegistry, endpoint: Endpoint, transport: Transport
) -> None:
    transport.session.headers["Authorization"] = "Bearer of the caller"

    get(endpoint)

    first, *_ = registry.server.matching_requests(part="/v2/")
    assert first.headers["authorization"] == "Bearer of the caller"
    assert "authorization" not in registry.token_requests[0].headers


def test_the_challenge_of_a_storage_host_is_not_answered(
    registry: TokenProtectedRegistry, endpoint: Endpoint, server: ScriptedServer
) -> None:
    endpoint.authenticator.credentials = ALICE
    server.respond("GET", "/v2/x", reply(307, Location="https://storage.example/key"))
    server.respond("GET", "/key", reply(401, WWW_Authenticate=registry.challenge))

    with pytest.raises(RegistryDenied):
        get(endpoint)

    assert not registry.token_requests


def test_credentials_do_not_go_to_a_url_of_another_host(
    registry: TokenProtectedRegistry, endpoint: Endpoint, server: ScriptedServer
) -> None:
    get(endpoint)
    server.respond("GET", "/elsewhere", reply(200, b"other"))

    assert get(endpoint, path="https://other.example/elsewhere") == b"other"
    [seen] = server.matching_requests(part="/elsewhere")
    assert "authorization" not in seen.headers


# Answers of the token service --------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"<html>sign in</html>",
        b"",
        b"null",
        b'["t"]',
        b'{"token": 5}',
        b'{"token": ""}',
        b'{"token": "a\\r\\nX: y"}',
        b'{"token": "\xc3\xa9"}',
        b'{"errors": []}',
        b"[" * 60_000,
        b"\xff\xfe",
    ],
)
def test_an_answer_without_a_token_is_refused(
    registry: TokenProtectedRegistry, endpoint: Endpoint, server: ScriptedServer, body: bytes
) -> None:
    server.respond("GET", "/token.*", ScriptedResponse(200, body))

    with pytest.raises(ConcilError) as caught:
        get(endpoint)

    assert isinstance(caught.value, (AccessDenied, ProtocolViolation))
    assert "token from https://auth.example/token" in str(caught.value)
    assert len(server.matching_requests(part="/v2/")) == 1


def test_a_giant_answer_is_not_read(
    registry: TokenProtectedRegistry, endpoint: Endpoint, server: ScriptedServer
) -> None:
    server.respond(
        "GET", "/token.*", ScriptedResponse(200, json.dumps({"token": "x" * 100_000}).encode())
    )

    with pytest.raises(ProtocolViolation, match="larger than"):
        get(endpoint)


def test_an_answer_that_breaks_off_is_asked_for_again(
    registry: TokenProtectedRegistry, endpoint: Endpoint, server: ScriptedServer
) -> None:
    server.respond(
        "GET",
        "/token.*",
        ScriptedResponse(200, b'{"tok', length=100, cut="fin"),
        reply(503),
        registry._token,
    )

    response = endpoint.send_with_retry(Call("GET", "/v2/x", PULL), FAST)

    assert response.content == b"content"
    assert len(registry.token_requests) == 3


def test_a_token_service_that_is_down_costs_six_tries(
    registry: TokenProtectedRegistry, endpoint: Endpoint, server: ScriptedServer
) -> None:
    server.respond("GET", "/token.*", reply(503))

    with pytest.raises(StatusError, match="503"):
        endpoint.send_with_retry(Call("GET", "/v2/x", PULL), FAST)

    assert len(registry.token_requests) == 6
    assert len(server.matching_requests(part="/v2/")) == 6


def test_the_403_of_a_token_service_is_a_denial(
    registry: TokenProtectedRegistry, endpoint: Endpoint, server: ScriptedServer
) -> None:
    """DigitalOcean answers so."""
    server.respond("GET", "/token.*", reply(403, "registry limit reached"))

    with pytest.raises(RegistryDenied, match="registry limit reached"):
        get(endpoint)


# Bodies ------------------------------------------------------------------------------------


class Once:
    """A body that can be read once."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._size = len(content)

    def __len__(self) -> int:
        return self._size

    def read(self, size: int = -1, /) -> bytes:
        piece = self._content if size < 0 else self._content[:size]
        self._content = self._content[len(piece) :]
        return piece


def test_a_body_that_was_read_is_not_sent_again_empty(
    registry: TokenProtectedRegistry, endpoint: Endpoint
) -> None:
    put = {"method": "PUT", "url": "/v2/x", "scopes": PUSH}

    with pytest.raises(ConnectionLost, match="expired"):
        endpoint.send(Call(**put, body=Once(b"12345")))  # type: ignore[arg-type]
    with endpoint.send(Call(**put, body=Once(b"12345"))):  # type: ignore[arg-type]
        pass

    first, second = registry.server.matching_requests("PUT")
    assert (first.body, second.body) == (b"12345", b"12345")


def test_a_body_that_can_be_wound_back_is_sent_again_whole(
    registry: TokenProtectedRegistry, endpoint: Endpoint
) -> None:
    bodies: Iterator[bytes] = iter([b"12345"])
    body = Once(next(bodies))

    def rewind() -> None:
        body.__init__(b"12345")  # type: ignore[misc]

    with endpoint.send(Call("PUT", "/v2/x", PUSH, body=body, rewind=rewind)):
        pass

    assert [seen.body for seen in registry.server.matching_requests("PUT")] == [b"12345", b"12345"]


# Whatever comes ----------------------------------------------------------------------------


REALMS = st.text(max_size=60) | st.text("[]:/?#@.%h 0127\\", max_size=30).map("https://".__add__)


@UNTIMED
@given(REALMS, st.text(max_size=20), st.text(max_size=40))
def test_no_challenge_raises_anything_but_ours(realm: str, service: str, scope: str) -> None:
    with requests.Session() as session:
        session.mount("https://", _Nobody())
        session.mount("http://", _Nobody())
        auth = Authenticator(Transport(session), REGISTRY, CredentialProviders(ALICE))
        challenge = Challenge("bearer", {"realm": realm, "service": service, "scope": scope})

        with pytest.raises(ConcilError):
            auth.refresh(AuthAttempt(PULL, None, [challenge]))


class _Nobody(requests.adapters.HTTPAdapter):
    def send(self, *args: object, **kwargs: object) -> requests.Response:
        raise requests.ConnectionError("nobody there")


def test_challenges_come_as_registries_write_them() -> None:
    [challenge] = parse_challenges([f'Bearer realm="{REALM}"'])

    assert challenge.get("realm") == REALM


# Wider scopes ------------------------------------------------------------------------------


def insufficient(scope: str) -> str:
    return f'Bearer realm="{REALM}",service="reg",scope="{scope}",error="insufficient_scope"'


@pytest.mark.parametrize("status", [401, 403])
def test_a_token_is_widened_once_by_the_scope_of_the_challenge(
    registry: TokenProtectedRegistry, endpoint: Endpoint, server: ScriptedServer, status: int
) -> None:
    """GitLab wants "*" where the specification has "delete"."""
    wider = ScriptedResponse(
        status, headers=(("WWW-Authenticate", insufficient("repository:team/app:*")),)
    )
    server.respond(
        "GET",
        "/v2/x",
        reply(401, WWW_Authenticate=registry.challenge),
        wider,
        reply(200, b"content"),
    )

    assert get(endpoint) == b"content"
    assert [seen.query["scope"] for seen in registry.token_requests] == [
        ["repository:team/app:pull"],
        ["repository:team/app:pull,*"],
    ]


def test_what_was_widened_stays_wide(
    registry: TokenProtectedRegistry, endpoint: Endpoint, clock: Clock
) -> None:
    get(endpoint)
    registry.challenge = insufficient("repository:team/app:push repository:other:pull")
    registry.issued += 1
    get(endpoint)
    registry.challenge = f'Bearer realm="{REALM}",service="reg"'

    clock.ahead = 50
    get(endpoint)

    wide = ["repository:team/app:pull,push", "repository:other:pull"]
    assert [seen.query["scope"] for seen in registry.token_requests][1:] == [wide, wide]


def test_widening_is_no_loop(registry: TokenProtectedRegistry, endpoint: Endpoint) -> None:
    def more(seen: ReceivedRequest) -> bool:
        count = len(registry.server.requests)
        registry.challenge = insufficient(f"repository:other-{count}:pull")
        return False

    registry.let_in = more

    with pytest.raises(RegistryDenied):
        get(endpoint)

    assert len(registry.token_requests) == 2
    assert registry.refused == 3


def test_a_scope_that_was_asked_for_already_is_not_asked_for_again(
    registry: TokenProtectedRegistry, endpoint: Endpoint
) -> None:
    """Distribution says so of a token that grants less than was asked for."""
    registry.let_in = lambda _: False
    registry.challenge = insufficient("repository:team/app:pull")

    for _ in range(5):
        with pytest.raises(RegistryDenied):
            get(endpoint)

    assert len(registry.token_requests) == 1


def test_a_wider_token_that_is_refused_leaves_the_one_there_is(
    registry: TokenProtectedRegistry, endpoint: Endpoint, server: ScriptedServer
) -> None:
    get(endpoint)
    server.respond("GET", r"/token.*other.*", reply(403))
    registry.let_in = lambda seen: seen.path != "/v2/forbidden"
    registry.challenge = insufficient("repository:other:pull")

    with pytest.raises(RegistryDenied):
        get(endpoint, path="/v2/forbidden")

    assert get(endpoint) == b"content"
    assert registry.server.requests[-1].headers["authorization"] == "Bearer t1"


# Two scopes for a mount --------------------------------------------------------------------


MOUNT = (*PUSH, repository_scope("other", "pull"))


@pytest.mark.parametrize("status", [400, 401, 403])
def test_a_service_that_refuses_two_scopes_is_asked_for_the_first(
    registry: TokenProtectedRegistry,
    endpoint: Endpoint,
    server: ScriptedServer,
    clock: Clock,
    status: int,
) -> None:
    """DigitalOcean's answers 400 to the repository of somebody else."""
    server.respond("GET", r"/token.*other.*", reply(status))

    get(endpoint, MOUNT)
    clock.ahead = 59
    get(endpoint, MOUNT)

    asked = [seen.query["scope"] for seen in registry.token_requests]
    assert asked == [list(MOUNT), list(PUSH), list(PUSH)]


def test_a_wrong_password_is_not_tried_with_fewer_scopes(
    registry: TokenProtectedRegistry, endpoint: Endpoint, server: ScriptedServer
) -> None:
    endpoint.authenticator.credentials = ALICE
    server.respond("GET", r"/token.*", reply(401))

    with pytest.raises(RegistryDenied):
        get(endpoint, MOUNT)

    assert len(registry.token_requests) == 1


# Challenges that are elsewhere -------------------------------------------------------------


def test_without_a_challenge_that_of_the_root_counts(
    registry: TokenProtectedRegistry, endpoint: Endpoint, server: ScriptedServer
) -> None:
    """gcr.io does so."""
    refused = reply(401, '{"errors": [{"code": "UNAUTHORIZED"}]}')
    server.respond("GET", "/v2/x", refused, reply(200, b"one"))
    server.respond("GET", "/v2/y", refused, reply(200, b"two"))

    assert get(endpoint) == b"one"
    assert get(endpoint, PUSH, "/v2/y") == b"two"

    asked = [seen.query["scope"] for seen in registry.token_requests]
    assert asked == [list(PULL), list(PUSH)]
    assert len([s for s in server.requests if s.path == "/v2/"]) == 1


def test_the_roots_challenge_is_its_own_or_none(
    registry: TokenProtectedRegistry, endpoint: Endpoint, server: ScriptedServer
) -> None:
    server.respond("GET", "/v2/x", reply(401))
    server.respond("GET", "/v2/", reply(307, Location="https://other.example/v2/"))
    endpoint.authenticator.credentials = ALICE

    with pytest.raises(RegistryDenied):
        get(endpoint)

    assert not registry.token_requests
    assert {seen.headers["host"] for seen in server.requests} == {"reg.example"}


def test_a_newer_token_than_the_one_that_was_refused_is_sent(
    registry: TokenProtectedRegistry, endpoint: Endpoint
) -> None:
    """A 403 for a token that another thread has renewed meanwhile."""
    get(endpoint)

    def renewed_meanwhile(seen: ReceivedRequest) -> ScriptedResponse:
        if seen.headers["authorization"] == "Bearer t1":
            if not registry.issued > 1:
                known = endpoint.authenticator._token_cache.slot_for(PULL)
                endpoint.authenticator._fetch_token(known, PULL, time.monotonic())
            return reply(403, "expired")
        return reply(200, b"renewed")

    registry.let_in = lambda _: True
    registry.content = renewed_meanwhile

    assert get(endpoint) == b"renewed"
    assert len(registry.token_requests) == 2


@pytest.mark.parametrize("user", [None, ALICE])
def test_who_waited_shares_the_trouble_of_the_service(
    registry: TokenProtectedRegistry,
    endpoint: Endpoint,
    server: ScriptedServer,
    user: Credentials | None,
) -> None:
    """Sixteen threads would wait for a service that hangs one after the other."""
    endpoint.authenticator.credentials = user
    server.respond("GET", r"/token.*", reply(503))
    began = time.monotonic()
    with pytest.raises(StatusError, match="503"):
        get(endpoint)
    known = endpoint.authenticator._token_cache.slot_for(PULL)

    with pytest.raises(StatusError, match="503"):
        endpoint.authenticator._fetch_token(known, PULL, began)
    assert len(registry.token_requests) == 1

    with pytest.raises(StatusError, match="503"):
        endpoint.authenticator._fetch_token(known, PULL, time.monotonic())
    assert len(registry.token_requests) == 2


def test_an_auth_of_the_session_is_the_registrys(
    registry: TokenProtectedRegistry, endpoint: Endpoint, transport: Transport
) -> None:
    transport.session.auth = ("caller", "s3cr3t")
    registry.let_in = lambda seen: bool(registry.issued)

    get(endpoint)

    assert "authorization" not in registry.token_requests[0].headers
