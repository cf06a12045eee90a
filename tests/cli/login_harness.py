"""A user with a command line, a home, and registries that ask who it is."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from concil.auth.credentials.credentials import Credentials
from tests.cli.runner import Cli, Outcome
from tests.support.docker_registry import DockerRegistry
from tests.support.images import Image, put_image
from tests.support.token_service import TokenService
from tests.tokens.conftest import PASSWORD, USER

AUTH = Credentials(USER, PASSWORD).basic_header().removeprefix("Basic ")  # as files have it


@dataclass(frozen=True)
class AuthRegistry:
    """A docker-registry that lets only USER in, who may do everything."""

    registry: DockerRegistry
    service: TokenService | None  # None: it wants Basic

    @property
    def host(self) -> str:
        """Host and port."""
        return self.registry.host


@dataclass
class CommandLineHarness:
    """Where USER works."""

    cli: Cli
    monkeypatch: pytest.MonkeyPatch
    home: Path

    def __call__(self, *words: str | Path) -> Outcome:
        """Run the command line."""
        return self.cli(*words)

    def log_in(self, *words: str | Path, password: str | bytes = PASSWORD) -> Outcome:
        """Log USER in with a password on standard input."""
        content = password.encode() + b"\n" if isinstance(password, str) else password
        with self.monkeypatch.context() as patch:
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
            return self.cli("login", "-u", USER, "--password-stdin", *words)

    @property
    def config(self) -> Path:
        """Where docker keeps its logins, and concil new ones."""
        return self.home / ".docker" / "config.json"

    @property
    def logins(self) -> dict[str, Any]:
        """What is in that file."""
        found: dict[str, Any] = json.loads(self.config.read_text())
        return found

    @logins.setter
    def logins(self, document: dict[str, Any]) -> None:
        self.config.parent.mkdir(exist_ok=True)
        self.config.write_text(json.dumps(document))

    @property
    def auth_files(self) -> list[Path]:
        """All files of logins."""
        return list(self.home.rglob("*.json"))


def fill(registry: DockerRegistry, repository: str, tag: str, image: Image) -> None:
    """Put an image into a registry that wants USER's password."""
    with requests.Session() as session:
        session.auth = (USER, PASSWORD)
        put_image(registry.url, repository, tag, image, session=session)
