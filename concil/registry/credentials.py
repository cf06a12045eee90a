"""User names and passwords, and how a person is asked for them."""

from __future__ import annotations

import base64
import contextlib
import getpass
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from concil import arguments
from concil.errors import AccessDenied, UsageError
from concil.redaction import SECRETS

TOKEN_USER = "<token>"  # noqa: S105 - the user of a secret that is an identity token


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user name and a password, or a token that stands for them; no secret is in ``repr``.

    From then on no message of concil shows the secrets either, whoever repeats them.
    """

    username: str
    password: str = field(repr=False)
    identity_token: str | None = field(default=None, repr=False)  # an OAuth 2 refresh token
    registry_token: str | None = field(default=None, repr=False)  # a bearer token, used as it is
    place: str = field(default="", compare=False)  # where a login keeps them, for messages

    def __post_init__(self) -> None:
        """Refuse what is no text; remember what must not be shown."""
        arguments.text("username", self.username)
        arguments.text("password", self.password)
        arguments.optional_text("identity_token", self.identity_token)
        arguments.optional_text("registry_token", self.registry_token)
        SECRETS.register(self.password, self.identity_token, self.registry_token)
        # A password that is too short to be looked for is found in what it is sent as.
        if self.password:
            with contextlib.suppress(UnicodeError):
                SECRETS.register(self.basic().removeprefix("Basic "))

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel to another process, which remembers the secrets as well."""
        fields = self.username, self.password, self.identity_token, self.registry_token, self.place
        return type(self), fields

    @classmethod
    def parse(cls, text: str) -> Credentials:
        """Read ``user:password``, as ``--creds`` takes it.

        Raises:
            UsageError: no colon, or no user.
        """
        username, colon, password = text.partition(":")
        if not colon or not username:
            raise UsageError(
                "credentials have no user or no password", remedy="write USER:PASSWORD"
            )
        return cls(username, password)

    @classmethod
    def token(cls, identity_token: str, place: str = "") -> Credentials:
        """Return the credentials that are an identity token.

        Source: docker-credential-helpers, README, "Development".
        """
        return cls(TOKEN_USER, "", identity_token=identity_token, place=place)

    @property
    def whose(self) -> str:
        """The user, and where they were found, for messages."""
        return f"user {self.username!r}{f' of {self.place}' if self.place else ''}"

    def basic(self) -> str:
        """The value of a Basic Authorization header. Source: RFC 7617."""
        pair = f"{self.username}:{self.password}".encode()
        return f"Basic {base64.b64encode(pair).decode('ascii')}"


Ask = Callable[[], Credentials | None]


@dataclass(frozen=True, slots=True)
class Login:
    """Where the credentials for a host come from, in the order in which they are tried."""

    given: Credentials | None = None  # by the address or the command line
    stored: Ask | None = None  # looks for what a login left; before anybody is anonymous
    ask: Ask | None = None  # asks a person; when nothing else was enough


class Prompt:
    """Asks a person for credentials, once, whichever thread comes first. Any thread may call it."""

    def __init__(
        self,
        host: str,
        username: Callable[[], str | None],
        keep: Callable[[Credentials], None],
    ) -> None:
        """Ask for what is missing; ``keep`` is told what was answered.

        Args:
            username: what is known of the user; "" means: nobody, do not ask.
        """
        self._host = host
        self._username = username
        self._keep = keep
        self._lock = threading.Lock()
        self._answer: Credentials | None = None

    def __call__(self) -> Credentials | None:
        """Return what the person answered; None if it should be done without a user.

        Raises:
            AccessDenied: there is nobody to ask.
        """
        with self._lock:
            username = self._username()
            if username == "":
                return None
            if self._answer is None:
                self._answer = self._ask(username)
                self._keep(self._answer)
            return self._answer

    def _ask(self, known: str | None) -> Credentials:
        try:
            username = known or input(f"Username for {self._host}: ")
            return Credentials(username, getpass.getpass(f"Password for {self._host}: "))
        except (EOFError, OSError) as error:
            where = (
                "" if sys.stdin and sys.stdin.isatty() else " and there is no terminal to ask at"
            )
            raise AccessDenied(
                f"{self._host} wants a user and a password{where}",
                remedy="put them into the URL: docker://user:password@host/repository",
            ) from error
