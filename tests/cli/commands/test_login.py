"""`concil login` and `logout`: who is let in, what is kept where, and who finds it."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from concil.cli.commands.login import parse_registry
from concil.cli.output.errors import ACCESS_DENIED, FAILED, NOT_FOUND
from concil.errors import UsageError
from tests.cli.login_harness import AUTH, AuthRegistry, CommandLineHarness, fill
from tests.cli.runner import assert_fails, assert_one_line
from tests.support.credential_helper import FakeCredentialHelper
from tests.support.docker_registry import DockerRegistry
from tests.support.images import make_image, write_layout
from tests.support.relay import Relay
from tests.support.request_log import RequestLog
from tests.support.scripted_server import ScriptedServer, reply
from tests.support.skopeo import Skopeo, SkopeoError
from tests.support.tls import CertificateAuthority
from tests.tokens.conftest import PASSWORD, USER

WRONG = "wr0ng-s3cret"
IDENTITY = "id3ntity"
real = pytest.mark.real


@real
def test_a_login_lets_the_next_command_in_and_a_logout_ends_that(
    harness: CommandLineHarness, auth_registry: AuthRegistry, tmp_path: Path, jobs: str
) -> None:
    (tmp_path / "file").write_bytes(b"content")
    push = ("blob", "push", jobs, tmp_path / "file", f"{auth_registry.host}/entered")
    assert_fails(harness(*push), ACCESS_DENIED)

    entered = harness.log_in(auth_registry.host)

    assert (entered.code, entered.raw) == (0, b"")
    assert (
        entered.err == f"logged in to {auth_registry.host} as {USER}, stored in {harness.config}\n"
    )
    assert harness.logins == {"auths": {auth_registry.host: {"auth": AUTH}}}
    assert stat.S_IMODE(harness.config.stat().st_mode) == 0o600
    assert harness("login", "--get-login", auth_registry.host).lines == [USER]
    assert harness(*push).code == 0

    left = harness("logout", auth_registry.host)

    assert (left.code, left.err) == (0, f"logged out of {auth_registry.host}: {harness.config}\n")
    assert harness.logins == {"auths": {}}
    assert_fails(harness("login", "--get-login", auth_registry.host), NOT_FOUND, "concil login")
    (tmp_path / "file").write_bytes(b"other content")
    assert_fails(harness(*push), ACCESS_DENIED)


@real
def test_a_wrong_password_is_tried_once_and_not_kept(
    harness: CommandLineHarness,
    basic_auth_registry: AuthRegistry,
    token_auth_registry: AuthRegistry,
) -> None:
    assert token_auth_registry.service is not None
    before, seen = len(token_auth_registry.service.requests), RequestLog()

    with Relay(basic_auth_registry.host, observer=seen) as relay:
        refused = harness.log_in(relay.host, password=WRONG)
        assert_fails(refused, ACCESS_DENIED, "401", USER, "check the credentials")
    assert [each.path for each in seen.requests if "authorization" in each.headers] == ["/v2/"]

    refused = harness.log_in(token_auth_registry.host, password=WRONG)
    assert_fails(refused, ACCESS_DENIED, "401", USER, "check the credentials")
    assert len(token_auth_registry.service.requests) == before + 1
    assert WRONG not in refused.err
    assert harness.auth_files == []


@real
def test_skopeo_and_concil_find_the_logins_of_each_other(
    harness: CommandLineHarness, auth_registry: AuthRegistry, skopeo: Skopeo, tmp_path: Path
) -> None:
    write_layout(tmp_path / "made", {"v1": make_image(1)})
    repository = f"{auth_registry.host}/shared"
    push = (f"oci:{tmp_path}/made:v1", f"docker://{repository}:v1")
    with pytest.raises(SkopeoError):
        skopeo.copy(*push)

    assert harness.log_in(auth_registry.host).code == 0
    skopeo.copy(*push)
    assert skopeo.run("login", "--get-login", auth_registry.host) == f"{USER}\n".encode()
    assert harness("logout", auth_registry.host).code == 0
    with pytest.raises(SkopeoError):
        skopeo.list_tags(f"docker://{repository}")

    skopeo.run("login", "--tls-verify=false", "-u", USER, "-p", PASSWORD, auth_registry.host)
    copied = harness("copy", f"{repository}:v1", f"oci:{tmp_path}/copy:v1")
    assert copied.code == 0, copied.err
    assert harness("login", "--get-login", auth_registry.host).lines == [USER]
    assert harness("logout", auth_registry.host).code == 0
    assert_fails(harness("tags", repository), ACCESS_DENIED)


@real
def test_a_file_of_their_own_is_shared_too(
    harness: CommandLineHarness, basic_auth_registry: AuthRegistry, skopeo: Skopeo, tmp_path: Path
) -> None:
    mine, theirs = (f"--authfile={tmp_path / name}" for name in ("mine.json", "theirs.json"))
    repository = f"{basic_auth_registry.host}/own"
    fill(basic_auth_registry.registry, "own", "v1", make_image(1))

    assert harness.log_in(mine, basic_auth_registry.host).code == 0
    skopeo.run(
        "login", theirs, "--tls-verify=false", "-u", USER, "-p", PASSWORD, basic_auth_registry.host
    )

    assert skopeo.list_tags(f"docker://{repository}", mine) == ["v1"]
    assert harness("tags", theirs, repository).lines == ["v1"]
    assert_fails(harness("tags", repository), ACCESS_DENIED)
    assert harness("logout", theirs, basic_auth_registry.host).code == 0
    assert_fails(harness("tags", theirs, repository), ACCESS_DENIED)
    assert harness.auth_files == []


@real
def test_an_identity_token_is_a_login(
    harness: CommandLineHarness, token_auth_registry: AuthRegistry, skopeo: Skopeo
) -> None:
    service = token_auth_registry.service
    assert service is not None
    service.refresh_tokens = {IDENTITY: USER}
    before = len(service.requests)

    assert_fails(
        harness.log_in("-u", "<token>", token_auth_registry.host, password="none"),
        ACCESS_DENIED,
        "401",
    )
    assert harness.auth_files == []
    entered = harness.log_in("-u", "<token>", token_auth_registry.host, password=IDENTITY)

    assert entered.code == 0, entered.err
    assert IDENTITY not in entered.err
    assert harness.logins["auths"][token_auth_registry.host]["identitytoken"] == IDENTITY
    # Who is let in is told that there is nothing, and others that they are not.
    assert_fails(harness("tags", f"{token_auth_registry.host}/nothing"), NOT_FOUND)
    with pytest.raises(SkopeoError, match="404"):
        skopeo.list_tags(f"docker://{token_auth_registry.host}/nothing")
    granted = [asked.grant for asked in service.requests[before:] if asked.status == 200]
    assert granted == ["refresh_token"] * 3


@real
def test_an_identity_token_that_docker_kept_is_used(
    harness: CommandLineHarness, token_auth_registry: AuthRegistry
) -> None:
    assert token_auth_registry.service is not None
    token_auth_registry.service.refresh_tokens = {IDENTITY: USER}
    nobody = "MDAwMDAwMDAtMDAwMC0wMDAwLTAwMDAtMDAwMDAwMDAwMDAwOg=="  # as of an Azure registry
    harness.logins = {
        "auths": {token_auth_registry.host: {"auth": nobody, "identitytoken": IDENTITY}}
    }

    assert_fails(harness("tags", f"{token_auth_registry.host}/nothing"), NOT_FOUND)


@real
def test_private_ca_is_accepted_by_option_and_an_unknown_one_stores_no_login(
    harness: CommandLineHarness, ca: CertificateAuthority, tmp_path: Path
) -> None:
    users = {USER: PASSWORD}
    with DockerRegistry(tmp_path / "tls", users=users, certificate=ca.issue()) as registry:
        assert_fails(harness.log_in(registry.host), FAILED, "not trusted", "--cacert")
        assert harness.auth_files == []

        assert harness.log_in(f"--cacert={ca.path}", registry.host).code == 0
        tags = harness("tags", f"--cacert={ca.path}", f"{registry.host}/nothing")

    assert_fails(tags, NOT_FOUND)


@real
@pytest.mark.parametrize("kind", ["credsStore", "credHelpers"])
def test_login_is_stored_in_a_helper_and_found_there(
    harness: CommandLineHarness, basic_auth_registry: AuthRegistry, tmp_path: Path, kind: str
) -> None:
    host = basic_auth_registry.host
    names = {kind: "lab" if kind == "credsStore" else {host: "lab"}}
    harness.logins = {"psFormat": "x", **names}
    helper = FakeCredentialHelper(tmp_path, harness.monkeypatch)
    assert_fails(harness("tags", f"{host}/nothing"), ACCESS_DENIED)

    entered = harness.log_in(host)

    assert entered.err == f"logged in to {host} as {USER}, stored in docker-credential-lab\n"
    assert helper.stored == {host: [USER, PASSWORD]}
    assert harness.logins == {"psFormat": "x", **names, "auths": {host: {}}}
    assert_fails(harness("tags", f"{host}/nothing"), NOT_FOUND)
    if kind == "credHelpers":  # skopeo knows no other
        with pytest.raises(SkopeoError, match="404"):
            Skopeo(harness.home).list_tags(f"docker://{host}/nothing")
    assert harness("logout", host).code == 0
    assert helper.stored == {}
    assert_fails(harness("tags", f"{host}/nothing"), ACCESS_DENIED)


@real
def test_a_helper_may_keep_an_identity_token(
    harness: CommandLineHarness, token_auth_registry: AuthRegistry, tmp_path: Path
) -> None:
    assert token_auth_registry.service is not None
    token_auth_registry.service.refresh_tokens = {IDENTITY: USER}
    harness.logins = {"credsStore": "lab"}
    helper = FakeCredentialHelper(tmp_path, harness.monkeypatch)

    assert harness.log_in("-u", "<token>", token_auth_registry.host, password=IDENTITY).code == 0

    assert helper.stored == {token_auth_registry.host: ["<token>", IDENTITY]}
    assert_fails(harness("tags", f"{token_auth_registry.host}/nothing"), NOT_FOUND)


def test_registry_with_anonymous_access_prints_a_warning(harness: CommandLineHarness) -> None:
    with ScriptedServer() as registry:
        registry.respond("GET", "/v2/", reply(200))

        result = harness.log_in(registry.host)

        assert result.code == 0
        assert "did not check the password" in result.err
        assert list(harness.logins["auths"]) == [registry.host]
        sent = [request.headers.get("authorization") for request in registry.requests]
        assert sent == [None, f"Basic {AUTH}"]


def test_a_website_is_no_registry(harness: CommandLineHarness) -> None:
    with ScriptedServer() as website:
        website.respond("GET", "/v2/", reply(200, "<!DOCTYPE html><title>Welcome</title>"))

        result = harness.log_in(website.host)

        assert_one_line(result.err, website.host, "the answer is a web page ('Welcome')")
        assert result.code == 1
        assert not harness.config.exists()


def test_registry_with_anonymous_access_may_refuse_a_wrong_password(
    harness: CommandLineHarness,
) -> None:
    with ScriptedServer() as registry:
        registry.respond("GET", "/v2/", reply(200), reply(401))

        assert_fails(harness.log_in(registry.host, password=WRONG), ACCESS_DENIED, USER)
    assert harness.auth_files == []


def test_a_password_among_the_arguments_is_taken_with_a_warning(
    harness: CommandLineHarness,
) -> None:
    with ScriptedServer() as registry:
        registry.respond("GET", "/v2/", reply(200))

        result = harness("login", "-u", USER, "-p", PASSWORD, f"http://{registry.host}/v2/")

    assert result.code == 0
    assert "warning: other users can read" in result.err
    assert PASSWORD not in result.err
    assert harness.logins["auths"] == {registry.host: {"auth": AUTH}}


def test_login_with_lower_precedence_prints_a_warning(harness: CommandLineHarness) -> None:
    with ScriptedServer() as registry:
        registry.respond("GET", "/v2/", reply(200))
        inline = {"auths": {registry.host: {"auth": "Ym9iOng="}}}
        harness.monkeypatch.setenv("DOCKER_AUTH_CONFIG", json.dumps(inline))

        assert "another login" in harness.log_in(registry.host).err
        assert harness("login", "--get-login", registry.host).lines == ["bob"]
        assert "'bob'" in harness("logout", registry.host).err
        assert_fails(harness("logout", registry.host), NOT_FOUND, "'bob'", "DOCKER_AUTH_CONFIG")


def test_prefix_of_a_registry_has_a_separate_login(harness: CommandLineHarness) -> None:
    with ScriptedServer() as registry:
        registry.respond("GET", "/v2/", reply(200))
        place = f"{registry.host}/team/app"

        assert harness.log_in(place).code == 0
        assert list(harness.logins["auths"]) == [place]
        assert_fails(harness("login", "--get-login", registry.host), NOT_FOUND)
        assert_fails(harness("logout", registry.host), NOT_FOUND)
        assert harness("logout", place).code == 0


def test_all_logins_are_removed_at_once(harness: CommandLineHarness) -> None:
    harness.logins = {"auths": {"a.example": {"auth": AUTH}, "b.example/x": {"auth": AUTH}}}

    left, again = harness("logout", "--all"), harness("logout", "--all")

    assert (left.code, harness.logins) == (0, {"auths": {}})
    assert (again.code, again.err) == (0, "there are no logins\n")


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
    reference, found = parse_registry(text)

    assert found == place
    assert f"{reference.api_scheme}://{reference.api_host}" == base


@pytest.mark.parametrize(
    "text",
    ["/", "//", "://", "a@b@c", "host/x@sha256:y", "[::1", "x" * 300 + "!", "\x1b[31m", "h:99999"],
)
def test_what_no_login_is_for(text: str) -> None:
    with pytest.raises(UsageError):
        parse_registry(text)
