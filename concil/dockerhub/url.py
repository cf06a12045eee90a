"""Parses docker:// URLs."""

from __future__ import annotations

import contextlib
import urllib.parse

from concil.errors import InvalidReference
from concil.oci.reference import DOCKER_HUB, normalize_docker_host, to_api_host
from concil.runtime import arguments
from concil.runtime.redaction import has_slash_in_user, without_user

_SCHEMES = ("https", "http", "docker", "store")


class DockerSplitResult(urllib.parse.SplitResult):
    """The parts of a docker URL: a SplitResult with repository, tag and API URL."""

    __slots__ = ()

    def __repr__(self) -> str:
        """Return the parts, without user and password."""
        netloc, path = map(without_user, self[1:3])
        return f"Docker{urllib.parse.SplitResult(self[0], netloc, path, *self[3:])!r}"

    @property
    def repository(self) -> str:
        """The repository; with ``library/`` for docker.io's official images."""
        name = self.path.partition("@")[0].partition(":")[0].removeprefix("/")
        if name and "/" not in name and normalize_docker_host(self.hostname or "") == DOCKER_HUB:
            return f"library/{name}"
        return name

    @property
    def tag(self) -> str:
        """The tag, or the digest of ``name@digest``; ``latest`` if there is neither."""
        name, _, digest = self.path.partition("@")
        return digest or name.partition(":")[2] or "latest"

    @property
    def url(self) -> str:
        """The URL of the repository in the registry's API.

        Raises:
            InvalidReference: the scheme is not docker, https or http, or there is no host.
        """
        if self.scheme not in _SCHEMES or not self.hostname:
            raise InvalidReference(
                "url must be a docker://-Url", remedy="write docker://host/repository:tag"
            )
        port: int | None = -1
        with contextlib.suppress(ValueError):  # its message may quote a password
            port = self.port
        if port == -1 or has_slash_in_user(f"{self.netloc}{self.path}"):
            raise InvalidReference(
                "not a port in a docker URL",
                remedy="write host:port, and write a slash in a password as %2F",
            )
        host = to_api_host(self.hostname)
        host = f"[{host}]" if ":" in host else host
        netloc = f"{host}:{port}" if port else host
        scheme = "http" if self.scheme == "http" else "https"
        return urllib.parse.urlunsplit((scheme, netloc, f"v2/{self.repository}", "", ""))


def parse_docker_url(docker_url: str) -> DockerSplitResult:
    """Split ``docker://[user:password@]host[:port]/repository[:tag|@digest]``.

    Raises:
        InvalidReference: it is not a URL.
    """
    text = arguments.check_str("docker_url", docker_url)
    with contextlib.suppress(ValueError):  # its message may quote a user and a password
        return DockerSplitResult(*urllib.parse.urlsplit(text))
    raise InvalidReference(
        "not a docker URL", remedy="write docker://[user:password@]host/repository:tag"
    )
