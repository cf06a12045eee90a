"""Whose requests they are: what a login left, what was refused, what is looked for again."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from concil.auth.credentials.credentials import CredentialProviders, Credentials
from concil.auth.scope import repository_scope
from concil.errors import AccessDenied, ConcilError, RegistryDenied
from concil.http.transport import Transport
from concil.registry.endpoint import Call, Endpoint
from tests.support.scripted_server import ReceivedRequest, ScriptedResponse, ScriptedServer, reply
from tests.support.token_protected_registry import REGISTRY, TokenProtectedRegistry, basic

ALICE = Credentials("alice", "s3cr3t")
LATER = Credentials("alice", "l4ter")


class Stored:
    """What a login left; counts how often it was looked for."""

    def __init__(self, *answers: Credentials | ConcilError | None) -> None:
        self.answers = list(answers)
        self.asked = 0

    def __call__(self) -> Credentials | None:
        self.asked += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, ConcilError):
            raise answer
        return answer


class Checked:
    """A token service that knows its users, in front of a registry that takes its tokens."""

    def __init__(self, server: ScriptedServer, transport: Transport) -> None:
        self.server = server
        self.transport = transport
        self.good = {basic("alice", "s3cr3t")}
        self.status = 401  # for everybody else
        self.guarded = TokenProtectedRegistry(server)
        self.guarded.reach(transport.session)
        server.respond("GET", r"/token.*", self._token)

    def endpoint(self, login: CredentialProviders) -> Endpoint:
        return Endpoint(self.transport, REGISTRY, providers=login)

    @property
    def tried(self) -> list[str]:
        """The passwords that were sent, in order."""
        return [seen.headers.get("authorization", "") for seen in self.guarded.token_requests]

    def _token(self, seen: ReceivedRequest) -> ScriptedResponse:
        if seen.headers.get("authorization") in self.good:
            return self.guarded._token(seen)
        return reply(self.status, '{"errors": [{"code": "UNAUTHORIZED", "message": "no"}]}')


@pytest.fixture
def checked(server: ScriptedServer, transport: Transport) -> Checked:
    checked = Checked(server, transport)
    checked.guarded.let_in = lambda seen: "authorization" in seen.headers
    return checked


def get(endpoint: Endpoint, name: str = "team/app") -> bytes:
    call = Call("GET", f"/v2/{name}/x", (repository_scope(name, "pull"),))
    with endpoint.send(call) as response:
        return response.content


# What a login left -------------------------------------------------------------------------


def test_a_login_is_looked_for_once_and_only_when_it_is_needed(checked: Checked) -> None:
    stored = Stored(ALICE)
    endpoint = checked.endpoint(CredentialProviders(stored=stored))
    assert stored.asked == 0

    for name in ("a", "b", "a"):
        assert get(endpoint, name) == b"content"

    assert stored.asked == 1
    assert checked.tried == [basic("alice", "s3cr3t")] * 2


def test_a_public_registry_needs_no_login(checked: Checked) -> None:
    stored = Stored(ALICE)
    checked.guarded.let_in = lambda _: True

    get(checked.endpoint(CredentialProviders(stored=stored)))

    assert stored.asked == 0


def test_what_is_given_wins_over_what_a_login_left(checked: Checked) -> None:
    stored = Stored(LATER)

    get(checked.endpoint(CredentialProviders(explicit=ALICE, stored=stored)))

    assert stored.asked == 0


def test_many_threads_look_for_a_login_once(checked: Checked) -> None:
    stored = Stored(ALICE)
    endpoint = checked.endpoint(CredentialProviders(stored=stored))

    with ThreadPoolExecutor(16) as pool:
        assert set(pool.map(lambda n: get(endpoint, f"r{n}"), range(16))) == {b"content"}

    assert stored.asked == 1


def test_a_login_that_cannot_be_read_is_told_to_everybody_and_read_once(checked: Checked) -> None:
    stored = Stored(AccessDenied("the credential helper is missing"))
    endpoint = checked.endpoint(CredentialProviders(stored=stored))

    for name in ("a", "b", "a"):
        with pytest.raises(AccessDenied, match="helper is missing"):
            get(endpoint, name)

    assert stored.asked == 1
    assert not checked.tried
    assert len(checked.server.requests) == 1


def test_a_login_outlives_who_sets_no_user(checked: Checked) -> None:
    """DockerHub sets its own user, which may be nobody, before each request."""
    stored = Stored(ALICE)
    endpoint = checked.endpoint(CredentialProviders(stored=stored))

    for name in ("a", "b"):
        endpoint.authenticator.credentials = None
        get(endpoint, name)

    assert checked.tried == [basic("alice", "s3cr3t")] * 2


# What was refused --------------------------------------------------------------------------


def test_a_wrong_password_is_tried_once_by_sixteen_threads(checked: Checked) -> None:
    endpoint = checked.endpoint(CredentialProviders(explicit=LATER))
    everybody = threading.Barrier(16)

    def one(number: int) -> str:
        everybody.wait(20)
        with pytest.raises(RegistryDenied) as caught:
            get(endpoint, f"repo-{number}")
        return str(caught.value)

    with ThreadPoolExecutor(16) as pool:
        told = set(pool.map(one, range(16)))

    assert checked.tried == [basic("alice", "l4ter")]
    [message] = told
    assert "'alice'" in message
    assert "l4ter" not in message


def test_after_a_denial_nothing_is_asked_any_more(checked: Checked) -> None:
    endpoint = checked.endpoint(CredentialProviders(explicit=LATER))
    with pytest.raises(RegistryDenied):
        get(endpoint, "a")
    before = len(checked.server.requests)

    for name in ("a", "b", "c"):
        with pytest.raises(RegistryDenied):
            get(endpoint, name)

    assert len(checked.server.requests) == before


def test_another_password_is_another_try(checked: Checked) -> None:
    endpoint = checked.endpoint(CredentialProviders(explicit=LATER))
    with pytest.raises(RegistryDenied):
        get(endpoint)

    endpoint.authenticator.credentials = ALICE

    assert get(endpoint) == b"content"


def test_a_service_that_says_403_of_a_wrong_password_is_asked_twice(checked: Checked) -> None:
    """GitLab's does, and others say so of one repository: a token for nothing tells."""
    checked.status = 403
    endpoint = checked.endpoint(CredentialProviders(explicit=LATER))

    for number in range(8):
        with pytest.raises(RegistryDenied):
            get(endpoint, f"repo-{number}")

    assert len(checked.tried) == 2


@pytest.mark.parametrize(("first", "status"), [("a", 401), ("a", 403), ("secret", 403)])
def test_one_forbidden_repository_is_no_wrong_password(
    checked: Checked, status: int, first: str
) -> None:
    """Docker Hub says 401 of a push with a read-only token."""
    endpoint = checked.endpoint(CredentialProviders(explicit=ALICE))

    def forbidding(seen: ReceivedRequest) -> ScriptedResponse:
        return reply(status) if "secret" in seen.path else checked.guarded._token(seen)

    checked.server.respond("GET", r"/token.*", forbidding)
    if first == "a":
        get(endpoint, "a")

    for _ in range(2):
        with pytest.raises(RegistryDenied):
            get(endpoint, "secret")

    assert get(endpoint, "b") == b"content"
    assert len([seen for seen in checked.guarded.token_requests if "secret" in seen.path]) == 1


def test_sixteen_threads_with_a_good_password_do_not_wait_for_each_other(checked: Checked) -> None:
    endpoint = checked.endpoint(CredentialProviders(explicit=ALICE))
    get(endpoint, "first")
    together = threading.Barrier(16)

    def slow(seen: ReceivedRequest) -> ScriptedResponse:
        together.wait(20)  # would break if one came after the other
        return checked.guarded._token(seen)

    checked.server.respond("GET", r"/token.*", slow)
    with ThreadPoolExecutor(16) as pool:
        assert set(pool.map(lambda n: get(endpoint, f"r{n}"), range(16))) == {b"content"}


# Credentials that expire -------------------------------------------------------------------


def test_a_password_that_has_expired_is_looked_for_again(checked: Checked) -> None:
    """ECR's live for twelve hours."""
    stored = Stored(ALICE, LATER)
    endpoint = checked.endpoint(CredentialProviders(stored=stored))
    get(endpoint, "a")
    checked.good = {basic("alice", "l4ter")}

    assert get(endpoint, "b") == b"content"
    assert get(endpoint, "c") == b"content"

    assert stored.asked == 2
    assert checked.tried == [basic("alice", p) for p in ("s3cr3t", "s3cr3t", "l4ter", "l4ter")]


def test_sixteen_threads_look_again_once(checked: Checked) -> None:
    stored = Stored(ALICE)
    endpoint = checked.endpoint(CredentialProviders(stored=stored))
    get(endpoint, "first")
    checked.good = set()

    def one(number: int) -> None:
        with pytest.raises(RegistryDenied):
            get(endpoint, f"r{number}")

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(one, range(16)))

    assert stored.asked == 2


@pytest.mark.parametrize("again", [LATER, None])
def test_the_same_again_is_no_other_password(checked: Checked, again: Credentials | None) -> None:
    stored = Stored(LATER, again)
    endpoint = checked.endpoint(CredentialProviders(stored=stored))

    for name in ("a", "b"):
        with pytest.raises(RegistryDenied):
            get(endpoint, name)

    assert stored.asked == 2
    assert len(checked.tried) == 1


def test_a_helper_that_gives_new_nonsense_each_time_is_asked_twice(checked: Checked) -> None:
    stored = Stored(*(Credentials("alice", f"wrong-{n}") for n in range(9)))
    endpoint = checked.endpoint(CredentialProviders(stored=stored))

    for name in ("a", "b", "c"):
        with pytest.raises(RegistryDenied):
            get(endpoint, name)

    assert stored.asked == 2
    assert len(checked.tried) == 2


def test_a_helper_that_breaks_when_it_is_asked_again_ends_it(checked: Checked) -> None:
    stored = Stored(LATER, AccessDenied("the credential helper hangs"))
    endpoint = checked.endpoint(CredentialProviders(stored=stored))

    for name in ("a", "b"):
        with pytest.raises(AccessDenied, match="hangs"):
            get(endpoint, name)

    assert stored.asked == 2
    assert len(checked.tried) == 1


def test_basic_that_has_expired_is_looked_for_again(checked: Checked) -> None:
    stored = Stored(ALICE, LATER)
    endpoint = checked.endpoint(CredentialProviders(stored=stored))
    checked.guarded.challenge = "Basic"
    good = basic("alice", "s3cr3t")
    checked.guarded.let_in = lambda seen: seen.headers.get("authorization") == good
    get(endpoint, "a")
    good = basic("alice", "l4ter")

    assert get(endpoint, "b") == b"content"
    assert get(endpoint, "c") == b"content"

    assert stored.asked == 2


@pytest.mark.parametrize("status", [400, 403])
def test_basic_that_expires_in_other_words_is_looked_for_again(
    checked: Checked, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setattr("concil.auth.credential_chain._MIN_EXPIRY_AGE", 0.0)
    stored = Stored(ALICE, LATER)
    endpoint = checked.endpoint(CredentialProviders(stored=stored))
    checked.guarded.challenge = "Basic"
    get(endpoint, "a")
    good = basic("alice", "l4ter")

    def ecr(seen: ReceivedRequest) -> ScriptedResponse:
        fits = seen.headers.get("authorization") == good
        return reply(200, b"new") if fits else reply(status, "Your Authorization Token has expired")

    checked.guarded.content = ecr

    assert get(endpoint, "b") == b"new"
    assert stored.asked == 2


# Registry tokens ---------------------------------------------------------------------------


@pytest.fixture
def registry_token(checked: Checked) -> Iterator[str]:
    checked.guarded.let_in = lambda seen: seen.headers.get("authorization") == "Bearer r3g"
    yield "r3g"
    assert not checked.tried  # nothing is fetched in its place


def test_a_registry_token_is_the_bearer_as_it_is(checked: Checked, registry_token: str) -> None:
    login = CredentialProviders(stored=Stored(Credentials("", "", registry_token=registry_token)))
    endpoint = checked.endpoint(login)

    assert [get(endpoint, name) for name in ("a", "b")] == [b"content"] * 2
    assert checked.guarded.refused == 1


def test_a_registry_token_that_has_expired_is_looked_for_again(
    checked: Checked, registry_token: str
) -> None:
    old, new = (Credentials("", "", registry_token=token) for token in ("old", registry_token))
    stored = Stored(old, new)

    assert get(checked.endpoint(CredentialProviders(stored=stored))) == b"content"
    assert stored.asked == 2


def test_a_registry_token_that_is_refused_is_a_denial(
    checked: Checked, registry_token: str
) -> None:
    endpoint = checked.endpoint(
        CredentialProviders(explicit=Credentials("", "", registry_token="other"))
    )

    with pytest.raises(RegistryDenied, match="UNAUTHORIZED") as caught:
        get(endpoint)

    assert "other" not in str(caught.value)
    assert checked.guarded.refused == 1


@pytest.mark.parametrize("token", ["a\r\nX: y", "\u00e9", ""])
def test_a_registry_token_that_fits_in_no_header_is_not_sent(checked: Checked, token: str) -> None:
    endpoint = checked.endpoint(
        CredentialProviders(explicit=Credentials("", "", registry_token=token))
    )

    with pytest.raises(AccessDenied) as caught:
        get(endpoint)

    assert not checked.server.requests
    assert "X: y" not in str(caught.value)


def test_an_identity_token_is_nothing_to_a_registry_without_tokens(checked: Checked) -> None:
    checked.guarded.challenge = "Basic"
    checked.guarded.let_in = lambda _: False
    endpoint = checked.endpoint(
        CredentialProviders(explicit=Credentials("", "", identity_token="id3ntity"))
    )

    with pytest.raises(RegistryDenied):
        get(endpoint)

    assert all("authorization" not in seen.headers for seen in checked.server.requests)
