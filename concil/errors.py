"""The exceptions of concil.

    ConcilError (RuntimeError)
    |-- UsageError (ValueError)         the caller's input cannot be used
    |   |-- InvalidReference            not a reference or store address
    |   `-- InvalidDigest               not a digest of a known algorithm
    |-- ContentError                    bytes are not what they claim to be
    |   |-- DigestMismatch
    |   |-- SizeMismatch
    |   |-- FileChanged                 a local file changed while it was read
    |   `-- InvalidManifest             unreadable, too large, nested too deep
    |-- NotFound                        a name or digest that does not exist
    |-- AccessDenied                    not authorised
    |   `-- NotTried                    its host has rejected this user already
    |-- QuotaExceeded                   a registry's quota of several hours is used up
    |-- RegistryError                   the registry, or the connection to it
    |   |-- StatusError (requests.HTTPError)   an error response
    |   |   |-- RegistryNotFound (NotFound)        404
    |   |   |-- RegistryDenied (AccessDenied)      401 403
    |   |   `-- RegistryQuotaExceeded (QuotaExceeded)   429, renews in hours
    |   |-- ConnectionLost (requests.ConnectionError)   no or an incomplete response
    |   |   `-- Unreachable             never connected: refused, unknown host
    |   |-- TLSFailure (requests.exceptions.SSLError)
    |   |-- ProtocolViolation           an invalid response
    |   `-- SessionLost                 the upload session is gone; a new one may succeed
    |-- StoreError                      a local directory, file or disk
    |   `-- LimitReached                threads, memory or open files of this machine
    `-- Cancelled                       cancelled by the caller

Every message is one line without secrets: the action, its object and the cause. ``remedy``
says what the user can do: it names parameters such as ``verify=False``, which the command
line replaces by its options. ``transient`` says whether another attempt may succeed.
"""

from __future__ import annotations

from typing import Any

import requests

from concil.runtime.redaction import SECRETS


def safe_repr(text: object, max_length: int = 160) -> str:
    """Quote untrusted text for a message: one line, ASCII, at most ``max_length`` characters."""
    quoted = SECRETS.redact(ascii(text))  # before cutting: a truncated secret is not found
    return quoted if len(quoted) <= max_length else quoted[: max_length - 3] + "..."


# 499 and 522: a proxy gave up on the server behind it. REGISTRIES.md, checklist 13.
TRANSIENT_STATUS = frozenset({408, 425, 429, 499, 500, 502, 503, 504, 520, 521, 522, 523, 524})


class ConcilError(RuntimeError):
    """Base class of all exceptions of concil."""

    remedy: str = ""

    @property
    def transient(self) -> bool:
        """Whether the same call may succeed later, without any changes."""
        return False

    def __init__(self, message: str, *, remedy: str = "") -> None:
        """Set the message, with secrets redacted, and the remedy."""
        super().__init__(SECRETS.redact(message))
        if remedy:
            self.remedy = remedy

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the exception without the HTTP request and response."""
        state = {k: v for k, v in vars(self).items() if k not in ("response", "request")}
        return _restore_error, (type(self), self.args, state)


def _restore_error(
    error_type: type[ConcilError], args: tuple[Any, ...], state: dict[str, Any]
) -> ConcilError:
    # Subclasses of requests' exceptions have the memory layout of OSError.
    maker: Any = OSError if issubclass(error_type, OSError) else RuntimeError
    error: ConcilError = maker.__new__(error_type, *args)
    error.args = args
    if isinstance(error, requests.RequestException):
        error.response = error.request = None
    error.__dict__.update(state)
    return error


class UsageError(ConcilError, ValueError):
    """The caller's input cannot be used."""


class InvalidReference(UsageError):
    """The text is neither a reference nor a store address."""


class InvalidDigest(UsageError):
    """The text is not a digest of a registered algorithm."""


class ContentError(ConcilError):
    """Bytes are not what they claim to be."""


class DigestMismatch(ContentError):
    """Bytes do not hash to their digest."""

    actual_digest: str = ""  # the computed digest; "" if it was not computed here


class SizeMismatch(ContentError):
    """There are more or fewer bytes than announced."""

    is_truncated: bool = False  # the data ended early, and retries did not yield the rest

    @property
    def transient(self) -> bool:
        """Whether bytes are missing because the connection broke repeatedly."""
        return self.is_truncated


class FileChanged(ContentError):
    """A local file changed while it was being read."""


class InvalidManifest(ContentError):
    """The manifest cannot be parsed, is too large, or is nested too deep."""


class NotFound(ConcilError):
    """The name or digest does not exist."""


class AccessDenied(ConcilError):
    """The available credentials, or anonymous access, do not permit it."""


class QuotaExceeded(ConcilError):
    """A quota of several hours is used up; concil does not wait for its renewal."""


class NotTried(AccessDenied):
    """An image of a mirror was not started, because its host denies this user everything."""


class RegistryError(ConcilError):
    """The registry, or the connection to it, failed."""


class StatusError(RegistryError, requests.HTTPError):
    """A response with an error status; the message begins with the status code."""

    def __init__(self, message: str, *, response: requests.Response, remedy: str = "") -> None:
        """Store the response, as ``requests.HTTPError`` does."""
        requests.HTTPError.__init__(self, SECRETS.redact(message), response=response)
        self.status: int = response.status_code
        self.retry_after: float | None = None  # seconds, as the Retry-After of a busy host says
        self.is_permanent = False  # a retry would fail again, whatever the status
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
        """Always False: the quota renews in hours."""
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


class ProtocolViolation(RegistryError):
    """A registry's response is invalid for the request."""


class SessionLost(RegistryError):
    """The upload session is gone; its bytes must be sent again in a new one."""

    @property
    def transient(self) -> bool:
        """Always True: the next attempt opens a new session."""
        return True


class StoreError(ConcilError):
    """An operation on a local directory, file or disk failed."""


class LimitReached(StoreError):
    """A limit of this machine was reached: threads, memory or open files."""


class Cancelled(ConcilError):
    """The operation was cancelled; it can be resumed."""
