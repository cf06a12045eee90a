"""Where stored credentials are looked for, in which order, and what a place has there."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from concil.errors import AccessDenied, ConcilError
from concil.registry import auth_disk
from concil.registry.auth_file import AuthFile, around, host_in, key_of, place_of
from concil.registry.credential_helper import CredentialHelper
from concil.registry.credentials import Credentials

logger = logging.getLogger(__name__)

INLINE = "DOCKER_AUTH_CONFIG"


@dataclass(frozen=True, slots=True)
class Inline:
    """The content of a file of logins that is in no file."""

    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Shelf:
    """The files of logins, the first to look at first, and the one for a new login."""

    sources: tuple[Path | Inline, ...]
    home: Path

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files among them."""
        return tuple(one for one in self.sources if isinstance(one, Path))

    @classmethod
    def of(cls, authfile: str | None) -> Shelf:
        """Return just one file, or for None those that the environment names.

        Podman's come before docker's. What is new goes to docker's, which both read,
        unless the environment names one for podman.

        Source: containers-auth.json(5); docker/cli, cli/config; REGISTRIES.md 3.5.
        """
        if authfile is not None:
            return cls((Path(authfile),), Path(authfile))
        variables = os.environ
        named = variables.get("REGISTRY_AUTH_FILE")
        runtime = variables.get("XDG_RUNTIME_DIR") or f"/run/containers/{os.getuid()}"
        # Without the variable the directory is podman's own, one level up.
        ours = Path(runtime) / ("containers" if variables.get("XDG_RUNTIME_DIR") else "")
        home = Path(os.path.expanduser("~"))  # noqa: PTH111 - Path.home raises without a home
        config = Path(variables.get("XDG_CONFIG_HOME") or home / ".config")
        docker = Path(variables.get("DOCKER_CONFIG") or home / ".docker") / "config.json"
        inline = variables.get(INLINE)
        sources = (
            *((Path(named),) if named else ()),
            ours / "auth.json",
            config / "containers" / "auth.json",
            *((Inline(inline),) if inline else ()),
            docker,
        )
        return cls(sources, Path(named) if named else docker)


class Keyring:
    """What logins have left, for whoever asks. Any thread may call any method.

    Files are read anew for each answer: a login may be renewed while a transfer runs.
    """

    def __init__(self, shelf: Shelf, *, cancel: threading.Event | None = None) -> None:
        """Look at the files of ``shelf``; ``cancel`` ends a helper that runs."""
        self.shelf = shelf
        self._cancel = cancel
        self._known: frozenset[str] | None = None  # all places of all files, at the first look

    def find(self, place: str, user: str | None = None) -> Credentials | None:
        """Return the credentials for a place; None: there are none.

        The first file that has any counts; in it the helper of the host, or else the entry
        for the smallest part of the registry that holds the place.

        Args:
            place: ``host[:port][/namespace[/repository]]``.
            user: only those of this user; "" for nobody's.
        Raises:
            AccessDenied: a file that comes before them is broken, or a helper failed.
        """
        if user == "":
            return None
        place = place_of(place)
        for file in self._files():
            found = self._in(file, place)
            if found is not None and user in (None, found.username):
                return found
        return None

    def scope(self, place: str) -> str:
        """Return the part of the registry whose places all have the same credentials.

        No helper is run, and a broken file is for `find` to complain of.
        """
        place = place_of(place)
        if self._known is None:
            self._known = frozenset(self._namespaces())
        return next((each for each in around(place) if each in self._known), host_in(place))

    def helper(self, file: AuthFile, host: str) -> CredentialHelper | None:
        """Return the helper that keeps the logins of a host; None: the file does.

        Raises:
            AccessDenied: it has no name that a program could have.
        """
        name = file.helper(host)
        if name is None:
            return None
        try:
            return CredentialHelper(name, cancel=self._cancel)
        except AccessDenied as error:
            raise AccessDenied(f"{file.name}: {error}", remedy=error.remedy) from None

    def _files(self) -> Iterator[AuthFile]:
        return filter(None, map(_opened, self.shelf.sources))

    def _namespaces(self) -> Iterator[str]:
        for source in self.shelf.sources:
            with contextlib.suppress(ConcilError):
                file = _opened(source)
                yield from (place for place in (file.places if file else ()) if "/" in place)

    def _in(self, file: AuthFile, place: str) -> Credentials | None:
        host = host_in(place)
        helper = self.helper(file, host)
        if helper is not None:
            if helper.is_installed or host in file.helped or host in file.places:
                found = helper.get(key_of(host))
                if found is not None:
                    return found
            else:
                # A leftover of Docker Desktop: it may never have known this registry.
                logger.warning("%s names %s, which is not installed", file.name, helper.program)
        return next(filter(None, map(file.credentials, around(place))), None)


def _opened(source: Path | Inline) -> AuthFile | None:
    if isinstance(source, Path):
        return auth_disk.read(source)
    return AuthFile.parse(source.text.encode(errors="replace"), INLINE)
