"""References and store addresses: which repository, tag or digest, served by which host."""

from __future__ import annotations

import functools
import ipaddress
import re
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from concil import arguments
from concil.config import HostLimits
from concil.content import Digest
from concil.errors import InvalidDigest, InvalidReference, UsageError, shown
from concil.redaction import SECRETS, has_slash_in_user, without_user

LAYOUT, OCI_ARCHIVE, DOCKER_ARCHIVE = "oci", "oci-archive", "docker-archive"
LOCAL_SCHEMES = ("oci:", "oci-archive:", "docker-archive:")
DOCKER_HOST = "registry-1.docker.io"
_DOCKER_NAMES = frozenset({"docker.io", "index.docker.io", DOCKER_HOST})

# Source: distribution-spec, "Pulling manifests": <name> and <reference>.
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_PART}(?:/{_PART})*")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_HOST = re.compile(rf"((?:{_LABEL}(?:\.{_LABEL})*\.?)|\[[0-9a-fA-F:.]+\])(?::([0-9]{{1,5}}))?")
# Source: image-spec, annotations, org.opencontainers.image.ref.name.
_WORD = r"[A-Za-z0-9]+(?:(?:[-._:@+]|--)[A-Za-z0-9]+)*"
_LAYOUT_NAME = re.compile(rf"{_WORD}(?:/{_WORD})*")
_PLACE = re.compile(r"@[0-9]{1,6}")
_CONTROL = re.compile(r"[\x00-\x1f]")
_CONTROL_OR_SPACE = re.compile(r"[\x00-\x20\x7f]")
_PINNED = re.compile(r"@(sha(?:256|512):.*)\Z", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Reference:
    """A repository in a registry, and a manifest or blob in it.

    ``str()`` is what people read and carries no password.
    """

    host: str  # name[:port] as people write it: docker.io, localhost:5000, [::1]:5000
    repository: str  # with library/ for docker.io's own
    tag: str | None = None
    digest: Digest | None = None
    scheme: str = "docker"  # docker and https: TLS; http: plain
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Read ``[docker://|https://|http://][user[:password]@][host/]repository[:tag][@digest]``.

        A first part without ``.`` or ``:`` that is not ``localhost`` belongs to the
        repository, which then is docker.io's, unless http, https or a user is in front.
        With a tag and a digest the digest decides; the tag is kept for people.

        Raises:
            InvalidReference: it names the part that is wrong.
        Source: distribution/reference; REGISTRIES.md 3.4.
        """
        scheme, _, rest = text.partition("://") if "://" in text else ("docker", "", text)
        if scheme not in ("docker", "https", "http"):
            raise InvalidReference(
                f"unknown scheme {shown(scheme)} in {shown(without_user(text))}",
                remedy="write docker://host/repository:tag, http://... or oci:PATH:TAG",
            )
        username, password, rest = _split_user(rest)
        SECRETS.register(password)
        # With a user in front it is a host: docker.io must not get its password.
        host, name = _split_host(rest, explicit=scheme != "docker" or username is not None)
        name, at, digest_text = name.partition("@")
        name, colon, tag = name.partition(":")
        _check(text, name, tag if colon else None)
        digest = None
        if at:
            try:
                digest = Digest.parse(digest_text)
            except InvalidDigest as error:
                raise InvalidReference(
                    f"{error} in {shown(without_user(text))}", remedy=error.remedy
                ) from error
        if host in _DOCKER_NAMES and "/" not in name:
            name = f"library/{name}"
        return cls(host, name, tag if colon else None, digest, scheme, username, password)

    @property
    def target(self) -> str:
        """What a manifest URL ends in: the digest if there is one, else the tag or ``latest``."""
        return str(self.digest) if self.digest else self.tag or "latest"

    @property
    def api_host(self) -> str:
        """The host[:port] that serves the API."""
        return DOCKER_HOST if self.host in _DOCKER_NAMES else self.host

    @property
    def api_scheme(self) -> str:
        """``http`` where it was asked for, else ``https``."""
        return "http" if self.scheme == "http" else "https"

    @property
    def repository_address(self) -> str:
        """The repository without tag, digest and user, as people write it."""
        plain = "" if reads_as_host(self.host) else "https://"
        prefix = "http://" if self.scheme == "http" else plain
        return f"{prefix}{self.host}/{self.repository}"

    def __str__(self) -> str:
        """Return it as people write it, without user and password."""
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.repository_address}{tag}{digest}"

    def at(self, *, tag: str | None = None, digest: Digest | None = None) -> Reference:
        """The same repository at another tag or digest."""
        return replace(self, tag=tag, digest=digest)


@dataclass(frozen=True, slots=True)
class LayoutAddress:
    """A local place that holds images by name, and one of them: ``oci:PATH[:NAME]``.

    It is a layout directory, or an archive of one or the other kind.
    """

    path: str
    name: str | None = None  # org.opencontainers.image.ref.name; in a docker-archive a tag
    digest: Digest | None = None
    kind: str = LAYOUT  # or OCI_ARCHIVE, DOCKER_ARCHIVE

    @property
    def place(self) -> str:
        """The place without the image in it, as people write it."""
        return f"{self.kind}:{self.path}"

    @property
    def is_archive(self) -> bool:
        """Whether it is one file."""
        return self.kind != LAYOUT

    def __str__(self) -> str:
        """Return it as people write it."""
        name = f":{self.name}" if self.name else ""
        return f"{self.place}{name}" + (f"@{self.digest}" if self.digest else "")


Address = Reference | LayoutAddress


# A mirror reads the addresses of an image on each of its ways, some six times.
@functools.lru_cache(maxsize=1024)
def parse_address(text: str) -> Address:
    """Read a store address: a reference, or ``oci:PATH[:NAME][@DIGEST]``.

    Instead of ``oci:`` there may be ``oci-archive:`` or ``docker-archive:``.

    Raises:
        InvalidReference: it names the part that is wrong.
    """
    layout = arguments.text("address", text).startswith(LOCAL_SCHEMES)
    if not text or (_CONTROL if layout else _CONTROL_OR_SPACE).search(text):
        raise InvalidReference(
            f"not a reference: {shown(without_user(text))}",
            remedy="a reference is [host/]repository[:tag] without spaces, or oci:PATH[:TAG]",
        )
    if layout:
        return _parse_layout(text)
    return Reference.parse(text)


def _parse_layout(text: str) -> LayoutAddress:
    kind, _, place = text.partition(":")
    digest = None
    pinned = _PINNED.search(place)
    if pinned:
        place = place[: pinned.start()]
        try:
            digest = Digest.parse(pinned[1])
        except InvalidDigest as error:
            raise InvalidReference(f"{error} in {shown(text)}", remedy=error.remedy) from error
    # The first colon ends the path, as in skopeo: a path with one cannot be written.
    path, colon, name = place.partition(":")
    if not path:
        raise InvalidReference(
            f"no path in {shown(text)}", remedy=f"write {kind}:PATH or {kind}:PATH:TAG"
        )
    if kind == DOCKER_ARCHIVE:
        name = tagged_name(name, text) if colon else ""
    elif (colon and not name) or (name and not is_layout_name(name)):
        raise InvalidReference(
            f"not an image name of a layout: {shown(name)} in {shown(text)}",
            remedy="letters and digits joined by one of - . _ : @ + and /",
        )
    return LayoutAddress(path, name or None, digest, kind)


def is_layout_name(name: str) -> bool:
    """Whether an image of a layout can be addressed by a name."""
    return bool(_LAYOUT_NAME.fullmatch(name))


def tagged_name(name: str, text: str = "") -> str:
    """Return a tag of a docker-archive in full: alpine is docker.io/library/alpine:latest.

    ``@2`` is the third image of an archive, as in skopeo.

    Args:
        text: what it stands in, for messages.
    Raises:
        InvalidReference: it is no name of an image.
    """
    if _PLACE.fullmatch(name):
        return name
    try:
        found = Reference.parse(name)
    except InvalidReference:
        found = None
    # A user, a scheme or a digest is none of a tag.
    if found is None or "@" in name or "://" in name:
        where = f" in {shown(text)}" if text else ""
        raise InvalidReference(
            f"not a tag of a docker-archive: {shown(name)}{where}",
            remedy="write docker-archive:FILE:REPOSITORY:TAG",
        )
    return str(found.at(tag=found.tag or "latest"))


def by_server(limits: Mapping[str, HostLimits]) -> dict[str, HostLimits]:
    """The limits of hosts as people write them, by the host[:port] that serves their API.

    Raises:
        UsageError: a name is no host, or two of them are served by one.
    """
    found: dict[str, HostLimits] = {}
    for name, each in limits.items():
        host = name.lower()
        if not _HOST.fullmatch(host):
            raise UsageError(
                f"limits for {shown(name)}, which is no host", remedy="write host or host:port"
            )
        server = DOCKER_HOST if host in _DOCKER_NAMES else host
        if server in found:
            raise UsageError(f"limits for {shown(name)} twice", remedy="leave one of them away")
        found[server] = each
    return found


def written(server: str) -> str:
    """The host as people write it, of one that serves an API."""
    return "docker.io" if server == DOCKER_HOST else server


def is_loopback(host: str) -> bool:
    """Whether ``host[:port]`` is this machine by its very name: localhost, 127.0.0.0/8, [::1]."""
    name = host
    if host.startswith("["):
        name = host[1:].partition("]")[0]
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
    """Return ``tag``, or raise InvalidReference: before it can become part of a URL."""
    if not _TAG.fullmatch(tag):
        raise InvalidReference(
            f"not a tag: {shown(tag)}",
            remedy="a tag has up to 128 letters, digits, '_', '.', '-' and begins with no '.', '-'",
        )
    return tag


def check_repository(name: str) -> str:
    """Return ``name``, or raise InvalidReference: before it can become part of a URL."""
    if len(name) > 255 or not _REPOSITORY.fullmatch(name):
        raise InvalidReference(
            f"not a repository name: {shown(name)}",
            remedy="lower-case letters and digits joined by one of . _ __ - and /",
        )
    return name


def _check(text: str, name: str, tag: str | None) -> None:
    try:
        check_repository(name)
        if tag is not None:
            check_tag(tag)
    except InvalidReference as error:
        raise InvalidReference(
            f"{error} in {shown(without_user(text))}", remedy=error.remedy
        ) from error


def _split_user(rest: str) -> tuple[str | None, str | None, str]:
    """Take ``user[:password]@`` off the front; an @ behind the first slash is a digest's."""
    if has_slash_in_user(rest):
        what = f"a user or password with a slash in {shown(without_user(rest))}"
        raise InvalidReference(what, remedy="write %2F in its place")
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
    if explicit and not slash:
        raise InvalidReference(
            f"no repository behind the host: {shown(without_user(rest))}",
            remedy="write host/repository:tag",
        )
    if not slash or not (explicit or reads_as_host(first)):
        return "docker.io", rest
    found = _HOST.fullmatch(first)
    if found is None or (found[2] is not None and not 0 < int(found[2]) < 65536):
        raise InvalidReference(
            f"not a host name: {shown(first)}", remedy="write host, host:port or [ipv6]:port"
        )
    if first.startswith("["):
        try:
            ipaddress.IPv6Address(found[1][1:-1])
        except ValueError as error:
            raise InvalidReference(f"not an IPv6 address: {shown(first)}") from error
    return same_docker(first.lower()), name


def reads_as_host(first: str) -> bool:
    """Whether a first part is a host by its looks. Source: distribution/reference."""
    return any(c in first for c in ".:") or first.lower() == "localhost" or first != first.lower()


def same_docker(host: str) -> str:
    """The host, by the name that people use for Docker Hub."""
    return "docker.io" if host in _DOCKER_NAMES else host
