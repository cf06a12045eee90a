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
    |-- UntrustedImage                  no signature of an image satisfies its policy
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
    |-- CallbackFailed                  a callback of the caller raised an exception
    `-- Cancelled                       cancelled by the caller

Every message is one line without secrets: the action, its object and the cause. ``remedy``
says what the user can do: it names parameters such as ``verify=False``, which the command
line replaces by its options. ``transient`` says whether another attempt may succeed.

The exceptions that are exceptions of requests as well are defined in ``network_errors.py``, which
imports requests, and are imported from there when they are first used.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as that of typing, which takes longer to import than this module
if TYPE_CHECKING:
    from typing import Any

    from concil.network_errors import (
        ConnectionLost,
        RegistryDenied,
        RegistryNotFound,
        RegistryQuotaExceeded,
        StatusError,
        TLSFailure,
        Unreachable,
    )

__all__ = [
    "TRANSIENT_STATUS",
    "AccessDenied",
    "CallbackFailed",
    "Cancelled",
    "ConcilError",
    "ConnectionLost",
    "ContentError",
    "DigestMismatch",
    "FileChanged",
    "InvalidDigest",
    "InvalidManifest",
    "InvalidReference",
    "LimitReached",
    "NotFound",
    "NotTried",
    "ProtocolViolation",
    "QuotaExceeded",
    "RegistryDenied",
    "RegistryError",
    "RegistryNotFound",
    "RegistryQuotaExceeded",
    "SessionLost",
    "SizeMismatch",
    "StatusError",
    "StoreError",
    "TLSFailure",
    "Unreachable",
    "UntrustedImage",
    "UsageError",
    "safe_repr",
]


def _redact(text: str) -> str:
    from concil.runtime.redaction import SECRETS  # noqa: PLC0415  # needed once there is an error

    return SECRETS.redact(text)


def safe_repr(text: object, max_length: int = 160) -> str:
    """Quote untrusted text for a message: one line, ASCII, at most ``max_length`` characters."""
    quoted = _redact(ascii(text))  # before cutting: a truncated secret is not found
    return quoted if len(quoted) <= max_length else quoted[: max_length - 3] + "..."


# 499 and 522: a proxy gave up on the server behind it. REGISTRIES.md, checklist 13.
TRANSIENT_STATUS = frozenset({408, 425, 429, 499, 500, 502, 503, 504, 520, 521, 522, 523, 524})


class ConcilError(RuntimeError):
    """Base class of all exceptions of concil."""

    remedy: str = ""
    host: str = ""  # host[:port] that failed; "" if it is not about a host
    operation: str = ""  # what failed: "cannot read HOST/REPOSITORY:TAG"; "" if the message says it
    reason: str = ""  # the cause without the object, equal for equal causes; "" if unknown

    @property
    def summary(self) -> str:
        """What failed and why, as a message for people."""
        return f"{self.operation}: {self.reason}" if self.operation and self.reason else str(self)

    @property
    def transient(self) -> bool:
        """Whether the same call may succeed later, without any changes."""
        return False

    def __init__(self, message: str, *, remedy: str = "") -> None:
        """Set the message, with secrets redacted, and the remedy."""
        super().__init__(_redact(message))
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
    if isinstance(error, OSError):
        state = {"response": None, "request": None, **state}
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


class UntrustedImage(ConcilError):
    """An image has no signature that its policy accepts; it was not copied."""


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


class ProtocolViolation(RegistryError):
    """A registry's response is invalid for the request."""


class SessionLost(RegistryError):
    """The upload session is gone; its bytes must be sent again in a new one."""

    @property
    def transient(self) -> bool:
        """Always True, because the next attempt opens a new session."""
        return True


class StoreError(ConcilError):
    """An operation on a local directory, file or disk failed."""


class LimitReached(StoreError):
    """A limit of this machine was reached: threads, memory or open files."""


class CallbackFailed(ConcilError):
    """A callback of the caller raised an exception, the ``__cause__``; its image was not copied."""

    @classmethod
    def from_exception(cls, cause: Exception) -> CallbackFailed:
        """Return the error of an image whose progress callback raised ``cause``."""
        text = f": {safe_repr(str(cause))}" if str(cause) else ""
        error = cls(
            f"a callback raised {type(cause).__name__}{text}",
            remedy="copy the image again to resume",
        )
        error.__cause__ = cause
        return error


class Cancelled(ConcilError):
    """The operation was cancelled; it can be resumed."""


_NETWORK_ERRORS = frozenset(
    {
        "ConnectionLost",
        "RegistryDenied",
        "RegistryNotFound",
        "RegistryQuotaExceeded",
        "StatusError",
        "TLSFailure",
        "Unreachable",
    }
)

# A checker that sees `__getattr__` takes every name for one that is there.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Import an exception that derives from one of requests."""
        if name not in _NETWORK_ERRORS:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from concil import network_errors  # noqa: PLC0415  # imports requests

        value = globals()[name] = getattr(network_errors, name)
        return value
