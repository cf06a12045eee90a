"""A token service in every kind of trouble: one line, the right exit code, no secret in it."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from concil.cli.failures import DENIED, FAILED, NOT_FOUND
from concil.config import Timeouts
from concil.registry import session
from tests.cli.desk import Locked
from tests.cli.runner import Cli, assert_fails
from tests.lab.registry import DockerRegistry
from tests.lab.token_service import TokenService
from tests.registry.scripted import GONE, Answer, Scripted, Seen, reply
from tests.tokens.conftest import PASSWORD, USER

SECRET = "s3cr3t"


@pytest.fixture
def service() -> Iterator[Scripted]:
    with Scripted() as service:
        yield service


@pytest.fixture
def registry(service: Scripted) -> Iterator[Scripted]:
    """Return a registry that sends everybody to the service."""
    with Scripted() as registry:
        challenge = f'Bearer realm="{service.url}/token",service="reg"'
        registry.on("*", "/v2/.*", reply(401, WWW_Authenticate=challenge))
        yield registry


def address(registry: Scripted) -> str:
    return f"http://alice:{SECRET}@{registry.host}/x:v1"


@pytest.mark.parametrize(
    "trouble",
    [
        (reply(401, '{"errors": [{"code": "UNAUTHORIZED", "message": "bad"}]}'), DENIED, "alice"),
        (reply(401, '{"details": "incorrect username or password"}'), DENIED, "incorrect"),
        (reply(403, "<html>"), DENIED, "403"),
        (reply(200, "<html>please sign in</html>"), DENIED, "not JSON"),
        (reply(200, ""), DENIED, "not JSON"),
        (reply(200, "{}"), DENIED, "no token"),
        (reply(200, '{"token": "a\\r\\nX-Evil: b"}'), DENIED, "no token"),
        (Answer(200, b" " * 10_000_000, length=-1), FAILED, "larger than 65536 bytes"),
        (Answer(200, b"{", length=10, cut="fin"), FAILED, "broke off"),
        (GONE, FAILED, "connection"),
        (reply(500, "\x1b[31mred"), FAILED, "500"),
        (reply(503), FAILED, "503"),
        (reply(429, Retry_After="0"), FAILED, "429"),
        (reply(307, Location="/token"), FAILED, "redirects"),
        (reply(307, Location="http://10.0.0.1/token"), FAILED, "inside this network"),
        (reply(307, Location="https://169.254.169.254/latest"), FAILED, "inside this network"),
    ],
)
def test_trouble_is_told_in_one_line(
    cli: Cli, registry: Scripted, service: Scripted, trouble: tuple[Answer, int, str]
) -> None:
    answer, code, words = trouble
    service.on("GET", r"/token.*", answer)

    outcome = cli("digest", "--retry=0", address(registry))

    assert_fails(outcome, code, words)
    assert SECRET not in outcome.err


def test_a_service_that_is_down(cli: Cli, registry: Scripted, service: Scripted) -> None:
    service.close()

    assert_fails(cli("digest", address(registry)), FAILED, "connection was refused")


def test_a_service_that_says_nothing(
    cli: Cli, registry: Scripted, service: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "Timeouts", lambda: Timeouts(idle=0.5))
    never = threading.Event()
    service.on("GET", r"/token.*", Answer(hold=never))

    try:
        done = cli("digest", "--retry=0", address(registry))
    finally:
        never.set()

    assert_fails(done, FAILED, f"{service.host}/token", "no byte came for too long")


def test_a_service_that_asks_to_wait_is_waited_for(
    cli: Cli, registry: Scripted, service: Scripted
) -> None:
    service.on("GET", r"/token.*", reply(429, Retry_After="1"), reply(200, '{"token": "t"}'))
    registry.on("HEAD", "/v2/x/manifests/v1", _let_in)

    outcome = cli("digest", address(registry))

    assert outcome.code == 0, outcome.err
    assert len(service.requests) == 2


def _let_in(seen: Seen) -> Answer:
    if seen.headers.get("authorization") != "Bearer t":
        return reply(401)
    return reply(
        200,
        b"{}",
        Docker_Content_Digest="sha256:" + "a" * 64,
        Content_Type="application/vnd.oci.image.manifest.v1+json",
    )


def test_a_realm_that_is_none(cli: Cli, registry: Scripted) -> None:
    for realm in ("ftp://auth.example/token", "https://169.254.169.254/token", ""):
        registry.on("*", "/v2/.*", reply(401, WWW_Authenticate=f'Bearer realm="{realm}"'))

        assert_fails(cli("digest", address(registry)), FAILED)


@pytest.mark.real
@pytest.mark.parametrize("years", [-10, 10])
def test_a_service_whose_clock_is_off(cli: Cli, by_token: Locked, years: int) -> None:
    """What it says of its time is not looked at; what it signs the registry looks at."""
    service, words = by_token.service, (f"--creds={USER}:{PASSWORD}", f"{by_token.host}/nothing")
    assert service is not None
    try:
        service.clock = years * 365 * 86400.0
        assert_fails(cli("tags", *words), NOT_FOUND)  # it was let in
        service.skew = service.clock
        before = len(service.asked)
        assert_fails(cli("tags", *words), DENIED, "401", by_token.host, "clocks")
    finally:
        service.clock = service.skew = 0.0
    assert len(service.asked) == before + 1


@pytest.mark.real
def test_a_wrong_password_at_a_real_registry(
    cli: Cli, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("real")
    with (
        TokenService(directory, users={"alice": "right"}) as service,
        DockerRegistry(directory / "registry", auth=service.settings) as registry,
    ):
        outcome = cli("digest", f"http://alice:{SECRET}@{registry.host}/x:v1")

        assert_fails(outcome, DENIED, "401", "'alice'")
        assert len(service.asked) == 1
    assert SECRET not in outcome.err
