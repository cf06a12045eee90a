"""User names, passwords and the prompts that ask for them."""

from __future__ import annotations

import base64
import contextlib
import sys
import threading
from collections.abc import Callable
from dataclasses import field
from typing import Any

from concil.errors import AccessDenied, UsageError
from concil.runtime import arguments
from concil.runtime.dataclass import dataclass
from concil.runtime.redaction import SECRETS

TOKEN_USER = "<token>"  # noqa: S105 - the user name that marks an identity token


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user name with a password or token; ``repr`` shows no secret.

    Creating one registers its secrets, which are then redacted in all of concil's messages.
    """

    username: str
    password: str = field(repr=False)
    identity_token: str | None = field(default=None, repr=False)  # an OAuth 2 refresh token
    registry_token: str | None = field(default=None, repr=False)  # a bearer token, sent unchanged
    source: str = field(default="", compare=False)  # file or helper they come from, for messages

    def __post_init__(self) -> None:
        """Check the field types and register the secrets for redaction."""
        arguments.check_str("username", self.username)
        arguments.check_str("password", self.password)
        arguments.check_optional_str("identity_token", self.identity_token)
        arguments.check_optional_str("registry_token", self.registry_token)
        SECRETS.register(self.password, self.identity_token, self.registry_token)
        # A password too short to search for is still recognized in its encoded form.
        if self.password:
            with contextlib.suppress(UnicodeError):
                SECRETS.register(self.basic_header().removeprefix("Basic "))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the fields; unpickling registers the secrets in the other process."""
        fields = self.username, self.password, self.identity_token, self.registry_token, self.source
        return type(self), fields

    @classmethod
    def parse(cls, text: str) -> Credentials:
        """Parse ``user:password``, the format of ``--creds``.

        Raises:
            UsageError: there is no colon or no user.
        """
        username, colon, password = text.partition(":")
        if not colon or not username:
            raise UsageError(
                "the credentials have no user name or no password", remedy="write USER:PASSWORD"
            )
        return cls(username, password)

    @classmethod
    def from_identity_token(cls, identity_token: str, source: str = "") -> Credentials:
        """Return credentials that consist of an identity token.

        Source: docker-credential-helpers, README, "Development".
        """
        return cls(TOKEN_USER, "", identity_token=identity_token, source=source)

    @property
    def description(self) -> str:
        """The user and the source of the credentials, for messages."""
        return f"user {self.username!r}{f' of {self.source}' if self.source else ''}"

    def basic_header(self) -> str:
        """Return the value of a Basic Authorization header. Source: RFC 7617."""
        pair = f"{self.username}:{self.password}".encode()
        return f"Basic {base64.b64encode(pair).decode('ascii')}"


CredentialProvider = Callable[[], Credentials | None]


@dataclass(frozen=True, slots=True)
class CredentialProviders:
    """Sources of the credentials for a host, in the order in which they are tried."""

    explicit: Credentials | None = None  # from the address or the command line
    stored: CredentialProvider | None = None  # looks up a stored login
    prompt: CredentialProvider | None = None  # prompts the user, as the last resort


class CredentialPrompt:
    """Prompts the user for credentials once, for all threads. Any thread may call it."""

    def __init__(
        self,
        host: str,
        get_username: Callable[[], str | None],
        on_answer: Callable[[Credentials], None],
    ) -> None:
        """Prompt for the missing user or password and call ``on_answer`` with the result.

        Args:
            get_username: returns the user name if known; "" for anonymous access, no prompt.
        """
        self._host = host
        self._get_username = get_username
        self._on_answer = on_answer
        self._lock = threading.Lock()
        self._credentials: Credentials | None = None

    def __call__(self) -> Credentials | None:
        """Return the user's answer; None for anonymous access.

        Raises:
            AccessDenied: there is no terminal to prompt on.
        """
        with self._lock:
            username = self._get_username()
            if username == "":
                return None
            if self._credentials is None:
                self._credentials = self._prompt(username)
                self._on_answer(self._credentials)
            return self._credentials

    def _prompt(self, known_username: str | None) -> Credentials:
        try:
            username = known_username or input(f"Username for {self._host}: ")
            import getpass  # noqa: PLC0415  # only at a terminal

            return Credentials(username, getpass.getpass(f"Password for {self._host}: "))
        except (EOFError, OSError) as error:
            terminal_note = (
                "" if sys.stdin and sys.stdin.isatty() else " and there is no terminal for a prompt"
            )
            raise AccessDenied(
                f"{self._host} requires a user name and password{terminal_note}",
                remedy="put them in the URL: docker://user:password@host/repository",
            ) from error
