"""Searches auth files and credential helpers in the order that docker and podman use."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Iterator
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING

from concil.auth.credentials import docker_config_io
from concil.auth.credentials.credentials import Credentials
from concil.auth.credentials.docker_config import (
    AuthFile,
    host_of_key,
    iter_parent_keys,
    normalize_auth_key,
    to_file_key,
)
from concil.errors import AccessDenied, ConcilError
from concil.runtime.dataclass import dataclass

if TYPE_CHECKING:
    from concil.auth.credentials.helper import CredentialHelper

logger = logging.getLogger(__name__)

AUTH_CONFIG_VARIABLE = "DOCKER_AUTH_CONFIG"


@dataclass(frozen=True, slots=True)
class InlineAuthConfig:
    """An auth file's content that is given in an environment variable."""

    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class AuthFilePaths:
    """The auth files in search order, and the file for new logins."""

    sources: tuple[Path | InlineAuthConfig, ...]
    login_path: Path

    @property
    def paths(self) -> tuple[Path, ...]:
        """The sources that are files."""
        return tuple(source for source in self.sources if isinstance(source, Path))

    @classmethod
    def resolve(cls, authfile: str | None) -> AuthFilePaths:
        """Return the given file alone, or for None the default files.

        Podman's files are searched before docker's. New logins go to docker's file, which both
        programs read, unless REGISTRY_AUTH_FILE names another.

        Source: containers-auth.json(5); docker/cli, cli/config; REGISTRIES.md 3.5.
        """
        if authfile is not None:
            return cls((Path(authfile),), Path(authfile))
        variables = os.environ
        podman_file = variables.get("REGISTRY_AUTH_FILE")
        runtime_dir = variables.get("XDG_RUNTIME_DIR") or f"/run/containers/{os.getuid()}"
        # Without XDG_RUNTIME_DIR podman uses /run/containers/<uid> itself.
        podman_dir = Path(runtime_dir) / ("containers" if variables.get("XDG_RUNTIME_DIR") else "")
        home = Path(os.path.expanduser("~"))  # noqa: PTH111 - Path.home raises without a home
        config_dir = Path(variables.get("XDG_CONFIG_HOME") or home / ".config")
        docker_file = Path(variables.get("DOCKER_CONFIG") or home / ".docker") / "config.json"
        inline = variables.get(AUTH_CONFIG_VARIABLE)
        sources = (
            *((Path(podman_file),) if podman_file else ()),
            podman_dir / "auth.json",
            config_dir / "containers" / "auth.json",
            *((InlineAuthConfig(inline),) if inline else ()),
            docker_file,
        )
        return cls(sources, Path(podman_file) if podman_file else docker_file)


class Keychain:
    """Finds stored credentials. Any thread may call any method.

    Files are read again for each lookup: a login may be renewed during a transfer.
    """

    def __init__(self, auth_files: AuthFilePaths, *, cancel: threading.Event | None = None) -> None:
        """Search ``auth_files``; setting ``cancel`` terminates a running helper."""
        self.auth_files = auth_files
        self._cancel = cancel
        self._namespaces_seen: frozenset[str] | None = (
            None  # auth keys with a namespace, of all files, at the first call
        )

    def find_credentials(self, auth_key: str, username: str | None = None) -> Credentials | None:
        """Return the credentials for an auth key; None if there are none.

        The first file with credentials is used: its helper for the host, or else the entry with
        the longest matching key.

        Args:
            auth_key: ``host[:port][/namespace[/repository]]``.
            username: accept only this user's; "" for anonymous access.
        Raises:
            AccessDenied: a file searched before is malformed, or a helper failed.
        """
        if username == "":
            return None
        auth_key = normalize_auth_key(auth_key)
        for file in self._read_files():
            credentials = self._find_in_file(file, auth_key)
            if credentials is not None and username in (None, credentials.username):
                return credentials
        return None

    def credential_scope(self, auth_key: str) -> str:
        """Return the longest parent key with an entry, or the host, as the unit of a login.

        Runs no helper, and skips malformed files, which `find_credentials` reports.
        """
        auth_key = normalize_auth_key(auth_key)
        if self._namespaces_seen is None:
            self._namespaces_seen = frozenset(self._list_namespaces())
        return next(
            (
                parent_key
                for parent_key in iter_parent_keys(auth_key)
                if parent_key in self._namespaces_seen
            ),
            host_of_key(auth_key),
        )

    def get_helper(self, file: AuthFile, host: str) -> CredentialHelper | None:
        """Return the credential helper of a host; None if the file stores its logins.

        Raises:
            AccessDenied: the helper's name is invalid.
        """
        name = file.helper_name(host)
        if name is None:
            return None
        from concil.auth.credentials.helper import CredentialHelper  # noqa: PLC0415  # subprocess

        try:
            return CredentialHelper(name, cancel=self._cancel)
        except AccessDenied as error:
            raise AccessDenied(f"{file.name}: {error}", remedy=error.remedy) from None

    def _read_files(self) -> Iterator[AuthFile]:
        return filter(None, map(_read_source, self.auth_files.sources))

    def _list_namespaces(self) -> Iterator[str]:
        for source in self.auth_files.sources:
            with contextlib.suppress(ConcilError):
                file = _read_source(source)
                yield from (
                    auth_key for auth_key in (file.auth_keys if file else ()) if "/" in auth_key
                )

    def _find_in_file(self, file: AuthFile, auth_key: str) -> Credentials | None:
        host = host_of_key(auth_key)
        helper = self.get_helper(file, host)
        if helper is not None:
            if helper.is_installed or host in file.hosts_with_helper or host in file.auth_keys:
                credentials = helper.get(to_file_key(host))
                if credentials is not None:
                    return credentials
            else:
                # Docker Desktop leaves this setting behind; it may never have stored this login.
                logger.warning("%s names %s, which is not installed", file.name, helper.program)
        return next(filter(None, map(file.get_credentials, iter_parent_keys(auth_key))), None)


def _read_source(source: Path | InlineAuthConfig) -> AuthFile | None:
    if isinstance(source, Path):
        return docker_config_io.read_auth_file(source)
    return AuthFile.parse(source.text.encode(errors="replace"), AUTH_CONFIG_VARIABLE)
