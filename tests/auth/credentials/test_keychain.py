"""Where stored credentials are looked for, and which of several are taken."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from concil.auth.credentials.credentials import Credentials
from concil.auth.credentials.keychain import AuthFilePaths, Keychain
from concil.errors import AccessDenied
from tests.cli.runner import FORBIDDING
from tests.support.credential_helper import FakeCredentialHelper

HUB = "https://index.docker.io/v1/"


def user(name: str) -> Credentials:
    return Credentials(name, "s3cr3t")


def auths(users: dict[str, str]) -> dict[str, object]:
    entry = {key: {"auth": user(name).basic_header()[6:]} for key, name in users.items()}
    return {"auths": entry}


def write(path: Path, content: dict[str, object] | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def keyring(authfile: Path | None = None) -> Keychain:
    return Keychain(AuthFilePaths.resolve(None if authfile is None else str(authfile)))


def found(place: str = "reg.example/team/app") -> str | None:
    credentials = keyring().find_credentials(place)
    return None if credentials is None else credentials.username


# Which file ----------------------------------------------------------------------------


def test_files_are_looked_at_in_order(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = [
        (home / ".docker" / "config.json", "docker"),
        (None, "inline"),
        (home / "config" / "containers" / "auth.json", "config"),
        (home / "run" / "containers" / "auth.json", "runtime"),
        (home / "named.json", "named"),
    ]
    assert found() is None

    for path, name in places:
        content = auths({"reg.example": name})
        if path is None:
            monkeypatch.setenv("DOCKER_AUTH_CONFIG", json.dumps(content))
        else:
            write(path, content)
        if name == "named":
            monkeypatch.setenv("REGISTRY_AUTH_FILE", str(path))
        assert found() == name


def test_a_file_without_the_host_lets_the_next_one_answer(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = write(home / "named.json", auths({"other.example": "wrong"}))
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(named))
    write(home / "run" / "containers" / "auth.json", {"auths": {"reg.example": {}}})
    write(home / ".docker" / "config.json", auths({"reg.example": "docker"}))

    assert found() == "docker"


def test_the_usual_places_without_any_variable(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "DOCKER_CONFIG"):
        monkeypatch.delenv(name)

    shelf = AuthFilePaths.resolve(None)

    assert shelf.paths == (
        Path(f"/run/containers/{os.getuid()}/auth.json"),
        home / ".config" / "containers" / "auth.json",
        home / ".docker" / "config.json",
    )
    assert shelf.login_path == home / ".docker" / "config.json"


def test_a_file_that_is_named_is_the_only_one(home: Path) -> None:
    write(home / ".docker" / "config.json", auths({"reg.example": "docker"}))
    mine = write(home / "mine.json", auths({"other.example": "me"}))

    assert keyring(mine).find_credentials("reg.example/x") is None
    assert keyring(mine).find_credentials("other.example/x") == user("me")


def test_a_file_is_read_anew_for_each_answer(home: Path) -> None:
    path = write(home / ".docker" / "config.json", auths({"reg.example": "before"}))
    ring = keyring()
    assert ring.find_credentials("reg.example/x") == user("before")

    write(path, auths({"reg.example": "after"}))

    assert ring.find_credentials("reg.example/x") == user("after")


# Which entry ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("reg.example/team/app", "app"),
        ("reg.example/team/app/part", "app"),
        ("reg.example/team/apple", "team"),
        ("reg.example/teams", "host"),
        ("reg.example:5000/team/app", None),
        ("other.example/team/app", None),
        ("docker.io/library/alpine", "hub"),
        ("registry-1.docker.io/library/alpine", "hub"),
    ],
)
def test_the_longest_prefix_wins(home: Path, place: str, name: str | None) -> None:
    users = {
        "https://reg.example/v1/": "host",
        "reg.example/team": "team",
        "reg.example/team/app": "app",
        HUB: "hub",
    }
    write(home / ".docker" / "config.json", auths(users))

    assert found(place) == name


def test_places_with_the_same_entries_share_a_scope(home: Path) -> None:
    write(home / ".docker" / "config.json", auths({"reg.example/team": "team"}))
    write(
        home / "run" / "containers" / "auth.json",
        auths({"reg.example/team/app": "app", "reg.example": "host"}),
    )
    ring = keyring()

    places = ("team/app", "team/app/x", "team/other", "else", "")
    scopes = [ring.credential_scope(f"reg.example/{place}") for place in places]

    assert scopes == [
        "reg.example/team/app",
        "reg.example/team/app",
        "reg.example/team",
        "reg.example",
        "reg.example",
    ]
    for place, scope in zip(places, scopes, strict=True):
        assert ring.find_credentials(scope) == ring.find_credentials(f"reg.example/{place}")


def test_a_scope_is_known_whatever_is_broken(home: Path) -> None:
    write(home / "run" / "containers" / "auth.json", "broken")
    write(home / ".docker" / "config.json", auths({"reg.example/team": "team"}))

    assert keyring().credential_scope("reg.example/team/app") == "reg.example/team"


def test_only_one_user_may_be_asked_for(home: Path) -> None:
    write(home / "run" / "containers" / "auth.json", auths({"reg.example": "alice"}))
    write(home / ".docker" / "config.json", auths({"reg.example": "bob"}))
    ring = keyring()

    assert ring.find_credentials("reg.example/x", "bob") == user("bob")
    assert ring.find_credentials("reg.example/x", "carol") is None
    assert ring.find_credentials("reg.example/x", "") is None


# Helpers -------------------------------------------------------------------------------


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeCredentialHelper:
    fake = FakeCredentialHelper(tmp_path, monkeypatch)
    fake.stored = {"reg.example": ["helped", "s3cr3t"], HUB: ["hub", "s3cr3t"]}
    return fake


@pytest.mark.parametrize(
    "configured", [{"credsStore": "lab"}, {"credHelpers": {"reg.example": "lab"}}]
)
def test_a_helper_wins_over_the_file(
    home: Path, helper: FakeCredentialHelper, configured: dict[str, object]
) -> None:
    more = auths({"reg.example": "file", "other.example": "other"})
    write(home / ".docker" / "config.json", more | configured)

    assert found() == "helped"
    assert found("other.example/x") == "other"


def test_docker_io_has_its_own_name(home: Path, helper: FakeCredentialHelper) -> None:
    write(home / ".docker" / "config.json", {"credsStore": "lab"})

    assert found("docker.io/library/alpine") == "hub"
    assert helper.calls == [(["get"], HUB)]


def test_a_host_without_a_login_costs_one_run(home: Path, helper: FakeCredentialHelper) -> None:
    write(home / ".docker" / "config.json", {"credsStore": "lab"})

    assert found("none.example/a/b") is None
    assert helper.calls == [(["get"], "none.example")]


def test_a_scope_runs_no_helper(home: Path, helper: FakeCredentialHelper) -> None:
    write(home / ".docker" / "config.json", {"credsStore": "lab"})

    keyring().credential_scope("reg.example/x")

    assert helper.calls == []


def test_a_store_that_is_missing_may_never_have_known_the_host(
    home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(home / ".docker" / "config.json", {"credsStore": "concil-lab-has-none"})

    with caplog.at_level(logging.WARNING, "concil"):
        assert found() is None

    (record,) = caplog.records
    assert "docker-credential-concil-lab-has-none, which is not installed" in record.getMessage()


@pytest.mark.parametrize(
    "configured",
    [
        {"credsStore": "concil-lab-has-none", "auths": {"reg.example": {}}},
        {"credHelpers": {"reg.example": "concil-lab-has-none"}},
    ],
)
def test_a_helper_that_has_the_login_and_is_missing_is_an_error(
    home: Path, configured: dict[str, object]
) -> None:
    write(home / ".docker" / "config.json", configured)

    with pytest.raises(AccessDenied, match="concil-lab-has-none"):
        found()


def test_a_helper_that_would_be_another_program(home: Path) -> None:
    write(home / ".docker" / "config.json", {"credsStore": "../../bin/sh"})

    with pytest.raises(AccessDenied, match=r"config\.json.*not the name of a credential helper"):
        found()


# Broken files --------------------------------------------------------------------------


def test_a_broken_file_in_front_is_told(home: Path) -> None:
    path = write(home / "run" / "containers" / "auth.json", '{"auths": s3cr3t')
    write(home / ".docker" / "config.json", auths({"reg.example": "docker"}))

    with pytest.raises(AccessDenied) as caught:
        found()

    assert str(path) in str(caught.value)
    assert "log in" in caught.value.remedy
    assert "s3cr3t" not in str(caught.value)


def test_a_broken_file_behind_the_answer_harms_nobody(home: Path) -> None:
    write(home / "run" / "containers" / "auth.json", auths({"reg.example": "alice"}))
    write(home / ".docker" / "config.json", "broken")

    assert found() == "alice"


def test_a_variable_that_is_broken_is_named_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_AUTH_CONFIG", '{"auths": "s3cr3t')

    with pytest.raises(AccessDenied, match="DOCKER_AUTH_CONFIG") as caught:
        found()

    assert "s3cr3t" not in str(caught.value)


def test_what_is_no_file_is_told_and_does_not_hang(home: Path) -> None:
    path = home / "auth.json"
    os.mkfifo(path)
    (home / "directory").mkdir()
    with (home / "large").open("wb") as file:
        file.truncate(1 << 30)

    for name, cause in (
        (path, "not a regular file"),
        (home / "directory", ""),
        (home / "large", "larger than"),
        (home / "nul\0", "not a file name"),
    ):
        with pytest.raises(AccessDenied, match="cannot read the logins") as caught:
            keyring(name).find_credentials("reg.example")
        assert cause in str(caught.value)


def test_a_file_that_may_not_be_read(home: Path) -> None:
    path = write(home / "auth.json", auths({"reg.example": "x"}))
    path.chmod(0)
    ask = (
        "import sys; from concil.auth.credentials.keychain import Keychain, AuthFilePaths; "
        "Keychain(AuthFilePaths.resolve(sys.argv[1])).find_credentials('reg.example')"
    )

    done = subprocess.run(
        [*FORBIDDING, sys.executable, "-c", ask, str(path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert "AccessDenied: cannot read the logins" in done.stderr
    assert "Permission denied" in done.stderr


def test_nothing_is_an_empty_file(home: Path) -> None:
    assert keyring(Path(os.devnull)).find_credentials("reg.example") is None
    assert keyring(home / "none" / "auth.json").find_credentials("reg.example") is None
    assert keyring(write(home / "file", "{}") / "auth.json").find_credentials("reg.example") is None
