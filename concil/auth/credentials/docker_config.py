"""Parses and edits auth files in the format of docker and podman.

An *auth key* names what an entry is for: ``host[:port]`` or
``host[:port]/namespace[/repository]``.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from dataclasses import field
from typing import Any

from concil.auth.credentials.credentials import Credentials
from concil.auth.credentials.go_json import find_key
from concil.errors import AccessDenied, safe_repr
from concil.oci.reference import DOCKER_HUB, DOCKER_HUB_LOGIN, normalize_docker_host
from concil.oci.strict_json import InvalidJSON, check_nesting
from concil.runtime.dataclass import dataclass

_REPAIR_REMEDY = "repair it, or remove it and log in again"


def normalize_auth_key(key: str) -> str:
    """Return the auth key for a key of ``auths``.

    Keys may be URLs, of which only the host is used, as in docker and podman.

    Source: docker/cli ConvertToHostname; containers/image normalizeAuthFileKey.
    """
    scheme, separator, rest = key.partition("://")
    if separator and scheme in ("http", "https"):
        key = rest.partition("/")[0]
    host, slash, path = key.strip("/").partition("/")
    return f"{normalize_docker_host(host.lower())}{slash}{path}"


def to_file_key(auth_key: str) -> str:
    """Return the key under which docker and podman look up an auth key."""
    return DOCKER_HUB_LOGIN if auth_key == DOCKER_HUB else auth_key


def host_of_key(auth_key: str) -> str:
    """Return the ``host[:port]`` of an auth key."""
    return auth_key.partition("/")[0]


def iter_parent_keys(auth_key: str) -> Iterator[str]:
    """Yield the auth key and its parents, the host last."""
    while auth_key:
        yield auth_key
        auth_key = auth_key.rpartition("/")[0]


@dataclass(frozen=True, slots=True)
class AuthFile:
    """Content of an auth file; each entry is checked when it is used."""

    name: str  # for messages
    document: Mapping[str, Any] = field(repr=False)

    @classmethod
    def parse(cls, content: bytes, name: str) -> AuthFile:
        """Parse a file's content; an empty file has no logins.

        Raises:
            AccessDenied: the content is not an auth file; the message does not quote it.
        """
        document: Any = {}
        if content.strip():
            try:
                text = content.decode(json.detect_encoding(content), "surrogatepass")
                check_nesting(text)
                document = json.loads(text)
            except InvalidJSON:
                raise AccessDenied(
                    f"{name}: its JSON is nested too deeply", remedy=_REPAIR_REMEDY
                ) from None
            except ValueError:
                document = None  # the error's message may quote the file
        if not isinstance(document, dict):
            raise AccessDenied(f"{name} is not a JSON object", remedy=_REPAIR_REMEDY)
        file = cls(name, document)
        for section in ("auths", "credHelpers"):
            file._get_object(section)
        if not isinstance(file._get_field("credsStore") or "", str):
            raise AccessDenied(f"{name}: credsStore is not a string", remedy=_REPAIR_REMEDY)
        return file

    @property
    def auth_keys(self) -> frozenset[str]:
        """The auth keys that have an entry, even an empty one."""
        return frozenset(normalize_auth_key(key) for key in self._get_object("auths"))

    @property
    def hosts_with_helper(self) -> frozenset[str]:
        """The hosts with an entry in ``credHelpers``."""
        return frozenset(
            normalize_auth_key(key) for key, name in self._get_object("credHelpers").items() if name
        )

    def helper_name(self, host: str) -> str | None:
        """Return the name of the credential helper of a host; None if the file stores its logins.

        Source: docker/cli configfile, credHelpers over credsStore.
        """
        for key, name in self._get_object("credHelpers").items():
            if normalize_auth_key(key) == host:
                return self._check_text(name or "", key) or None
        return self._get_field("credsStore") or None

    def get_credentials(self, auth_key: str) -> Credentials | None:
        """Return the credentials of exactly this auth key; None if there are none.

        Docker and podman write an empty entry for a login that a helper stores.

        Raises:
            AccessDenied: the entry is malformed; the message does not quote it.
        """
        auths = self._get_object("auths")
        keys = [key for key in auths if normalize_auth_key(key) == auth_key]
        # Docker stores its own tokens under keys like https://index.docker.io/v1/access-token.
        preferred_keys = (
            to_file_key(auth_key),
            auth_key,
            f"https://{auth_key}",
            f"https://{auth_key}/",
        )
        keys.sort(
            key=lambda key: (
                preferred_keys.index(key) if key in preferred_keys else len(preferred_keys)
            )
        )
        for key in keys:
            credentials = self._parse_entry(auths[key], key)
            if credentials is not None:
                return credentials
        return None

    def with_entry(self, auth_key: str, credentials: Credentials | None) -> bytes:
        """Return the file's content with one entry that replaces all entries of an auth key.

        Args:
            credentials: None for an empty entry, if a helper stores the login.
        """
        entry: dict[str, str] = {}
        if credentials is not None:
            entry["auth"] = credentials.basic_header().removeprefix("Basic ")
            if credentials.identity_token is not None:
                entry["identitytoken"] = credentials.identity_token
        return self._serialize({**self._auths_without(auth_key), to_file_key(auth_key): entry})

    def without_entry(self, auth_key: str) -> bytes:
        """Return the file's content without the entries of an auth key."""
        return self._serialize(self._auths_without(auth_key))

    def _auths_without(self, auth_key: str) -> dict[str, Any]:
        auths = self._get_object("auths").items()
        return {key: entry for key, entry in auths if normalize_auth_key(key) != auth_key}

    def _serialize(self, auths: Mapping[str, Any]) -> bytes:
        # Docker indents with tabs.
        document = {**self.document, find_key(self.document, "auths"): auths}
        return json.dumps(document, indent="\t").encode() + b"\n"

    def _get_field(self, name: str) -> Any:  # noqa: ANN401 - the JSON edge
        """Return a field of the file; like docker, ignore the case of its name."""
        return self.document.get(find_key(self.document, name))

    def _get_object(self, name: str) -> Mapping[str, Any]:
        section = self._get_field(name) or {}
        if not isinstance(section, dict):
            raise AccessDenied(f"{self.name}: {name} is not an object", remedy=_REPAIR_REMEDY)
        return section

    def _parse_entry(self, entry: Any, key: str) -> Credentials | None:  # noqa: ANN401 - the JSON edge
        if entry is None:
            return None
        if not isinstance(entry, dict):
            raise self._entry_error(key)
        names = ("username", "password", "auth", "identitytoken", "registrytoken")
        username, password, auth, identity, registry = (
            self._check_text(entry.get(find_key(entry, name)) or "", key) for name in names
        )
        if auth:
            username, password = self._decode_auth(auth, key)
        if not (username or password or identity or registry):
            return None
        return Credentials(username, password, identity or None, registry or None, self.name)

    def _decode_auth(self, auth: str, key: str) -> tuple[str, str]:
        """Return user and password. Source: docker/cli configfile, decodeAuth."""
        try:
            pair = base64.b64decode("".join(auth.split()), validate=True).decode()
        except ValueError:
            pair = ""  # the error's message may quote the password
        username, colon, password = pair.partition(":")
        if not colon:
            raise self._entry_error(key)
        # Old versions of docker padded the password with NUL.
        return username, password.strip("\0")

    def _check_text(self, value: Any, key: str) -> str:  # noqa: ANN401 - the JSON edge
        # A lone surrogate can neither be sent nor written back.
        if not isinstance(value, str) or (not value.isascii() and not _is_utf8(value)):
            raise self._entry_error(key)
        return value

    def _entry_error(self, key: str) -> AccessDenied:
        return AccessDenied(
            f"{self.name}: the entry for {safe_repr(key)} is invalid",
            remedy="log in to that registry again",
        )


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
