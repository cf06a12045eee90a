"""Registries of every kind that a user of the documented client has."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from concil.dockerhub import DockerHub
from concil.server import EmbeddedRegistry
from tests.support.docker_registry import DockerRegistry
from tests.support.scripted_server import ScriptedServer
from tests.support.tls import CertificateAuthority

USER, PASSWORD = "al ice", "s3cr:t/+@"
_numbers = itertools.count(1)
MakeHub = Callable[..., DockerHub]


@dataclass(frozen=True, slots=True)
class RegistrySetup:
    """A registry, and what a user writes to reach it."""

    scheme: str
    host: str
    user: str = ""  # user info with its @
    verify: bool | str | None = None

    def url(self, rest: str) -> str:
        """The URL of something in it."""
        return f"{self.scheme}://{self.user}{self.host}/{rest}"


@pytest.fixture
def make_hub() -> Iterator[MakeHub]:
    """Make hubs that are closed when the test is over."""
    hubs: list[DockerHub] = []

    def make(*args: object, **kwargs: object) -> DockerHub:
        hub = DockerHub(*args, **kwargs)  # type: ignore[arg-type]
        hubs.append(hub)
        return hub

    yield make
    for hub in hubs:
        hub.close()


@pytest.fixture
def repository() -> str:
    """A repository that no other test writes to."""
    return f"team/app-{next(_numbers)}"


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        yield server


@pytest.fixture(scope="session")
def tls_registry(
    tmp_path_factory: pytest.TempPathFactory, ca: CertificateAuthority
) -> Iterator[DockerRegistry]:
    with DockerRegistry(tmp_path_factory.mktemp("tls"), certificate=ca.issue()) as registry:
        yield registry


@pytest.fixture(scope="session")
def basic_auth_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    """A docker-registry that wants a user and a password."""
    directory = tmp_path_factory.mktemp("locked")
    with DockerRegistry(directory, users={USER: PASSWORD}) as registry:
        yield registry


REGISTRY_KINDS = ("embedded", "plain", "fallback", "ca", "unverified", "password")


@pytest.fixture(
    params=[
        pytest.param(name, marks=() if name == "embedded" else pytest.mark.real)
        for name in REGISTRY_KINDS
    ]
)
def registry_setup(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RegistrySetup]:
    """Each kind of registry in turn."""
    if request.param == "embedded":
        with EmbeddedRegistry(tmp_path / "layout") as registry:
            yield RegistrySetup("http", registry.host)
        return
    if request.param in ("plain", "fallback"):
        plain: DockerRegistry = request.getfixturevalue("docker_registry")
        yield RegistrySetup("http" if request.param == "plain" else "docker", plain.host)
    elif request.param == "password":
        locked: DockerRegistry = request.getfixturevalue("basic_auth_registry")
        yield RegistrySetup("http", locked.host, "al+ice:s3cr%3At%2F%2B%40@")
    else:
        secure: DockerRegistry = request.getfixturevalue("tls_registry")
        authority: CertificateAuthority = request.getfixturevalue("ca")
        verify = str(authority.path) if request.param == "ca" else False
        yield RegistrySetup("docker", secure.host, verify=verify)
