"""The exceptions concil raises, as one tree.

    ConcilError (RuntimeError)
    |-- UsageError (ValueError)         the caller's input cannot be used
    |   |-- InvalidReference            not a reference or store address
    |   `-- InvalidDigest               not a digest of a known algorithm
    |-- ContentError                    bytes are not what they claim to be
    |   |-- DigestMismatch
    |   |-- SizeMismatch
    |   |-- FileChanged                 a local file changed while it was read
    |   `-- InvalidManifest             unreadable, too large, nested too deep
    |-- NotFound                        a name or digest that is not there
    |-- AccessDenied                    not authorised
    |   `-- NotTried                    its host has refused this user already
    |-- QuotaExceeded                   what a registry allows for some hours is used up
    |-- RegistryError                   the registry, or the way to it
    |   |-- StatusError (requests.HTTPError)   an answer that is an error
    |   |   |-- RegistryNotFound (NotFound)        404
    |   |   |-- RegistryDenied (AccessDenied)      401 403
    |   |   `-- QuotaRefusal (QuotaExceeded)       429 that no wait of minutes helps
    |   |-- ConnectionLost (requests.ConnectionError)   no answer, or half of one
    |   |   `-- Unreachable             never connected: refused, unknown host
    |   |-- TLSFailure (requests.exceptions.SSLError)
    |   |-- ProtocolViolation           an answer that makes no sense
    |   `-- SessionLost                 the upload session is gone; a new one may do
    |-- StoreError                      a local directory, file or disk
    |   `-- LimitReached                threads, memory or open files of this machine
    `-- Cancelled                       somebody asked to stop

Every message is one line without secrets: what was being done, to what, why it
failed. ``remedy`` is what a person can do about it: it names parameters as ``verify=False``,
for which the command line puts its options. ``transient`` is whether another try is worth it.
"""

from __future__ import annotations

from typing import Any

import requests

from concil.redaction import SECRETS


def shown(text: object, limit: int = 160) -> str:
    """Quote untrusted text for a message: one line, ASCII, at most ``limit`` characters."""
    quoted = SECRETS.redact(ascii(text))  # before it is cut: half a secret would not be found
    return quoted if len(quoted) <= limit else quoted[: limit - 3] + "..."


# 499 and 522: a proxy gave up on the server behind it. REGISTRIES.md, checklist 13.
TRANSIENT_STATUS = frozenset({408, 425, 429, 499, 500, 502, 503, 504, 520, 521, 522, 523, 524})


class ConcilError(RuntimeError):
    """Anything that concil reports; catch this to catch them all."""

    remedy: str = ""

    @property
    def transient(self) -> bool:
        """Whether the same call may succeed later, with nothing changed here."""
        return False

    def __init__(self, message: str, *, remedy: str = "") -> None:
        """Keep the message, without the secrets in it, and what can be done about it."""
        super().__init__(SECRETS.redact(message))
        if remedy:
            self.remedy = remedy

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel to another process, without the answer of a registry: that stays here."""
        state = {k: v for k, v in vars(self).items() if k not in ("response", "request")}
        return _restored, (type(self), self.args, state)


def _restored(kind: type[ConcilError], args: tuple[Any, ...], state: dict[str, Any]) -> ConcilError:
    # Those that are requests' too are laid out in memory as an OSError.
    maker: Any = OSError if issubclass(kind, OSError) else RuntimeError
    error: ConcilError = maker.__new__(kind, *args)
    error.args = args
    if isinstance(error, requests.RequestException):
        error.response = error.request = None
    error.__dict__.update(state)
    return error


class UsageError(ConcilError, ValueError):
    """The caller's input cannot be used."""


class InvalidReference(UsageError):
    """A text that is neither a reference nor a store address."""


class InvalidDigest(UsageError):
    """A text that is not a digest of a registered algorithm."""


class ContentError(ConcilError):
    """Bytes are not what they claim to be."""


class DigestMismatch(ContentError):
    """Bytes do not hash to their digest."""

    found: str = ""  # what they hash to; "" where somebody else has hashed them


class SizeMismatch(ContentError):
    """There are more or fewer bytes than were announced."""

    cut: bool = False  # they stopped coming, and no other try brought the rest

    @property
    def transient(self) -> bool:
        """Whether bytes are missing because a connection broke again and again."""
        return self.cut


class FileChanged(ContentError):
    """A local file changed while it was being read."""


class InvalidManifest(ContentError):
    """A manifest that cannot be read, is too large, or nests without end."""


class NotFound(ConcilError):
    """A name or digest that is not there."""


class AccessDenied(ConcilError):
    """The credentials at hand, or the lack of any, do not allow it."""


class QuotaExceeded(ConcilError):
    """What a registry allows for some hours is used up; to wait for it is a person's decision."""


class NotTried(AccessDenied):
    """An image of a mirror that was not begun: its host refuses whatever this user asks."""


class RegistryError(ConcilError):
    """The registry, or the way to it, failed."""


class StatusError(RegistryError, requests.HTTPError):
    """An answer whose status is an error; the message begins with the status code."""

    def __init__(self, message: str, *, response: requests.Response, remedy: str = "") -> None:
        """Keep the answer, as ``requests.HTTPError`` does."""
        requests.HTTPError.__init__(self, SECRETS.redact(message), response=response)
        self.status: int = response.status_code
        self.retry_after: float | None = None  # seconds, from the answer's Retry-After
        self.final = False  # the same request would get the same answer, whatever the status
        if remedy:
            self.remedy = remedy

    @property
    def transient(self) -> bool:
        """Whether the status is one of a busy or broken server or proxy."""
        return self.status in TRANSIENT_STATUS and not self.final


class RegistryNotFound(StatusError, NotFound):
    """404: no such repository, manifest or blob."""


class RegistryDenied(StatusError, AccessDenied):
    """401 or 403, after every credential at hand was tried."""

    everywhere: str = ""  # the host[:port] that refuses this user whatever is asked


class QuotaRefusal(StatusError, QuotaExceeded):
    """429 because of a quota that renews in hours, as Docker Hub's pulls."""

    @property
    def transient(self) -> bool:
        """Never: no wait of minutes helps."""
        return False


class ConnectionLost(RegistryError, requests.ConnectionError):
    """No answer came, or the connection broke in the middle of one."""

    def __init__(self, message: str, *, remedy: str = "") -> None:
        """Keep the message; there is no answer to keep."""
        requests.ConnectionError.__init__(self, SECRETS.redact(message))
        if remedy:
            self.remedy = remedy

    @property
    def transient(self) -> bool:
        """Always, unless there was never a connection."""
        return True


class Unreachable(ConnectionLost):
    """No connection came about: refused, no route, unknown host name."""

    # A host that has answered before is coming back; one that never has is a wrong name.
    answered_before: bool = False

    @property
    def transient(self) -> bool:
        """Whether the host has answered before: then it may come back."""
        return self.answered_before


class TLSFailure(RegistryError, requests.exceptions.SSLError):
    """The other side could not be trusted, or does not speak TLS."""

    untrusted: bool = False  # the certificate is the reason: never try anything weaker

    def __init__(self, message: str, *, remedy: str = "") -> None:
        """Keep the message; there is no answer to keep."""
        requests.exceptions.SSLError.__init__(self, SECRETS.redact(message))
        if remedy:
            self.remedy = remedy


class ProtocolViolation(RegistryError):
    """A registry's answer makes no sense for the request."""


class SessionLost(RegistryError):
    """An upload session is gone: its bytes must be sent again in a new one."""

    @property
    def transient(self) -> bool:
        """Always: another call opens another session."""
        return True


class StoreError(ConcilError):
    """A local directory, file or disk refused."""


class LimitReached(StoreError):
    """This machine gives no further thread, memory or open file."""


class Cancelled(ConcilError):
    """Somebody asked to stop; what was done so far can be resumed."""
