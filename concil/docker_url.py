"""The documented docker:// URLs: parse_docker_url and its result."""

from __future__ import annotations

import contextlib
import urllib.parse

from concil import arguments
from concil.errors import InvalidReference
from concil.redaction import has_slash_in_user, without_user
from concil.reference import DOCKER_HOST

_SCHEMES = ("https", "http", "docker", "store")
_DOCKER_NAMES = ("docker.io", "index.docker.io", DOCKER_HOST)


class DockerSplitResult(urllib.parse.SplitResult):
    """The parts of a docker URL: a SplitResult that knows repository, tag and API URL."""

    __slots__ = ()

    def __repr__(self) -> str:
        """Return the parts, without user and password."""
        netloc, path = map(without_user, self[1:3])
        return f"Docker{urllib.parse.SplitResult(self[0], netloc, path, *self[3:])!r}"

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
        port: int | None = -1
        with contextlib.suppress(ValueError):  # which quotes what may be a password
            port = self.port
        if port == -1 or has_slash_in_user(f"{self.netloc}{self.path}"):
            raise InvalidReference(
                "not a port in a docker URL",
                remedy="write host:port, and %2F for a slash in a password",
            )
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
    text = arguments.text("docker_url", docker_url)
    with contextlib.suppress(ValueError):  # which may quote a user and a password
        return DockerSplitResult(*urllib.parse.urlsplit(text))
    raise InvalidReference(
        "not a docker URL", remedy="write docker://[user:password@]host/repository:tag"
    )
