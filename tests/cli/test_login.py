"""`concil login` and `logout`: who is let in, what is kept where, and who finds it."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from concil.cli.failures import DENIED, FAILED, NOT_FOUND
from concil.cli.login import parse_place
from concil.errors import UsageError
from tests.cli.desk import AUTH, Desk, Locked, fill
from tests.cli.runner import assert_fails
from tests.lab.credential_helper import FakeHelper
from tests.lab.images import make_image, write_layout
from tests.lab.registry import DockerRegistry
from tests.lab.relay import Relay
from tests.lab.requests_seen import RequestLog
from tests.lab.skopeo import Skopeo, SkopeoError
from tests.lab.tls import CertificateAuthority
from tests.registry.scripted import Scripted, reply
from tests.tokens.conftest import PASSWORD, USER

WRONG = "wr0ng-s3cret"
IDENTITY = "id3ntity"
real = pytest.mark.real


@real
def test_a_login_lets_the_next_command_in_and_a_logout_ends_that(
    desk: Desk, locked: Locked, tmp_path: Path, jobs: str
) -> None:
    (tmp_path / "file").write_bytes(b"content")
    push = ("blob", "push", jobs, tmp_path / "file", f"{locked.host}/entered")
    assert_fails(desk(*push), DENIED)

    entered = desk.log_in(locked.host)

    assert (entered.code, entered.raw) == (0, b"")
    assert entered.err == f"logged in to {locked.host} as {USER}, kept in {desk.config}\n"
    assert desk.logins == {"auths": {locked.host: {"auth": AUTH}}}
    assert stat.S_IMODE(desk.config.stat().st_mode) == 0o600
    assert desk("login", "--get-login", locked.host).lines == [USER]
    assert desk(*push).code == 0

    left = desk("logout", locked.host)

    assert (left.code, left.err) == (0, f"logged out of {locked.host}: {desk.config}\n")
    assert desk.logins == {"auths": {}}
    assert_fails(desk("login", "--get-login", locked.host), NOT_FOUND, "concil login")
    (tmp_path / "file").write_bytes(b"other content")
    assert_fails(desk(*push), DENIED)


@real
def test_a_wrong_password_is_tried_once_and_not_kept(
    desk: Desk, by_password: Locked, by_token: Locked
) -> None:
    assert by_token.service is not None
    before, seen = len(by_token.service.asked), RequestLog()

    with Relay(by_password.host, observer=seen) as relay:
        refused = desk.log_in(relay.host, password=WRONG)
        assert_fails(refused, DENIED, "401", USER, "check the credentials")
    assert [each.path for each in seen.requests if "authorization" in each.headers] == ["/v2/"]

    refused = desk.log_in(by_token.host, password=WRONG)
    assert_fails(refused, DENIED, "401", USER, "check the credentials")
    assert len(by_token.service.asked) == before + 1
    assert WRONG not in refused.err
    assert desk.kept == []


@real
def test_skopeo_and_concil_find_the_logins_of_each_other(
    desk: Desk, locked: Locked, skopeo: Skopeo, tmp_path: Path
) -> None:
    write_layout(tmp_path / "made", {"v1": make_image(1)})
    repository = f"{locked.host}/shared"
    push = (f"oci:{tmp_path}/made:v1", f"docker://{repository}:v1")
    with pytest.raises(SkopeoError):
        skopeo.copy(*push)

    assert desk.log_in(locked.host).code == 0
    skopeo.copy(*push)
    assert skopeo.run("login", "--get-login", locked.host) == f"{USER}\n".encode()
    assert desk("logout", locked.host).code == 0
    with pytest.raises(SkopeoError):
        skopeo.list_tags(f"docker://{repository}")

    skopeo.run("login", "--tls-verify=false", "-u", USER, "-p", PASSWORD, locked.host)
    copied = desk("copy", f"{repository}:v1", f"oci:{tmp_path}/copy:v1")
    assert copied.code == 0, copied.err
    assert desk("login", "--get-login", locked.host).lines == [USER]
    assert desk("logout", locked.host).code == 0
    assert_fails(desk("tags", repository), DENIED)


@real
def test_a_file_of_their_own_is_shared_too(
    desk: Desk, by_password: Locked, skopeo: Skopeo, tmp_path: Path
) -> None:
    mine, theirs = (f"--authfile={tmp_path / name}" for name in ("mine.json", "theirs.json"))
    repository = f"{by_password.host}/own"
    fill(by_password.registry, "own", "v1", make_image(1))

    assert desk.log_in(mine, by_password.host).code == 0
    skopeo.run("login", theirs, "--tls-verify=false", "-u", USER, "-p", PASSWORD, by_password.host)

    assert skopeo.list_tags(f"docker://{repository}", mine) == ["v1"]
    assert desk("tags", theirs, repository).lines == ["v1"]
    assert_fails(desk("tags", repository), DENIED)
    assert desk("logout", theirs, by_password.host).code == 0
    assert_fails(desk("tags", theirs, repository), DENIED)
    assert desk.kept == []


@real
def test_an_identity_token_is_a_login(desk: Desk, by_token: Locked, skopeo: Skopeo) -> None:
    service = by_token.service
    assert service is not None
    service.identities = {IDENTITY: USER}
    before = len(service.asked)

    assert_fails(desk.log_in("-u", "<token>", by_token.host, password="none"), DENIED, "401")
    assert desk.kept == []
    entered = desk.log_in("-u", "<token>", by_token.host, password=IDENTITY)

    assert entered.code == 0, entered.err
    assert IDENTITY not in entered.err
    assert desk.logins["auths"][by_token.host]["identitytoken"] == IDENTITY
    # Who is let in is told that there is nothing, and others that they are not.
    assert_fails(desk("tags", f"{by_token.host}/nothing"), NOT_FOUND)
    with pytest.raises(SkopeoError, match="404"):
        skopeo.list_tags(f"docker://{by_token.host}/nothing")
    granted = [asked.grant for asked in service.asked[before:] if asked.status == 200]
    assert granted == ["refresh_token"] * 3


@real
def test_an_identity_token_that_docker_kept_is_used(desk: Desk, by_token: Locked) -> None:
    assert by_token.service is not None
    by_token.service.identities = {IDENTITY: USER}
    nobody = "MDAwMDAwMDAtMDAwMC0wMDAwLTAwMDAtMDAwMDAwMDAwMDAwOg=="  # as of an Azure registry
    desk.logins = {"auths": {by_token.host: {"auth": nobody, "identitytoken": IDENTITY}}}

    assert_fails(desk("tags", f"{by_token.host}/nothing"), NOT_FOUND)


@real
def test_a_private_authority_is_named_and_a_stranger_keeps_nobody(
    desk: Desk, ca: CertificateAuthority, tmp_path: Path
) -> None:
    users = {USER: PASSWORD}
    with DockerRegistry(tmp_path / "tls", users=users, certificate=ca.issue()) as registry:
        assert_fails(desk.log_in(registry.host), FAILED, "not trusted", "--cacert")
        assert desk.kept == []

        assert desk.log_in(f"--cacert={ca.path}", registry.host).code == 0
        tags = desk("tags", f"--cacert={ca.path}", f"{registry.host}/nothing")

    assert_fails(tags, NOT_FOUND)


@real
@pytest.mark.parametrize("kind", ["credsStore", "credHelpers"])
def test_a_helper_keeps_the_login_and_all_find_it_there(
    desk: Desk, by_password: Locked, tmp_path: Path, kind: str
) -> None:
    host = by_password.host
    names = {kind: "lab" if kind == "credsStore" else {host: "lab"}}
    desk.logins = {"psFormat": "x", **names}
    helper = FakeHelper(tmp_path, desk.monkeypatch)
    assert_fails(desk("tags", f"{host}/nothing"), DENIED)

    entered = desk.log_in(host)

    assert entered.err == f"logged in to {host} as {USER}, kept in docker-credential-lab\n"
    assert helper.kept == {host: [USER, PASSWORD]}
    assert desk.logins == {"psFormat": "x", **names, "auths": {host: {}}}
    assert_fails(desk("tags", f"{host}/nothing"), NOT_FOUND)
    if kind == "credHelpers":  # skopeo knows no other
        with pytest.raises(SkopeoError, match="404"):
            Skopeo(desk.home).list_tags(f"docker://{host}/nothing")
    assert desk("logout", host).code == 0
    assert helper.kept == {}
    assert_fails(desk("tags", f"{host}/nothing"), DENIED)


@real
def test_a_helper_may_keep_an_identity_token(desk: Desk, by_token: Locked, tmp_path: Path) -> None:
    assert by_token.service is not None
    by_token.service.identities = {IDENTITY: USER}
    desk.logins = {"credsStore": "lab"}
    helper = FakeHelper(tmp_path, desk.monkeypatch)

    assert desk.log_in("-u", "<token>", by_token.host, password=IDENTITY).code == 0

    assert helper.kept == {by_token.host: ["<token>", IDENTITY]}
    assert_fails(desk("tags", f"{by_token.host}/nothing"), NOT_FOUND)


def test_a_registry_that_lets_everybody_in_is_told(desk: Desk) -> None:
    with Scripted() as registry:
        registry.on("GET", "/v2/", reply(200))

        done = desk.log_in(registry.host)

        assert done.code == 0
        assert "nobody has looked at the password" in done.err
        assert list(desk.logins["auths"]) == [registry.host]
        sent = [request.headers.get("authorization") for request in registry.requests]
        assert sent == [None, f"Basic {AUTH}"]


def test_a_registry_that_lets_everybody_in_may_refuse_a_wrong_password(desk: Desk) -> None:
    with Scripted() as registry:
        registry.on("GET", "/v2/", reply(200), reply(401))

        assert_fails(desk.log_in(registry.host, password=WRONG), DENIED, USER)
    assert desk.kept == []


def test_a_password_among_the_arguments_is_taken_with_a_warning(desk: Desk) -> None:
    with Scripted() as registry:
        registry.on("GET", "/v2/", reply(200))

        done = desk("login", "-u", USER, "-p", PASSWORD, f"http://{registry.host}/v2/")

    assert done.code == 0
    assert "warning: others can read" in done.err
    assert PASSWORD not in done.err
    assert desk.logins["auths"] == {registry.host: {"auth": AUTH}}


def test_a_login_that_another_hides_is_told(desk: Desk) -> None:
    with Scripted() as registry:
        registry.on("GET", "/v2/", reply(200))
        inline = {"auths": {registry.host: {"auth": "Ym9iOng="}}}
        desk.monkeypatch.setenv("DOCKER_AUTH_CONFIG", json.dumps(inline))

        assert "another login" in desk.log_in(registry.host).err
        assert desk("login", "--get-login", registry.host).lines == ["bob"]
        assert "'bob'" in desk("logout", registry.host).err
        assert_fails(desk("logout", registry.host), NOT_FOUND, "'bob'", "DOCKER_AUTH_CONFIG")


def test_a_part_of_a_registry_has_a_login_of_its_own(desk: Desk) -> None:
    with Scripted() as registry:
        registry.on("GET", "/v2/", reply(200))
        place = f"{registry.host}/team/app"

        assert desk.log_in(place).code == 0
        assert list(desk.logins["auths"]) == [place]
        assert_fails(desk("login", "--get-login", registry.host), NOT_FOUND)
        assert_fails(desk("logout", registry.host), NOT_FOUND)
        assert desk("logout", place).code == 0


def test_all_logins_are_left_at_once(desk: Desk) -> None:
    desk.logins = {"auths": {"a.example": {"auth": AUTH}, "b.example/x": {"auth": AUTH}}}

    left, again = desk("logout", "--all"), desk("logout", "--all")

    assert (left.code, desk.logins) == (0, {"auths": {}})
    assert (again.code, again.err) == (0, "nobody was logged in\n")


@pytest.mark.parametrize(
    ("text", "place", "base"),
    [
        ("reg.example", "reg.example", "https://reg.example"),
        ("docker://Reg.example:5000/", "reg.example:5000", "https://reg.example:5000"),
        ("http://reg.example:5000", "reg.example:5000", "http://reg.example:5000"),
        ("https://reg.example/v2/", "reg.example", "https://reg.example"),
        ("registry", "registry", "https://registry"),
        ("reg.example/v2", "reg.example/v2", "https://reg.example"),
        ("reg.example/team/app", "reg.example/team/app", "https://reg.example"),
        ("docker.io", "docker.io", "https://registry-1.docker.io"),
        ("docker.io/library", "docker.io/library", "https://registry-1.docker.io"),
        ("https://index.docker.io/v1/", "docker.io", "https://registry-1.docker.io"),
        ("[::1]:5000", "[::1]:5000", "https://[::1]:5000"),
    ],
)
def test_what_a_login_is_for(text: str, place: str, base: str) -> None:
    reference, found = parse_place(text)

    assert found == place
    assert f"{reference.api_scheme}://{reference.api_host}" == base


@pytest.mark.parametrize(
    "text",
    ["/", "//", "://", "a@b@c", "host/x@sha256:y", "[::1", "x" * 300 + "!", "\x1b[31m", "h:99999"],
)
def test_what_no_login_is_for(text: str) -> None:
    with pytest.raises(UsageError):
        parse_place(text)
