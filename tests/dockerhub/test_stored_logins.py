"""A login of docker's or podman's is used before anybody is asked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from concil.auth.credentials.credentials import Credentials
from concil.errors import AccessDenied, RegistryDenied
from tests.dockerhub.conftest import PASSWORD, USER, MakeHub
from tests.support.docker_registry import DockerRegistry

pytestmark = pytest.mark.real


@pytest.fixture
def questions(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a person was asked; the answer is always right."""
    asked: list[str] = []

    def answer(prompt: str, text: str) -> str:
        asked.append(prompt)
        return text

    monkeypatch.setattr("builtins.input", lambda prompt="": answer(prompt, USER))
    monkeypatch.setattr("getpass.getpass", lambda prompt="": answer(prompt, PASSWORD))
    return asked


def log_in(home: Path, place: str, password: str = PASSWORD) -> None:
    auth = Credentials(USER, password).basic_header().removeprefix("Basic ")
    path = home / ".docker" / "config.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"auths": {place: {"auth": auth}}}))


@pytest.mark.parametrize("namespace", ["", "/team"])
def test_a_login_is_found(
    home: Path,
    basic_auth_registry: DockerRegistry,
    make_hub: MakeHub,
    questions: list[str],
    namespace: str,
) -> None:
    log_in(home, basic_auth_registry.host + namespace)
    hub = make_hub(f"http://{basic_auth_registry.host}/team/stored")

    response = hub.post_blob_data(
        b"x", "sha256:2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"
    )

    assert response.status_code == 201
    assert questions == []
    assert (hub.username, hub.password) == (None, None)


def test_a_login_for_another_namespace_is_none(
    home: Path, basic_auth_registry: DockerRegistry, make_hub: MakeHub, questions: list[str]
) -> None:
    log_in(home, f"{basic_auth_registry.host}/other")
    hub = make_hub(f"http://{basic_auth_registry.host}/team/stored")

    assert not hub.has_blob("sha256:" + "0" * 64)

    assert len(questions) == 2


def test_another_user_is_asked_for_the_password(
    home: Path, basic_auth_registry: DockerRegistry, make_hub: MakeHub, questions: list[str]
) -> None:
    log_in(home, basic_auth_registry.host, "wrong")
    hub = make_hub(f"http://{basic_auth_registry.host}/team/stored")
    hub.username = "somebody else"

    with pytest.raises(RegistryDenied):
        hub.has_blob("sha256:" + "0" * 64)

    assert len(questions) == 1
    assert hub.username == "somebody else"


def test_nobody_has_no_login(
    home: Path, basic_auth_registry: DockerRegistry, make_hub: MakeHub, questions: list[str]
) -> None:
    log_in(home, basic_auth_registry.host)
    hub = make_hub(f"http://:@{basic_auth_registry.host}/team/stored")

    with pytest.raises(RegistryDenied):
        hub.has_blob("sha256:" + "0" * 64)

    assert questions == []


def test_what_the_url_says_comes_first(
    home: Path, basic_auth_registry: DockerRegistry, make_hub: MakeHub
) -> None:
    log_in(home, basic_auth_registry.host, "wrong")
    hub = make_hub(f"http://al+ice:s3cr%3At%2F%2B%40@{basic_auth_registry.host}/team/stored")

    assert not hub.has_blob("sha256:" + "0" * 64)


def test_a_broken_file_of_logins_is_named(
    home: Path, basic_auth_registry: DockerRegistry, make_hub: MakeHub, questions: list[str]
) -> None:
    (home / ".docker").mkdir()
    (home / ".docker" / "config.json").write_text("s3cr3t")
    hub = make_hub(f"http://{basic_auth_registry.host}/team/stored")

    for _ in range(2):
        with pytest.raises(AccessDenied, match=r"\.docker/config\.json"):
            hub.has_blob("sha256:" + "0" * 64)
    assert questions == []
