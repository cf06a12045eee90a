"""A file of logins, as docker and podman write it: what is in it, and with an entry changed.

A *place* is what an entry is for: ``host[:port]`` or ``host[:port]/namespace[/repository]``.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from concil.errors import AccessDenied, shown
from concil.reference import DOCKER_HOST
from concil.registry.credentials import Credentials
from concil.registry.go_json import name_in
from concil.strict_json import InvalidJson, check_nesting

_DOCKER_NAMES = frozenset({"docker.io", "index.docker.io", DOCKER_HOST})
_DOCKER_KEY = "https://index.docker.io/v1/"
_BROKEN = "repair it, or remove it and log in again"


def place_of(key: str) -> str:
    """Return the place that a key of ``auths`` means.

    Keys may be URLs; only their host counts then, as docker and podman have it.

    Source: docker/cli ConvertToHostname; containers/image normalizeAuthFileKey.
    """
    scheme, mark, rest = key.partition("://")
    if mark and scheme in ("http", "https"):
        key = rest.partition("/")[0]
    host, slash, path = key.strip("/").partition("/")
    host = host.lower()
    return f"{'docker.io' if host in _DOCKER_NAMES else host}{slash}{path}"


def key_of(place: str) -> str:
    """Return the key under which docker and podman look a place up."""
    return _DOCKER_KEY if place == "docker.io" else place


def host_in(place: str) -> str:
    """Return the host of a place."""
    return place.partition("/")[0]


def around(place: str) -> Iterator[str]:
    """Yield the place and all that contain it, the host last."""
    while place:
        yield place
        place = place.rpartition("/")[0]


@dataclass(frozen=True, slots=True)
class AuthFile:
    """What a file of logins says; an entry is looked at only when it is asked for."""

    name: str  # for messages
    document: Mapping[str, Any] = field(repr=False)

    @classmethod
    def parse(cls, content: bytes, name: str) -> AuthFile:
        """Read a file's content; an empty one is a file without logins.

        Raises:
            AccessDenied: it is not such a file; the content is not shown.
        """
        document: Any = {}
        if content.strip():
            try:
                document = json.loads(content)
                check_nesting(document)
            except (InvalidJson, RecursionError):
                raise AccessDenied(f"{name}: its JSON nests too deep", remedy=_BROKEN) from None
            except ValueError:
                document = None  # the error would quote the file
        if not isinstance(document, dict):
            raise AccessDenied(f"{name} is not a JSON object", remedy=_BROKEN)
        file = cls(name, document)
        for part in ("auths", "credHelpers"):
            file._part(part)
        if not isinstance(file._field("credsStore") or "", str):
            raise AccessDenied(f"{name}: credsStore is not a string", remedy=_BROKEN)
        return file

    @property
    def places(self) -> frozenset[str]:
        """The places that have an entry, be it an empty one."""
        return frozenset(place_of(key) for key in self._part("auths"))

    @property
    def helped(self) -> frozenset[str]:
        """The hosts that have a credential helper of their own."""
        return frozenset(place_of(key) for key, name in self._part("credHelpers").items() if name)

    def helper(self, host: str) -> str | None:
        """Return the name of the helper that keeps the logins of a host; None: the file does.

        Source: docker/cli configfile, credHelpers over credsStore.
        """
        for key, name in self._part("credHelpers").items():
            if place_of(key) == host:
                return self._text(name or "", key) or None
        return self._field("credsStore") or None

    def credentials(self, place: str) -> Credentials | None:
        """Return what the entry of just this place holds; None: nothing.

        Docker and podman leave an empty entry for what a helper keeps.

        Raises:
            AccessDenied: the entry makes no sense; it is not shown.
        """
        auths = self._part("auths")
        keys = [key for key in auths if place_of(key) == place]
        # Docker keeps its own tokens under https://index.docker.io/v1/access-token and so on.
        best = (key_of(place), place, f"https://{place}", f"https://{place}/")
        keys.sort(key=lambda key: best.index(key) if key in best else len(best))
        for key in keys:
            found = self._entry(auths[key], key)
            if found is not None:
                return found
        return None

    def with_entry(self, place: str, credentials: Credentials | None) -> bytes:
        """Return the file's content with an entry in the place of all that a place had.

        Args:
            credentials: None: an empty entry, for what a helper keeps.
        """
        entry: dict[str, str] = {}
        if credentials is not None:
            entry["auth"] = credentials.basic().removeprefix("Basic ")
            if credentials.identity_token is not None:
                entry["identitytoken"] = credentials.identity_token
        return self._written({**self._auths_but(place), key_of(place): entry})

    def without_entry(self, place: str) -> bytes:
        """Return the file's content without the entries of a place."""
        return self._written(self._auths_but(place))

    def _auths_but(self, place: str) -> dict[str, Any]:
        auths = self._part("auths").items()
        return {key: entry for key, entry in auths if place_of(key) != place}

    def _written(self, auths: Mapping[str, Any]) -> bytes:
        # Docker indents by tabs.
        document = {**self.document, name_in(self.document, "auths"): auths}
        return json.dumps(document, indent="\t").encode() + b"\n"

    def _field(self, name: str) -> Any:  # noqa: ANN401 - the JSON edge
        """A field of the file; docker does not care for the case of its name."""
        return self.document.get(name_in(self.document, name))

    def _part(self, name: str) -> Mapping[str, Any]:
        part = self._field(name) or {}
        if not isinstance(part, dict):
            raise AccessDenied(f"{self.name}: {name} is not an object", remedy=_BROKEN)
        return part

    def _entry(self, entry: Any, key: str) -> Credentials | None:  # noqa: ANN401 - the JSON edge
        if entry is None:
            return None
        if not isinstance(entry, dict):
            raise self._wrong(key)
        names = ("username", "password", "auth", "identitytoken", "registrytoken")
        username, password, auth, identity, registry = (
            self._text(entry.get(name_in(entry, name)) or "", key) for name in names
        )
        if auth:
            username, password = self._decoded(auth, key)
        if not (username or password or identity or registry):
            return None
        return Credentials(username, password, identity or None, registry or None, self.name)

    def _decoded(self, auth: str, key: str) -> tuple[str, str]:
        """User and password. Source: docker/cli configfile, decodeAuth."""
        try:
            pair = base64.b64decode("".join(auth.split()), validate=True).decode()
        except ValueError:
            pair = ""  # the error would quote it
        username, colon, password = pair.partition(":")
        if not colon:
            raise self._wrong(key)
        # Old versions of docker have padded it.
        return username, password.strip("\0")

    def _text(self, value: Any, key: str) -> str:  # noqa: ANN401 - the JSON edge
        # A lone surrogate cannot be sent, nor written back.
        if not isinstance(value, str) or (not value.isascii() and not _is_utf8(value)):
            raise self._wrong(key)
        return value

    def _wrong(self, key: str) -> AccessDenied:
        return AccessDenied(
            f"{self.name}: the entry for {shown(key)} cannot be used", remedy="log in there again"
        )


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
