"""A registry of its own for each test, and two ways to run the command line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from concil.cli.main import main
from concil.server import EmbeddedRegistry
from tests.cli.login_harness import AuthRegistry, CommandLineHarness
from tests.cli.runner import Cli, Outcome, Program
from tests.support.docker_registry import DockerRegistry
from tests.support.token_service import ALL_ACTIONS, TokenService
from tests.tokens.conftest import PASSWORD, USER


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "served"


@pytest.fixture
def registry(directory: Path) -> Iterator[EmbeddedRegistry]:
    with EmbeddedRegistry(directory) as registry:
        yield registry


@pytest.fixture
def cli(capsysbinary: pytest.CaptureFixture[bytes]) -> Cli:
    """Return what runs `main` in this process."""

    def run(*words: str | Path) -> Outcome:
        capsysbinary.readouterr()
        code = main([str(word) for word in words])
        found = capsysbinary.readouterr()
        return Outcome(code, found.out, found.err.decode())

    return run


@pytest.fixture
def cli_here(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Return the same, with this test's directory as the working directory."""
    monkeypatch.chdir(tmp_path)
    return cli


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """Return what runs the command line in a process of its own."""
    return Program(tmp_path)


@pytest.fixture
def jobs(workers: int) -> str:
    """Return the option that gives an engine as many workers as the test run is for."""
    return f"--jobs={workers}"


@pytest.fixture
def harness(cli: Cli, monkeypatch: pytest.MonkeyPatch, home: Path) -> CommandLineHarness:
    return CommandLineHarness(cli, monkeypatch, home)


@pytest.fixture(scope="session")
def basic_auth_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AuthRegistry]:
    """Run one registry with htpasswd for all tests: use a repository name of your own in it."""
    directory = tmp_path_factory.mktemp("htpasswd")
    with DockerRegistry(directory, users={USER: PASSWORD}) as registry:
        yield AuthRegistry(registry, None)


@pytest.fixture(scope="session")
def token_auth_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AuthRegistry]:
    """Run one registry with tokens for all tests, as `by_password`."""
    directory = tmp_path_factory.mktemp("tokens")
    with TokenService(directory / "service", users={USER: PASSWORD}) as service:
        service.allowed_actions = lambda user, _: ALL_ACTIONS if user == USER else ()
        with DockerRegistry(directory / "registry", auth=service.auth_config) as registry:
            yield AuthRegistry(registry, service)


@pytest.fixture(params=["basic_auth_registry", "token_auth_registry"])
def auth_registry(request: pytest.FixtureRequest) -> AuthRegistry:
    """Return either of them."""
    found: AuthRegistry = request.getfixturevalue(request.param)
    return found
