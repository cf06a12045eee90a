"""The documented docker:// URLs: parse_docker_url and its result."""

from __future__ import annotations

import urllib.parse

from concil import arguments
from concil.errors import InvalidReference
from concil.reference import DOCKER_HOST

_SCHEMES = ("https", "http", "docker", "store")
_DOCKER_NAMES = ("docker.io", "index.docker.io", DOCKER_HOST)


class DockerSplitResult(urllib.parse.SplitResult):
    """The parts of a docker URL: a SplitResult that knows repository, tag and API URL."""

    __slots__ = ()

    @property
    def repository(self) -> str:
        """The repository; docker.io's own images with their ``library/``."""
        name = self.path.partition("@")[0].partition(":")[0].removeprefix("/")
        if name and "/" not in name and self.hostname in _DOCKER_NAMES:
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
            InvalidReference: a scheme other than docker, https and http, or no host.
        """
        if self.scheme not in _SCHEMES or not self.hostname:
            raise InvalidReference(
                "url must be a docker://-Url", remedy="write docker://host/repository:tag"
            )
        try:
            port = self.port
        except ValueError as error:
            raise InvalidReference(f"not a port in a docker URL: {error}") from error
        host = DOCKER_HOST if self.hostname in _DOCKER_NAMES else self.hostname
        host = f"[{host}]" if ":" in host else host
        netloc = f"{host}:{port}" if port else host
        scheme = "http" if self.scheme == "http" else "https"
        return urllib.parse.urlunsplit((scheme, netloc, f"v2/{self.repository}", "", ""))


def parse_docker_url(docker_url: str) -> DockerSplitResult:
    """Split ``docker://[user:password@]host[:port]/repository[:tag|@digest]``.

    Raises:
        InvalidReference: no URL at all.
    """
    try:
        text = arguments.text("docker_url", docker_url)
        return DockerSplitResult(*urllib.parse.urlsplit(text))
    except ValueError as error:
        raise InvalidReference(f"not a docker URL: {error}") from error
