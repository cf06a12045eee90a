"""Exceptions that are exceptions of requests as well; import them from ``concil.errors``."""

from __future__ import annotations

import requests

from concil.errors import TRANSIENT_STATUS, AccessDenied, NotFound, QuotaExceeded, RegistryError
from concil.runtime.redaction import SECRETS


class StatusError(RegistryError, requests.HTTPError):
    """A response with an error status; the message begins with the status code."""

    def __init__(self, message: str, *, response: requests.Response, remedy: str = "") -> None:
        """Store the response, as ``requests.HTTPError`` does."""
        requests.HTTPError.__init__(self, SECRETS.redact(message), response=response)
        self.status: int = response.status_code
        self.retry_after: float | None = None  # seconds, from the Retry-After header
        self.is_permanent = False  # a retry would fail again, whatever the status
        self.codes: tuple[str, ...] = ()  # the registry's error codes
        if remedy:
            self.remedy = remedy

    @property
    def transient(self) -> bool:
        """Whether the status is that of a busy or failing server or proxy."""
        return self.status in TRANSIENT_STATUS and not self.is_permanent


class RegistryNotFound(StatusError, NotFound):
    """404: no such repository, manifest or blob."""


class RegistryDenied(StatusError, AccessDenied):
    """401 or 403, after all available credentials were tried."""

    denied_host: str = ""  # the host[:port] that denies this user everything


class RegistryQuotaExceeded(StatusError, QuotaExceeded):
    """429 because of a quota that renews in hours, such as Docker Hub's pull limit."""

    @property
    def transient(self) -> bool:
        """Always False, because the quota renews in hours."""
        return False


class ConnectionLost(RegistryError, requests.ConnectionError):
    """There was no response, or the connection broke during one."""

    def __init__(self, message: str, *, remedy: str = "") -> None:
        """Set the message; there is no response to store."""
        requests.ConnectionError.__init__(self, SECRETS.redact(message))
        if remedy:
            self.remedy = remedy

    @property
    def transient(self) -> bool:
        """Always True; `Unreachable` overrides it."""
        return True


class Unreachable(ConnectionLost):
    """No connection was established: refused, no route, unknown host name."""

    # A host that has answered before may recover; otherwise the name is probably wrong.
    has_answered_before: bool = False

    @property
    def transient(self) -> bool:
        """Whether the host has answered before and may recover."""
        return self.has_answered_before


class TLSFailure(RegistryError, requests.exceptions.SSLError):
    """The server's certificate is not trusted, or the server does not speak TLS."""

    is_downgrade_forbidden: bool = False  # never retry without TLS

    def __init__(self, message: str, *, remedy: str = "") -> None:
        """Set the message; there is no response to store."""
        requests.exceptions.SSLError.__init__(self, SECRETS.redact(message))
        if remedy:
            self.remedy = remedy


# Their public names, in tracebacks and pickles too.
for _error_type in (
    StatusError,
    RegistryNotFound,
    RegistryDenied,
    RegistryQuotaExceeded,
    ConnectionLost,
    Unreachable,
    TLSFailure,
):
    _error_type.__module__ = "concil.errors"
