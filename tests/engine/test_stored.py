"""Logins of docker and podman: who is who, in which repository."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from concil.config import TransferConfig
from concil.errors import RegistryDenied
from concil.reference import Reference
from concil.registry.credentials import Credentials
from concil.stores import Access, Stores
from tests.lab.registry import DockerRegistry


def log_in(path: Path, users: dict[str, Credentials]) -> Path:
    auths = {place: {"auth": one.basic()[6:]} for place, one in users.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"auths": auths}))
    return path


def stores() -> Stores:
    return Stores(TransferConfig(), timeouts=None, cancel=threading.Event())


def test_repositories_share_a_registry_as_far_as_a_login_goes(home: Path) -> None:
    me = Credentials("me", "x")
    log_in(home / ".docker" / "config.json", {"h.example": me, "h.example/team": me})

    def endpoint(opened: Stores, text: str, access: Access | None = None) -> object:
        return opened.endpoint(Reference.parse(text), access)

    with stores() as opened:
        team = endpoint(opened, "h.example/team/one")

        assert endpoint(opened, "h.example/team/two") is team
        assert endpoint(opened, "h.example/other") is not team
        assert endpoint(opened, "h.example/other") is endpoint(opened, "h.example/more")
        assert endpoint(opened, "h.example/team/one", Access(authfile="/none")) is not team
        given = Access(credentials=me)
        assert endpoint(opened, "h.example/other", given) is endpoint(
            opened, "h.example/team/one", given
        )


@pytest.mark.real
def test_each_repository_has_its_login(
    home: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("users")
    with DockerRegistry(directory, users={"alice": "s3cr3t"}) as registry:
        good, bad = Credentials("alice", "s3cr3t"), Credentials("alice", "wrong")
        places = {f"{registry.host}/good": good, f"{registry.host}/bad": bad}
        log_in(home / ".docker" / "config.json", places)
        mine = log_in(home / "mine.json", {registry.host: good})

        def tags(name: str, access: Access | None = None) -> list[str]:
            with stores() as opened:
                reference = Reference.parse(f"http://{name}")
                return list(opened.repository(reference, access).client.tags())

        def denied(name: str, access: Access | None = None) -> str:
            with pytest.raises(RegistryDenied) as caught:
                tags(name, access)
            return str(caught.value)

        host = registry.host
        missing = "404"
        for name in (f"{host}/good/x", f"alice:s3cr3t@{host}/bad/x"):
            with pytest.raises(Exception, match=missing):
                tags(name)
        with pytest.raises(Exception, match=missing):
            tags(f"{host}/bad/x", Access(authfile=str(mine)))
        assert "'alice'" in denied(f"{host}/bad/x")
        for name in (f"{host}/else", f":@{host}/good/x"):
            assert "'alice'" not in denied(name)
