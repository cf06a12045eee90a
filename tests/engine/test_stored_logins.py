"""Logins of docker and podman: who is who, in which repository."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from concil.auth.credentials.credentials import Credentials
from concil.config import TransferConfig
from concil.engine.store_factory import EndpointOptions, StoreFactory
from concil.errors import RegistryDenied
from concil.oci.reference import Reference
from tests.support.docker_registry import DockerRegistry


def log_in(path: Path, users: dict[str, Credentials]) -> Path:
    auths = {place: {"auth": one.basic_header()[6:]} for place, one in users.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"auths": auths}))
    return path


def stores() -> StoreFactory:
    return StoreFactory(TransferConfig(), timeouts=None, cancel=threading.Event())


def test_repositories_share_a_registry_as_far_as_a_login_goes(home: Path) -> None:
    me = Credentials("me", "x")
    log_in(home / ".docker" / "config.json", {"h.example": me, "h.example/team": me})

    def endpoint(opened: StoreFactory, text: str, access: EndpointOptions | None = None) -> object:
        return opened.get_endpoint(Reference.parse(text), access)

    with stores() as opened:
        team = endpoint(opened, "h.example/team/one")

        assert endpoint(opened, "h.example/team/two") is team
        assert endpoint(opened, "h.example/other") is not team
        assert endpoint(opened, "h.example/other") is endpoint(opened, "h.example/more")
        assert endpoint(opened, "h.example/team/one", EndpointOptions(authfile="/none")) is not team
        given = EndpointOptions(credentials=me)
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

        def tags(name: str, access: EndpointOptions | None = None) -> list[str]:
            with stores() as opened:
                reference = Reference.parse(f"http://{name}")
                return list(opened.open_repository(reference, access).client.list_tags())

        def denied(name: str, access: EndpointOptions | None = None) -> str:
            with pytest.raises(RegistryDenied) as excinfo:
                tags(name, access)
            return str(excinfo.value)

        host = registry.host
        missing = "404"
        for name in (f"{host}/good/x", f"alice:s3cr3t@{host}/bad/x"):
            with pytest.raises(Exception, match=missing):
                tags(name)
        with pytest.raises(Exception, match=missing):
            tags(f"{host}/bad/x", EndpointOptions(authfile=str(mine)))
        assert "'alice'" in denied(f"{host}/bad/x")
        for name in (f"{host}/else", f":@{host}/good/x"):
            assert "'alice'" not in denied(name)
