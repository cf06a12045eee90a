"""Passwords and rights: what is tried once, what is told, what goes on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest

from concil import Engine, MirrorItem, TransferConfig
from concil.auth.credentials.credentials import CredentialProviders, Credentials
from concil.errors import AccessDenied, NotTried, RegistryDenied
from concil.http.requests_session import create_session
from concil.http.transport import Transport
from concil.progress.events import State
from concil.registry.client import RegistryClient
from concil.registry.endpoint import Endpoint
from concil.transfer.mirror.report import MirrorReport
from tests.support.docker_registry import DockerRegistry
from tests.support.images import make_image, put_image, write_layout
from tests.support.relay import Relay
from tests.support.request_log import RequestLog
from tests.support.token_service import ALL_ACTIONS, TokenRequest
from tests.tokens.conftest import PASSWORD, USER, USERINFO, TokenRegistry

pytestmark = pytest.mark.real
WRONG = f"{USER}:wr0ng-s3cret"


@pytest.fixture
def engine() -> Iterator[Engine]:
    with Engine(TransferConfig(workers=16, concurrent_images=16, jobs_per_host=16)) as engine:
        yield engine


def passwords(place: TokenRegistry) -> list[TokenRequest]:
    return [asked for asked in place.service.requests if asked.grant in ("basic", "password")]


def fill(place: TokenRegistry, repository: str, *tags: str) -> None:
    with place.session(repository) as session:
        for tag in tags:
            put_image(place.registry.url, repository, tag, make_image(1), session=session)


def assert_one_is_told_for_all(report: MirrorReport, images: int) -> None:
    """Look for one failure, and for images that were not tried for the same cause."""
    kinds = Counter(type(outcome.error) for outcome in report.failed)
    assert kinds == {RegistryDenied: 1, NotTried: images - 1}
    assert len({str(outcome.error) for outcome in report.failed}) == 1


def test_a_wrong_password_is_tried_once_for_all_images_and_threads(
    token_registry: TokenRegistry, engine: Engine, tmp_path: Path
) -> None:
    items = [
        MirrorItem(token_registry.address(f"repo-{n}:v1", user=WRONG), f"oci:{tmp_path}/copy:{n}")
        for n in range(20)
    ]

    report = engine.mirror(items)

    assert_one_is_told_for_all(report, 20)
    assert {str(outcome.error).count(repr(USER)) for outcome in report.failed} == {1}
    assert not any("wr0ng" in str(outcome.error) for outcome in report.failed)
    [only] = passwords(token_registry)
    assert only.status == 401


def test_a_wrong_password_is_tried_once_where_there_are_no_tokens(
    engine: Engine, tmp_path: Path
) -> None:
    seen = RequestLog()
    with (
        DockerRegistry(tmp_path / "registry", users={USER: PASSWORD}) as registry,
        Relay(registry.host, observer=seen) as relay,
    ):
        items = [
            MirrorItem(f"http://{WRONG}@{relay.host}/repo-{n}:v1", f"oci:{tmp_path}/copy:{n}")
            for n in range(20)
        ]

        report = engine.mirror(items)

    assert_one_is_told_for_all(report, 20)
    [tried] = [request.path for request in seen.requests if "authorization" in request.headers]
    assert tried == "/v2/"


@pytest.mark.parametrize("side", ["source", "destination"])
def test_without_a_password_a_registry_that_lets_nobody_in_is_left_alone(
    engine: Engine, tmp_path: Path, side: str
) -> None:
    seen, other = RequestLog(), RequestLog()
    write_layout(tmp_path / "layout", {"v1": make_image(1)})
    with (
        DockerRegistry(tmp_path / "closed", users={USER: PASSWORD}) as closed,
        DockerRegistry(tmp_path / "open") as opened,
        Relay(closed.host, observer=seen) as shut,
        Relay(opened.host, observer=other) as relay,
    ):
        first, second = (shut, relay) if side == "source" else (relay, shut)
        put_image(opened.url, "repo", "v1", make_image(1))
        items = [
            MirrorItem(f"{first.url}/repo:v1", f"{second.url}/copy-{n}:v1") for n in range(200)
        ]

        report = engine.mirror(items)

    assert_one_is_told_for_all(report, 200)
    # What was under way when the first answer came, and GET /v2/.
    assert len(seen.requests) <= 16 * 2
    assert len(other.requests) <= 16


def test_an_identity_token_of_a_login_is_enough(token_registry: TokenRegistry) -> None:
    fill(token_registry, "x", "v1")
    token_registry.service.refresh_tokens = {"id3ntity": USER}
    token_registry.service.allowed_actions = lambda user, _: ALL_ACTIONS if user == USER else ()
    login = CredentialProviders(
        stored=lambda: Credentials("<token>", "", identity_token="id3ntity")
    )
    with create_session() as session:
        endpoint = Endpoint(Transport(session), token_registry.registry.url, providers=login)

        found = RegistryClient(endpoint, "x").head_manifest("v1")

    assert found is not None
    assert [
        (asked.method, asked.grant, asked.user) for asked in token_registry.service.requests
    ] == [("POST", "refresh_token", USER)]


def test_a_password_is_for_the_token_service_alone(
    token_registry: TokenRegistry, engine: Engine, tmp_path: Path
) -> None:
    fill(token_registry, "x", "v1")
    token_registry.service.allowed_actions = lambda user, _: ALL_ACTIONS if user == USER else ()

    copied = engine.copy(token_registry.address("x:v1", user=USERINFO), f"oci:{tmp_path}/copy:v1")

    assert copied.state is State.DONE
    assert {asked.user for asked in passwords(token_registry)} == {USER}
    sent = {request.headers.get("authorization", "") for request in token_registry.log.requests}
    assert not any(PASSWORD in one or one.startswith("Basic") for one in sent)


def test_only_what_is_needed_is_asked_for(
    token_registry: TokenRegistry, engine: Engine, tmp_path: Path
) -> None:
    write_layout(tmp_path / "images", {"v1": make_image(1)})

    engine.copy(f"oci:{tmp_path}/images:v1", token_registry.address("x:v1"))
    engine.copy(token_registry.address("x:v1"), f"oci:{tmp_path}/copy:v1")

    asked = {scope for one in token_registry.service.requests for scope in one.scopes}
    assert asked == {"repository:x:pull", "repository:x:pull,push"}


def test_a_repository_that_is_forbidden_fails_alone(
    token_registry: TokenRegistry, engine: Engine, tmp_path: Path
) -> None:
    names = [f"repo-{n}" for n in range(6)]
    for name in names:
        fill(token_registry, name, "v1")

    def rights(user: str | None, name: str) -> Collection[str]:
        return () if name == "repo-3" else ALL_ACTIONS

    token_registry.service.allowed_actions = rights
    items = [
        MirrorItem(
            token_registry.address(f"{name}:v1", user=USERINFO), f"oci:{tmp_path}/copy:{name}"
        )
        for name in names
    ]

    report = engine.mirror(items)

    [failed] = report.failed
    assert "repo-3" in failed.item.source
    assert isinstance(failed.error, AccessDenied)
    # A new token would hold no more: it is asked for once.
    assert (
        len(
            [
                one
                for one in token_registry.service.requests
                if "repository:repo-3:pull" in one.scopes
            ]
        )
        == 1
    )


@pytest.mark.parametrize("allowed", [True, False], ids=["the mount", "not the mount"])
def test_a_blob_is_mounted_or_sent_whatever_the_service_grants(
    token_registry: TokenRegistry, engine: Engine, allowed: bool
) -> None:
    fill(token_registry, "from", "v1")

    def rights(user: str | None, name: str) -> Collection[str]:
        return ALL_ACTIONS if name == "to" or (allowed and user is not None) else ("pull",)

    token_registry.service.allowed_actions = rights
    user = USERINFO if allowed else ""

    copied = engine.copy(
        token_registry.address("from:v1", user=user), token_registry.address("to:v1", user=user)
    )

    assert copied.state is State.DONE
    wanted = ("repository:to:pull,push", "repository:from:pull")
    assert wanted in {one.scopes for one in token_registry.service.requests}


def test_a_mount_that_the_service_refuses_is_done_without(
    token_registry: TokenRegistry, engine: Engine
) -> None:
    """The source may be read only by another user."""
    fill(token_registry, "from", "v1")

    def rights(user: str | None, name: str) -> Collection[str]:
        return ALL_ACTIONS if (name == "to") is (user is None) else ()

    token_registry.service.allowed_actions = rights

    copied = engine.copy(
        token_registry.address("from:v1", user=USERINFO), token_registry.address("to:v1")
    )

    assert copied.state is State.DONE
    assert {landed.state for landed in copied.blobs} == {State.DONE}


def test_deleting_is_asked_for_only_where_something_is_deleted(
    token_registry: TokenRegistry,
) -> None:
    fill(token_registry, "x", "v1")
    digest = make_image(1).digest
    with create_session() as session:
        client = RegistryClient(Endpoint(Transport(session), token_registry.registry.url), "x")
        client.head_manifest(digest)

        client.delete_manifest(digest)

        assert client.head_manifest(digest) is None
    assert [one.scopes for one in token_registry.service.requests] == [
        ("repository:x:pull",),
        ("repository:x:pull,delete",),
    ]


@pytest.mark.parametrize("years", [-10, 10])
def test_a_service_whose_clock_is_off_is_believed_all_the_same(
    token_registry: TokenRegistry, engine: Engine, tmp_path: Path, years: int
) -> None:
    fill(token_registry, "x", "v1")
    token_registry.service.response_clock_skew = years * 365 * 86400.0

    copied = engine.copy(token_registry.address("x:v1"), f"oci:{tmp_path}/copy:v1")

    assert copied.state is State.DONE
    assert len(token_registry.service.requests) == 1


def test_tokens_of_another_time_are_refused_in_one_line(
    token_registry: TokenRegistry, engine: Engine, tmp_path: Path
) -> None:
    fill(token_registry, "x", "v1")
    token_registry.service.token_clock_skew = 10 * 365 * 86400.0

    with pytest.raises(AccessDenied, match="401") as caught:
        engine.copy(token_registry.address("x:v1"), f"oci:{tmp_path}/copy:v1")

    assert "\n" not in str(caught.value)
    assert len(token_registry.service.requests) == 1
