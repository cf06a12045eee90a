"""Passwords and rights: what is tried once, what is told, what goes on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest

from concil import Engine, MirrorItem, TransferConfig
from concil.errors import AccessDenied, NotTried, RegistryDenied
from concil.progress import State
from concil.registry.client import RegistryClient
from concil.registry.credentials import Credentials, Login
from concil.registry.endpoint import Endpoint
from concil.registry.http_session import new_session
from concil.registry.session import Transport
from concil.transfer.mirror import MirrorReport
from tests.lab.images import make_image, put_image, write_layout
from tests.lab.registry import DockerRegistry
from tests.lab.relay import Relay
from tests.lab.requests_seen import RequestLog
from tests.lab.token_service import EVERYTHING, Asked
from tests.tokens.conftest import PASSWORD, USER, WRITTEN, Place

pytestmark = pytest.mark.real
WRONG = f"{USER}:wr0ng-s3cret"


@pytest.fixture
def engine() -> Iterator[Engine]:
    with Engine(TransferConfig(workers=16, images=16, per_host=16)) as engine:
        yield engine


def passwords(place: Place) -> list[Asked]:
    return [asked for asked in place.service.asked if asked.grant in ("basic", "password")]


def fill(place: Place, repository: str, *tags: str) -> None:
    with place.session(repository) as session:
        for tag in tags:
            put_image(place.registry.url, repository, tag, make_image(1), session=session)


def assert_one_is_told_for_all(report: MirrorReport, images: int) -> None:
    """Look for one failure, and for images that were not tried for the same cause."""
    kinds = Counter(type(outcome.error) for outcome in report.failed)
    assert kinds == {RegistryDenied: 1, NotTried: images - 1}
    assert len({str(outcome.error) for outcome in report.failed}) == 1


def test_a_wrong_password_is_tried_once_for_all_images_and_threads(
    place: Place, engine: Engine, tmp_path: Path
) -> None:
    items = [
        MirrorItem(place.address(f"repo-{n}:v1", user=WRONG), f"oci:{tmp_path}/copy:{n}")
        for n in range(20)
    ]

    report = engine.mirror(items)

    assert_one_is_told_for_all(report, 20)
    assert {str(outcome.error).count(repr(USER)) for outcome in report.failed} == {1}
    assert not any("wr0ng" in str(outcome.error) for outcome in report.failed)
    [only] = passwords(place)
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


def test_an_identity_token_of_a_login_is_enough(place: Place) -> None:
    fill(place, "x", "v1")
    place.service.identities = {"id3ntity": USER}
    place.service.rights = lambda user, _: EVERYTHING if user == USER else ()
    login = Login(stored=lambda: Credentials("<token>", "", identity_token="id3ntity"))
    with new_session() as session:
        endpoint = Endpoint(Transport(session), place.registry.url, login=login)

        found = RegistryClient(endpoint, "x").head_manifest("v1")

    assert found is not None
    assert [(asked.method, asked.grant, asked.user) for asked in place.service.asked] == [
        ("POST", "refresh_token", USER)
    ]


def test_a_password_is_for_the_token_service_alone(
    place: Place, engine: Engine, tmp_path: Path
) -> None:
    fill(place, "x", "v1")
    place.service.rights = lambda user, _: EVERYTHING if user == USER else ()

    copied = engine.copy(place.address("x:v1", user=WRITTEN), f"oci:{tmp_path}/copy:v1")

    assert copied.state is State.DONE
    assert {asked.user for asked in passwords(place)} == {USER}
    sent = {request.headers.get("authorization", "") for request in place.seen.requests}
    assert not any(PASSWORD in one or one.startswith("Basic") for one in sent)


def test_only_what_is_needed_is_asked_for(place: Place, engine: Engine, tmp_path: Path) -> None:
    write_layout(tmp_path / "images", {"v1": make_image(1)})

    engine.copy(f"oci:{tmp_path}/images:v1", place.address("x:v1"))
    engine.copy(place.address("x:v1"), f"oci:{tmp_path}/copy:v1")

    asked = {scope for one in place.service.asked for scope in one.scopes}
    assert asked == {"repository:x:pull", "repository:x:pull,push"}


def test_a_repository_that_is_forbidden_fails_alone(
    place: Place, engine: Engine, tmp_path: Path
) -> None:
    names = [f"repo-{n}" for n in range(6)]
    for name in names:
        fill(place, name, "v1")

    def rights(user: str | None, name: str) -> Collection[str]:
        return () if name == "repo-3" else EVERYTHING

    place.service.rights = rights
    items = [
        MirrorItem(place.address(f"{name}:v1", user=WRITTEN), f"oci:{tmp_path}/copy:{name}")
        for name in names
    ]

    report = engine.mirror(items)

    [failed] = report.failed
    assert "repo-3" in failed.item.source
    assert isinstance(failed.error, AccessDenied)
    # A new token would hold no more: it is asked for once.
    assert len([one for one in place.service.asked if "repository:repo-3:pull" in one.scopes]) == 1


@pytest.mark.parametrize("allowed", [True, False], ids=["the mount", "not the mount"])
def test_a_blob_is_mounted_or_sent_whatever_the_service_grants(
    place: Place, engine: Engine, allowed: bool
) -> None:
    fill(place, "from", "v1")

    def rights(user: str | None, name: str) -> Collection[str]:
        return EVERYTHING if name == "to" or (allowed and user is not None) else ("pull",)

    place.service.rights = rights
    user = WRITTEN if allowed else ""

    copied = engine.copy(place.address("from:v1", user=user), place.address("to:v1", user=user))

    assert copied.state is State.DONE
    wanted = ("repository:to:pull,push", "repository:from:pull")
    assert wanted in {one.scopes for one in place.service.asked}


def test_a_mount_that_the_service_refuses_is_done_without(place: Place, engine: Engine) -> None:
    """The source may be read only by another user."""
    fill(place, "from", "v1")

    def rights(user: str | None, name: str) -> Collection[str]:
        return EVERYTHING if (name == "to") is (user is None) else ()

    place.service.rights = rights

    copied = engine.copy(place.address("from:v1", user=WRITTEN), place.address("to:v1"))

    assert copied.state is State.DONE
    assert {landed.state for landed in copied.blobs} == {State.DONE}


def test_deleting_is_asked_for_only_where_something_is_deleted(place: Place) -> None:
    fill(place, "x", "v1")
    digest = make_image(1).digest
    with new_session() as session:
        client = RegistryClient(Endpoint(Transport(session), place.registry.url), "x")
        client.head_manifest(digest)

        client.delete_manifest(digest)

        assert client.head_manifest(digest) is None
    assert [one.scopes for one in place.service.asked] == [
        ("repository:x:pull",),
        ("repository:x:pull,delete",),
    ]


@pytest.mark.parametrize("years", [-10, 10])
def test_a_service_whose_clock_is_off_is_believed_all_the_same(
    place: Place, engine: Engine, tmp_path: Path, years: int
) -> None:
    fill(place, "x", "v1")
    place.service.clock = years * 365 * 86400.0

    copied = engine.copy(place.address("x:v1"), f"oci:{tmp_path}/copy:v1")

    assert copied.state is State.DONE
    assert len(place.service.asked) == 1


def test_tokens_of_another_time_are_refused_in_one_line(
    place: Place, engine: Engine, tmp_path: Path
) -> None:
    fill(place, "x", "v1")
    place.service.skew = 10 * 365 * 86400.0

    with pytest.raises(AccessDenied, match="401") as caught:
        engine.copy(place.address("x:v1"), f"oci:{tmp_path}/copy:v1")

    assert "\n" not in str(caught.value)
    assert len(place.service.asked) == 1
