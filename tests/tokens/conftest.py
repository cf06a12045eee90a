"""The real docker-registry behind a line with a delay, and a token service for it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from tests.support.docker_registry import DockerRegistry
from tests.support.relay import Relay
from tests.support.request_log import RequestLog
from tests.support.token_service import TokenService

USER, PASSWORD = "alice", "s3cr:t/+@"
USERINFO = "alice:s3cr%3At%2F%2B%40"  # as a URL has them


@dataclass(frozen=True, slots=True)
class TokenRegistry:
    """A registry, the service for its tokens, and the line to it."""

    registry: DockerRegistry
    service: TokenService
    relay: Relay
    log: RequestLog

    def address(self, rest: str, *, user: str = "") -> str:
        """Return the address of something in it, over the line."""
        return f"http://{user}{'@' if user else ''}{self.relay.host}/{rest}"

    def session(self, repository: str) -> requests.Session:
        """Return a session that may do everything in a repository."""
        session = requests.Session()
        token = self.service.token(f"repository:{repository}:pull,push,delete")
        session.headers["Authorization"] = f"Bearer {token}"
        return session


@pytest.fixture
def service(tmp_path: Path) -> Iterator[TokenService]:
    with TokenService(tmp_path / "service", users={USER: PASSWORD}) as service:
        yield service


@pytest.fixture
def token_registry(tmp_path: Path, service: TokenService) -> Iterator[TokenRegistry]:
    seen = RequestLog()
    with (
        DockerRegistry(
            tmp_path / "registry", auth=service.auth_config, has_access_log=True
        ) as registry,
        Relay(registry.host, observer=seen) as relay,
    ):
        yield TokenRegistry(registry, service, relay, seen)
