"""A token service in every kind of trouble: one line, the right exit code, no secret in it."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from concil.cli.output.errors import ACCESS_DENIED, FAILED, NOT_FOUND
from concil.config import Timeouts
from concil.http import transport
from tests.cli.login_harness import AuthRegistry
from tests.cli.runner import Cli, assert_fails
from tests.support.docker_registry import DockerRegistry
from tests.support.scripted_server import (
    NO_RESPONSE,
    ReceivedRequest,
    ScriptedResponse,
    ScriptedServer,
    reply,
)
from tests.support.token_service import TokenService
from tests.tokens.conftest import PASSWORD, USER

SECRET = "s3cr3t"


@pytest.fixture
def service() -> Iterator[ScriptedServer]:
    with ScriptedServer() as service:
        yield service


@pytest.fixture
def registry(service: ScriptedServer) -> Iterator[ScriptedServer]:
    """Return a registry that sends everybody to the service."""
    with ScriptedServer() as registry:
        challenge = f'Bearer realm="{service.url}/token",service="reg"'
        registry.respond("*", "/v2/.*", reply(401, WWW_Authenticate=challenge))
        yield registry


def address(registry: ScriptedServer) -> str:
    return f"http://alice:{SECRET}@{registry.host}/x:v1"


@pytest.mark.parametrize(
    "trouble",
    [
        (
            reply(401, '{"errors": [{"code": "UNAUTHORIZED", "message": "bad"}]}'),
            ACCESS_DENIED,
            "alice",
        ),
        (reply(401, '{"details": "incorrect username or password"}'), ACCESS_DENIED, "incorrect"),
        (reply(403, "<html>"), ACCESS_DENIED, "403"),
        (reply(200, "<html>please sign in</html>"), ACCESS_DENIED, "the answer is a web page"),
        (reply(200, ""), ACCESS_DENIED, "not JSON"),
        (reply(200, "{}"), ACCESS_DENIED, "no token"),
        (reply(200, '{"token": "a\\r\\nX-Evil: b"}'), ACCESS_DENIED, "no token"),
        (ScriptedResponse(200, b" " * 10_000_000, length=-1), FAILED, "larger than 65536 bytes"),
        (ScriptedResponse(200, b"{", length=10, cut="fin"), FAILED, "is incomplete"),
        (NO_RESPONSE, FAILED, "connection"),
        (reply(500, "\x1b[31mred"), FAILED, "500"),
        (reply(503), FAILED, "503"),
        (reply(429, Retry_After="0"), FAILED, "429"),
        (reply(307, Location="/token"), FAILED, "redirects"),
        (reply(307, Location="http://10.0.0.1/token"), FAILED, "in a private network"),
        (reply(307, Location="https://169.254.169.254/latest"), FAILED, "in a private network"),
    ],
)
def test_failures_are_reported_in_one_line(
    cli: Cli,
    registry: ScriptedServer,
    service: ScriptedServer,
    trouble: tuple[ScriptedResponse, int, str],
) -> None:
    answer, code, words = trouble
    service.respond("GET", r"/token.*", answer)

    outcome = cli("digest", "--retry=0", address(registry))

    assert_fails(outcome, code, words)
    assert SECRET not in outcome.err


def test_a_service_that_is_down(
    cli: Cli, registry: ScriptedServer, service: ScriptedServer
) -> None:
    service.close()

    assert_fails(cli("digest", address(registry)), FAILED, "connection was refused")


def test_a_service_that_says_nothing(
    cli: Cli, registry: ScriptedServer, service: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "Timeouts", lambda: Timeouts(idle=0.5))
    never = threading.Event()
    service.respond("GET", r"/token.*", ScriptedResponse(hold=never))

    try:
        result = cli("digest", "--retry=0", address(registry))
    finally:
        never.set()

    assert_fails(result, FAILED, f"{service.host}/token", "no data was received within the timeout")


def test_a_service_that_asks_to_wait_is_waited_for(
    cli: Cli, registry: ScriptedServer, service: ScriptedServer
) -> None:
    service.respond("GET", r"/token.*", reply(429, Retry_After="1"), reply(200, '{"token": "t"}'))
    registry.respond("HEAD", "/v2/x/manifests/v1", _let_in)

    outcome = cli("digest", address(registry))

    assert outcome.code == 0, outcome.err
    assert len(service.requests) == 2


def _let_in(seen: ReceivedRequest) -> ScriptedResponse:
    if seen.headers.get("authorization") != "Bearer t":
        return reply(401)
    return reply(
        200,
        b"{}",
        Docker_Content_Digest="sha256:" + "a" * 64,
        Content_Type="application/vnd.oci.image.manifest.v1+json",
    )


def test_a_realm_that_is_none(cli: Cli, registry: ScriptedServer) -> None:
    for realm in ("ftp://auth.example/token", "https://169.254.169.254/token", ""):
        registry.respond("*", "/v2/.*", reply(401, WWW_Authenticate=f'Bearer realm="{realm}"'))

        assert_fails(cli("digest", address(registry)), FAILED)


@pytest.mark.real
@pytest.mark.parametrize("years", [-10, 10])
def test_a_service_whose_clock_is_off(
    cli: Cli, token_auth_registry: AuthRegistry, years: int
) -> None:
    """What it says of its time is not looked at; what it signs the registry looks at."""
    service, words = (
        token_auth_registry.service,
        (f"--creds={USER}:{PASSWORD}", f"{token_auth_registry.host}/nothing"),
    )
    assert service is not None
    try:
        service.response_clock_skew = years * 365 * 86400.0
        assert_fails(cli("tags", *words), NOT_FOUND)  # it was let in
        service.token_clock_skew = service.response_clock_skew
        before = len(service.requests)
        assert_fails(cli("tags", *words), ACCESS_DENIED, "401", token_auth_registry.host, "clocks")
    finally:
        service.response_clock_skew = service.token_clock_skew = 0.0
    assert len(service.requests) == before + 1


@pytest.mark.real
def test_a_wrong_password_at_a_real_registry(
    cli: Cli, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("real")
    with (
        TokenService(directory, users={"alice": "right"}) as service,
        DockerRegistry(directory / "registry", auth=service.auth_config) as registry,
    ):
        outcome = cli("digest", f"http://alice:{SECRET}@{registry.host}/x:v1")

        assert_fails(outcome, ACCESS_DENIED, "401", "'alice'")
        assert len(service.requests) == 1
    assert SECRET not in outcome.err
