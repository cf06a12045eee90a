"""A login is kept where docker and podman look for it, and dropped from there."""

from __future__ import annotations

import json
import os
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from concil.auth.credentials import login
from concil.auth.credentials.credentials import Credentials
from concil.auth.credentials.keychain import AuthFilePaths, Keychain
from concil.errors import AccessDenied, StoreError, UsageError
from tests.support.credential_helper import FakeCredentialHelper

ALICE = Credentials("alice", "s3cr3t")
AUTH = ALICE.basic_header()[6:]
HUB = "https://index.docker.io/v1/"


@pytest.fixture
def config(home: Path) -> Path:
    """Where docker keeps its logins."""
    return home / ".docker" / "config.json"


def keyring(authfile: Path | None = None) -> Keychain:
    return Keychain(AuthFilePaths.resolve(None if authfile is None else str(authfile)))


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def write(path: Path, document: object, mode: int = 0o600) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))
    path.chmod(mode)
    return path


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_file_is_for_its_owner_alone(config: Path) -> None:
    before = os.umask(0)
    try:
        where = login.store_login(keyring(), "reg.example", ALICE)
    finally:
        os.umask(before)

    assert where == str(config)
    assert read(config) == {"auths": {"reg.example": {"auth": AUTH}}}
    assert (mode(config), mode(config.parent)) == (0o600, 0o700)
    assert [path.name for path in config.parent.iterdir()] == ["config.json"]


def test_what_is_kept_is_found(config: Path) -> None:
    for place in ("reg.example", "docker.io", "localhost:5000/team"):
        login.store_login(keyring(), place, ALICE)

        assert keyring().find_credentials(f"{place}/x") == ALICE
    assert set(read(config)["auths"]) == {"reg.example", HUB, "localhost:5000/team"}


def test_the_rest_of_the_file_and_its_mode_stay(config: Path) -> None:
    write(config, {"psFormat": "x", "auths": {"other.example": {"auth": "eDp5", "email": "e"}}})

    login.store_login(keyring(), "reg.example", ALICE)

    assert read(config) == {
        "psFormat": "x",
        "auths": {
            "other.example": {"auth": "eDp5", "email": "e"},
            "reg.example": {"auth": AUTH},
        },
    }
    assert mode(config) == 0o600


def test_a_file_that_others_can_read_is_closed(config: Path) -> None:
    write(config, {}, 0o644)

    login.store_login(keyring(), "reg.example", ALICE)

    assert mode(config) == 0o600


def test_a_link_stays_a_link(config: Path, tmp_path: Path) -> None:
    real = write(tmp_path / "dotfiles" / "docker.json", {"a": 1})
    config.parent.mkdir()
    config.symlink_to(real)

    login.store_login(keyring(), "reg.example", ALICE)

    assert config.is_symlink()
    assert set(read(real)) == {"a", "auths"}


def test_the_environment_names_the_file(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(home / "mine" / "auth.json"))

    assert login.store_login(keyring(), "reg.example", ALICE) == str(home / "mine" / "auth.json")
    assert keyring().find_credentials("reg.example/x") == ALICE


def test_an_old_login_elsewhere_is_replaced_where_it_is(home: Path, config: Path) -> None:
    older = home / "run" / "containers" / "auth.json"
    write(older, {"auths": {"reg.example": {"auth": "eDp5"}}})

    login.store_login(keyring(), "reg.example", ALICE)

    assert keyring().find_credentials("reg.example/x") == ALICE
    assert not config.exists()


def test_a_broken_file_is_left_as_it_is(config: Path) -> None:
    config.parent.mkdir()
    config.write_text("{broken")

    with pytest.raises(AccessDenied, match=r"config\.json"):
        login.store_login(keyring(), "reg.example", ALICE)

    assert config.read_text() == "{broken"


def test_what_cannot_be_written_is_told(home: Path) -> None:
    (home / "file").write_text("")

    with pytest.raises(StoreError, match=r"cannot write the login to .*File exists"):
        login.store_login(keyring(home / "file" / "auth.json"), "reg.example", ALICE)


def test_logins_at_the_same_time_are_all_kept(config: Path) -> None:
    start = threading.Barrier(8)

    def one(number: int) -> None:
        start.wait(10)
        login.store_login(keyring(), f"reg{number}.example", ALICE)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, range(8)))

    assert len(read(config)["auths"]) == 8


def test_a_login_of_another_program_meanwhile_is_kept(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """docker, podman and skopeo take no lock: they rename a new file into the place."""
    write(config, {"auths": {"old.example": {"auth": AUTH}}})
    fsync, others = os.fsync, iter(["podman.example", "docker.example"])

    def another_logs_in(descriptor: int) -> None:
        fsync(descriptor)
        other = next(others, None)
        if other is not None:
            document = read(config)
            document["auths"][other] = {"auth": AUTH}
            write(config.with_name("theirs"), document).replace(config)

    monkeypatch.setattr(os, "fsync", another_logs_in)
    login.store_login(keyring(), "reg.example", ALICE)

    places = {"old.example", "podman.example", "docker.example", "reg.example"}
    assert read(config)["auths"].keys() == places
    assert [path.name for path in config.parent.iterdir()] == ["config.json"]


def test_a_logout_does_not_bring_back_a_file_that_is_gone(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(config, {"auths": {"reg.example": {"auth": AUTH}, "b.example": {"auth": AUTH}}})
    fsync = os.fsync

    def remove(descriptor: int) -> None:
        config.unlink(missing_ok=True)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", remove)
    login.erase_login(keyring(), "reg.example")

    assert not config.exists()


def test_a_file_that_others_never_let_alone_is_told(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(config, {})
    fsync = os.fsync

    def another(descriptor: int) -> None:
        fsync(descriptor)
        write(config.with_name("theirs"), {}).replace(config)

    monkeypatch.setattr(os, "fsync", another)
    with pytest.raises(StoreError, match="other processes keep writing to it"):
        login.store_login(keyring(), "reg.example", ALICE)

    assert read(config) == {}
    assert [path.name for path in config.parent.iterdir()] == ["config.json"]


def test_what_a_killed_login_left_is_removed_by_the_next(config: Path) -> None:
    left = write(config.with_name(f".config.json.{'0' * 16}"), {"auths": {"x": {"auth": AUTH}}})

    login.store_login(keyring(), "reg.example", ALICE)

    assert not left.exists()


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: Path) -> FakeCredentialHelper:
    write(config, {"credsStore": "lab", "a": 1})
    return FakeCredentialHelper(tmp_path, monkeypatch)


def test_a_helper_gets_the_secret_and_the_file_a_mark(
    config: Path, helper: FakeCredentialHelper
) -> None:
    where = login.store_login(keyring(), "docker.io", ALICE)

    assert where == "docker-credential-lab"
    assert helper.stored == {HUB: ["alice", "s3cr3t"]}
    assert read(config) == {"credsStore": "lab", "a": 1, "auths": {HUB: {}}}
    assert keyring().find_credentials("docker.io/library/x") == ALICE


def test_a_helper_knows_no_parts_of_a_registry(helper: FakeCredentialHelper) -> None:
    with pytest.raises(UsageError, match="whole registries only"):
        login.store_login(keyring(), "reg.example/team", ALICE)

    assert helper.stored == {}


def test_a_helper_that_is_missing_keeps_nothing(config: Path) -> None:
    write(config, {"credsStore": "concil-lab-has-none"})

    with pytest.raises(AccessDenied, match="not installed"):
        login.store_login(keyring(), "reg.example", ALICE)

    assert read(config) == {"credsStore": "concil-lab-has-none"}


def test_a_login_is_dropped_from_wherever_it_was(
    home: Path, config: Path, helper: FakeCredentialHelper
) -> None:
    entry = {"auth": AUTH}
    podman = home / "run" / "containers" / "auth.json"
    write(podman, {"auths": {"https://reg.example/v1/": entry, "other.example": entry}})
    write(config, {"credsStore": "lab", "auths": {"reg.example": {}, "b.example": entry}})
    helper.stored = {"reg.example": ["alice", "s3cr3t"], "c.example": ["x", "y"]}

    dropped = login.erase_login(keyring(), "reg.example")

    assert dropped == [str(podman), "docker-credential-lab", str(config)]
    assert keyring().find_credentials("reg.example/x") is None
    assert set(read(podman)["auths"]) == {"other.example"}
    assert read(config) == {"credsStore": "lab", "auths": {"b.example": entry}}
    assert set(helper.stored) == {"c.example"}


def test_nothing_to_drop_changes_nothing(home: Path, config: Path) -> None:
    write(config, {"auths": {"reg.example/team": {"auth": AUTH}}})
    before = config.stat().st_mtime_ns, config.stat().st_ino

    assert login.erase_login(keyring(), "reg.example") == []
    assert login.erase_login(keyring(home / "none.json"), "reg.example") == []
    assert (config.stat().st_mtime_ns, config.stat().st_ino) == before


def test_a_store_that_is_missing_has_nothing_to_drop(config: Path) -> None:
    write(config, {"credsStore": "concil-lab-has-none"})

    assert login.erase_login(keyring(), "reg.example") == []


def test_all_logins_are_dropped(home: Path, config: Path, helper: FakeCredentialHelper) -> None:
    podman = home / "run" / "containers" / "auth.json"
    write(podman, {"auths": {"other.example/team": {"auth": AUTH}}})
    write(config, {"credsStore": "lab", "auths": {"reg.example": {}}})
    helper.stored = {"reg.example": ["alice", "s3cr3t"], "another": ["x", "y"]}

    dropped = login.erase_all_logins(keyring())

    assert dropped == [str(podman), "docker-credential-lab", str(config)]
    assert read(podman) == {"auths": {}}
    assert read(config) == {"credsStore": "lab", "auths": {}}
    assert set(helper.stored) == {"another"}
