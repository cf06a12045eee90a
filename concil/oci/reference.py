"""Image references: registry host, repository, tag and digest."""

from __future__ import annotations

import ipaddress
import re
import urllib.parse
from collections.abc import Mapping
from dataclasses import field, replace

from concil.config import HostLimits
from concil.errors import InvalidDigest, InvalidReference, UsageError, safe_repr
from concil.oci.manifest import Digest
from concil.runtime.dataclass import dataclass
from concil.runtime.redaction import SECRETS, has_slash_in_user, without_user

# The names of Docker Hub: in references, in stored logins of docker, and of its API.
DOCKER_HUB = "docker.io"
_DOCKER_HUB_INDEX = "index.docker.io"
_DOCKER_HUB_API_HOST = "registry-1.docker.io"
DOCKER_HUB_LOGIN = f"https://{_DOCKER_HUB_INDEX}/v1/"
_DOCKER_HUB_HOSTS = frozenset({DOCKER_HUB, _DOCKER_HUB_INDEX, _DOCKER_HUB_API_HOST})

# Source: distribution-spec, "Pulling manifests": <name> and <reference>.
_PATH_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_PATH_COMPONENT}(?:/{_PATH_COMPONENT})*")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
_DOMAIN_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_HOST = re.compile(
    rf"((?:{_DOMAIN_LABEL}(?:\.{_DOMAIN_LABEL})*\.?)|\[[0-9a-fA-F:.]+\])(?::([0-9]{{1,5}}))?"
)
_CONTROL = re.compile(r"[\x00-\x1f]")
_CONTROL_OR_SPACE = re.compile(r"[\x00-\x20\x7f]")
_DIGEST_SUFFIX = re.compile(r"@(sha(?:256|512):.*)\Z", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Reference:
    """A repository in a registry, and a manifest or blob in it.

    ``str()`` is for display and contains no password.
    """

    host: str  # name[:port] in its usual form: docker.io, localhost:5000, [::1]:5000
    repository: str  # including library/ for docker.io's official images
    tag: str | None = None
    digest: Digest | None = None
    scheme: str = "docker"  # docker and https use TLS; http does not
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Parse ``[docker://|https://|http://][user[:password]@][host/]repository[:tag][@digest]``.

        Unless there is a http or https scheme or a user, a first component without ``.`` or
        ``:`` that is not ``localhost`` belongs to the repository, which then is on docker.io.
        If there are a tag and a digest, the digest is used and the tag is kept for display.

        Raises:
            InvalidReference: the reference is invalid; the message names the wrong part.
        Source: distribution/reference; REGISTRIES.md 3.4.
        """
        scheme, _, rest = text.partition("://") if "://" in text else ("docker", "", text)
        if scheme not in ("docker", "https", "http"):
            raise InvalidReference(
                f"unknown scheme {safe_repr(scheme)} in {safe_repr(without_user(text))}",
                remedy="write docker://host/repository:tag, http://... or oci:PATH:TAG",
            )
        username, password, rest = _split_user(rest)
        SECRETS.register(password)
        # After a user there must be a host: docker.io must not get its password.
        host, name = _split_host(rest, explicit=scheme != "docker" or username is not None)
        name, at, digest_text = name.partition("@")
        name, colon, tag = name.partition(":")
        _check_name_and_tag(text, name, tag if colon else None)
        digest = None
        if at:
            try:
                digest = Digest.parse(digest_text)
            except InvalidDigest as error:
                raise InvalidReference(
                    f"{error} in {safe_repr(without_user(text))}", remedy=error.remedy
                ) from error
        if host in _DOCKER_HUB_HOSTS and "/" not in name:
            name = f"library/{name}"
        return cls(host, name, tag if colon else None, digest, scheme, username, password)

    @property
    def manifest_reference(self) -> str:
        """The last component of a manifest URL: the digest, else the tag or ``latest``."""
        return str(self.digest) if self.digest else self.tag or "latest"

    @property
    def api_host(self) -> str:
        """The host[:port] that serves the API."""
        return to_api_host(self.host)

    @property
    def api_scheme(self) -> str:
        """``http`` if the reference has that scheme, else ``https``."""
        return "http" if self.scheme == "http" else "https"

    @property
    def repository_address(self) -> str:
        """The repository without tag, digest and user, in its usual form."""
        default_prefix = "" if is_host_like(self.host) else "https://"
        prefix = "http://" if self.scheme == "http" else default_prefix
        return f"{prefix}{self.host}/{self.repository}"

    def __str__(self) -> str:
        """Return the reference in its usual form, without user and password."""
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.repository_address}{tag}{digest}"

    def with_reference(self, *, tag: str | None = None, digest: Digest | None = None) -> Reference:
        """Return the same repository with another tag or digest."""
        return replace(self, tag=tag, digest=digest)


def limits_by_api_host(limits: Mapping[str, HostLimits]) -> dict[str, HostLimits]:
    """Map limits by user-visible host names to the host[:port] that serves their API.

    Raises:
        UsageError: a name is not a host, or two of them have the same API host.
    """
    by_api_host: dict[str, HostLimits] = {}
    for name, host_limits in limits.items():
        host = name.lower()
        if not _HOST.fullmatch(host):
            raise UsageError(
                f"limits for {safe_repr(name)}, which is not a host",
                remedy="write host or host:port",
            )
        server = to_api_host(host)
        if server in by_api_host:
            raise UsageError(
                f"the limits for {safe_repr(name)} are given twice", remedy="omit one of them"
            )
        by_api_host[server] = host_limits
    return by_api_host


def display_host(api_host: str) -> str:
    """Return the user-visible name of a host that serves an API."""
    return DOCKER_HUB if api_host == _DOCKER_HUB_API_HOST else api_host


def is_loopback(host: str) -> bool:
    """Return whether ``host[:port]`` is loopback by name: localhost, 127.0.0.0/8, [::1].

    These may use plain http. `http.network_policy.is_this_machine` also has the spellings and
    names that only some resolvers take for this machine.
    """
    name = host
    if host.startswith("["):
        name, bracket, port = host[1:].partition("]")
        if not bracket or (port and not port.startswith(":")):
            return False
    elif host.count(":") <= 1:
        name = host.partition(":")[0]
    name = name.rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def check_tag(tag: str) -> str:
    """Return ``tag``, or raise InvalidReference, so that it is safe in a URL."""
    if not _TAG.fullmatch(tag):
        raise InvalidReference(
            f"not a tag: {safe_repr(tag)}",
            remedy="use up to 128 letters, digits, '_', '.' and '-', and do not begin with '.' "
            "or '-'",
        )
    return tag


def check_repository(name: str) -> str:
    """Return ``name``, or raise InvalidReference, so that it is safe in a URL."""
    if len(name) > 255 or not _REPOSITORY.fullmatch(name):
        raise InvalidReference(
            f"not a repository name: {safe_repr(name)}",
            remedy="use lower-case letters and digits, separated by . _ __ - or /",
        )
    return name


def _check_name_and_tag(text: str, name: str, tag: str | None) -> None:
    try:
        check_repository(name)
        if tag is not None:
            check_tag(tag)
    except InvalidReference as error:
        raise InvalidReference(
            f"{error} in {safe_repr(without_user(text))}", remedy=error.remedy
        ) from error


def _split_user(rest: str) -> tuple[str | None, str | None, str]:
    """Split ``user[:password]@`` off the front; an @ after the first slash starts a digest."""
    if has_slash_in_user(rest):
        what = f"a user name or password contains a slash: {safe_repr(without_user(rest))}"
        raise InvalidReference(what, remedy="write the slash as %2F")
    front, slash, path = rest.partition("/")
    user, at, host = front.rpartition("@")
    if not at or not slash:
        return None, None, rest
    name, colon, word = user.partition(":")
    return (
        urllib.parse.unquote(name),
        urllib.parse.unquote(word) if colon else None,
        host + slash + path,
    )


def _split_host(rest: str, *, explicit: bool) -> tuple[str, str]:
    first, slash, name = rest.partition("/")
    if not name and (slash or explicit or _is_host_alone(rest)):
        host = safe_repr(without_user(first)).strip("'")
        raise InvalidReference(
            f"there is no repository after the host: {safe_repr(without_user(rest))}",
            remedy=f"write {host}/REPOSITORY:TAG, or list the repositories: concil ls {host}",
        )
    if not slash or not (explicit or is_host_like(first)):
        return DOCKER_HUB, rest
    match = _HOST.fullmatch(first)
    if match is None or (match[2] is not None and not 0 < int(match[2]) < 65536):
        raise InvalidReference(
            f"not a host name: {safe_repr(first)}", remedy="write host, host:port or [ipv6]:port"
        )
    if first.startswith("["):
        try:
            ipaddress.IPv6Address(match[1][1:-1])
        except ValueError as error:
            raise InvalidReference(f"not an IPv6 address: {safe_repr(first)}") from error
    return normalize_docker_host(first.lower()), name


def _is_host_alone(text: str) -> bool:
    """Return whether a single component must be a host: no official image has such a name."""
    name = text.partition("@")[0].partition(":")[0]
    return "." in name or name.lower() == "localhost" or text.startswith("[")


def is_host_like(first: str) -> bool:
    """Return whether a first component looks like a host. Source: distribution/reference."""
    return any(c in first for c in ".:") or first.lower() == "localhost" or first != first.lower()


def normalize_docker_host(host: str) -> str:
    """Return the host, with all names of Docker Hub replaced by docker.io."""
    return DOCKER_HUB if host in _DOCKER_HUB_HOSTS else host


def to_api_host(host: str) -> str:
    """Return the host that serves the API of a registry, which Docker Hub has of its own."""
    return _DOCKER_HUB_API_HOST if host in _DOCKER_HUB_HOSTS else host
