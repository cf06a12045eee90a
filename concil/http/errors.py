"""Translates errors of requests, urllib3 and registries into concil's exceptions."""

from __future__ import annotations

import errno
import http.client
import re

import requests
import urllib3.exceptions

from concil.errors import (
    ConcilError,
    ConnectionLost,
    LimitReached,
    ProtocolViolation,
    TLSFailure,
    Unreachable,
    UsageError,
    safe_repr,
)
from concil.http.sanitize import (
    clean_exceptions,
    iter_exception_chain,
)
from concil.runtime.limits import describe_limit

URLLIB3_ERRORS = urllib3.exceptions.HTTPError
# The message of requests for a missing CA file, raised before it connects.
_MISSING_FILE = re.compile(r"Could not find .*invalid path: (.*?)(?: \||$)")
_TUNNEL = re.compile(r"Tunnel connection failed: (\d{3})")
# http.client's limits: 100 lines of 64 KiB.
_TOO_LARGE = re.compile(r"LineTooLong|got more than \d+ (?:headers|trailers|interim answers)")
CONFLICTING_LENGTHS = "two lengths"  # raised in adapter.py
_UNTRUSTED = re.compile(r"CERTIFICATE_VERIFY_FAILED[^(]*?: (.*?)(?: \(_ssl|['\")]|$)")


def translate(
    error: BaseException, operation: str, *, has_answered: bool, proxy_setting: str = ""
) -> ConcilError:
    """Return concil's exception for one of the HTTP stack, and strip secrets from the original.

    Args:
        operation: what was attempted, for the message.
        has_answered: whether the host has sent any response before.
        proxy_setting: the setting that names the proxy in use; "" if unknown.
    """
    if isinstance(error, ConcilError):
        return error
    # Classify before cleaning: cleaning removes part of the messages.
    translated = _translated(
        error, _join_messages(error), operation, answered=has_answered, proxy=proxy_setting
    )
    clean_exceptions(error)
    if str(translated).startswith(f"{operation}: "):
        translated.reason = str(translated).removeprefix(f"{operation}: ")
    return translated


def _translated(
    error: BaseException, text: str, what: str, *, answered: bool, proxy: str
) -> ConcilError:
    failure = (
        _limit_error(error, what)
        or _tls_error(error, text, what)
        or _proxy_error(error, text, what, proxy)
    )
    if isinstance(failure, Unreachable):
        failure.has_answered_before = answered and failure.has_answered_before
    if failure is not None:
        return failure
    violation = _describe_violation(error, text)
    if violation:
        return ProtocolViolation(f"{what}: {violation}")
    if isinstance(error, requests.exceptions.ConnectTimeout) or _is_connect_error(error):
        if proxy:
            return _unreachable_proxy_error(what, proxy)
        unreachable = Unreachable(
            f"{what}: {_describe_cause(error, text)}", remedy="check the host name and port"
        )
        unreachable.has_answered_before = answered
        return unreachable
    return ConnectionLost(f"{what}: {_describe_cause(error, text)}")


def _limit_error(error: BaseException, operation: str) -> LimitReached | None:
    """Return an error if a limit of this machine was reached, which says nothing of the host."""
    limit = next(filter(None, map(describe_limit, iter_exception_chain(error))), None)
    return None if limit is None else LimitReached(f"{operation}: {limit[0]}", remedy=limit[1])


def _describe_violation(error: BaseException, text: str) -> str:
    """Describe a malformed response or request; "" if it is neither."""
    if _TOO_LARGE.search(text):
        return "the response headers are too large or too many"
    if CONFLICTING_LENGTHS in text:
        return "the response has two different lengths"
    return "a URL or header that cannot be sent" if isinstance(error, ValueError) else ""


_ANY_PROXY = "HTTP_PROXY or HTTPS_PROXY"


def invalid_proxy_error(operation: str, setting: str = "") -> UsageError:
    """Return the error for an unusable proxy URL, which is not quoted: it may hold a password."""
    return UsageError(
        f"{operation}: the URL of the proxy cannot be used",
        remedy=f"write {setting or _ANY_PROXY} as http://[user:password@]host:port",
    )


def _proxy_error(
    error: BaseException, text: str, operation: str, setting: str
) -> Unreachable | UsageError | None:
    """Return the error for a proxy failure, or None; the proxy's own message is not quoted."""
    if isinstance(error, requests.exceptions.InvalidProxyURL) or "SOCKS" in text:
        return invalid_proxy_error(operation, setting)
    if not isinstance(error, requests.exceptions.ProxyError):
        return None
    tunnel_refusal = _TUNNEL.search(text)
    if tunnel_refusal is None:
        return _unreachable_proxy_error(operation, setting)
    status = int(tunnel_refusal[1])
    setting_name = setting or _ANY_PROXY
    remedy = f"the proxy of {setting_name} refuses to connect to this host, or cannot reach it"
    if status == requests.codes.proxy_authentication_required:
        remedy = proxy_password_remedy(setting)
    unreachable = Unreachable(f"{operation}: the proxy responds with {status}", remedy=remedy)
    unreachable.has_answered_before = status >= 500
    return unreachable


def _unreachable_proxy_error(operation: str, setting: str) -> Unreachable:
    return Unreachable(
        f"{operation}: the proxy cannot be reached",
        remedy=f"check {setting or _ANY_PROXY}, or name the host in NO_PROXY",
    )


def proxy_password_remedy(setting: str) -> str:
    """Say how to set the user and password of a proxy."""
    setting_name = setting or _ANY_PROXY
    return (
        "give the user name and password of the proxy: "
        f"{setting_name}=http://user:password@host:port"
    )


def _join_messages(error: BaseException) -> str:
    """Join the messages of an exception chain: requests nests the cause several levels deep.

    Exceptions that quote the server contribute only their class name: otherwise a status
    line that mentions certificates could make the remedy suggest ``verify=False``.
    """
    return " | ".join(
        f"{type(e).__name__} {e}" if _is_trusted_message(e) else type(e).__name__
        for e in iter_exception_chain(error)
    )


def _is_trusted_message(error: BaseException) -> bool:
    """Return whether an exception's message comes from the system or a library."""
    if type(error) in (http.client.HTTPException, requests.exceptions.InvalidSchema):
        return True
    return isinstance(error, OSError) and not isinstance(error, requests.RequestException)


def _tls_error(error: BaseException, text: str, operation: str) -> TLSFailure | None:
    missing_file = _MISSING_FILE.search(text)
    if missing_file:
        return _unreadable_file_error(
            f"{operation}: there is no CA or certificate file {safe_repr(missing_file[1])}"
        )
    is_tls = isinstance(error, requests.exceptions.SSLError) or "SSLError" in text
    return _handshake_error(text, operation) if is_tls else None


def _handshake_error(text: str, operation: str) -> TLSFailure | None:
    if "CERTIFICATE_VERIFY_FAILED" in text or "doesn't match" in text:
        match = _UNTRUSTED.search(text)
        reason = match[1] if match else "certificate verify failed"
        failure = TLSFailure(
            f"{operation}: the server's certificate is not trusted: {reason}",
            remedy="give its CA with verify=FILE, or disable the check with verify=False",
        )
        failure.is_downgrade_forbidden = True
        return failure
    if any(mark in text for mark in ("WRONG_VERSION_NUMBER", "RECORD_LAYER", "HTTP_REQUEST")):
        return TLSFailure(
            f"{operation}: the server does not speak TLS",
            remedy="write http:// in front of the host for plain http",
        )
    if any(mark in text for mark in ("No such file", "PEM", "NO_CERTIFICATE", "is encrypted")):
        return _unreadable_file_error(
            f"{operation}: the CA or client certificate file cannot be read"
        )
    if "KEY_VALUES_MISMATCH" in text:
        return _unreadable_file_error(
            f"{operation}: the client certificate and its key do not match"
        )
    if "ALERT" in text or "HANDSHAKE" in text or "UNSUPPORTED_PROTOCOL" in text:
        failure = TLSFailure(
            f"{operation}: the TLS handshake failed",
            remedy="the server may require a client certificate",
        )
        failure.is_downgrade_forbidden = True  # the server does speak TLS
        return failure
    return None  # interrupted handshake: handled as a lost connection


def _unreadable_file_error(message: str) -> TLSFailure:
    failure = TLSFailure(message, remedy="give a file of PEM certificates")
    failure.is_downgrade_forbidden = True  # a mistyped path must not disable TLS
    return failure


def _is_connect_error(error: BaseException) -> bool:
    kinds = (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError)
    return any(isinstance(cause, kinds) for cause in iter_exception_chain(error))


_CAUSE_BY_ERRNO = {
    errno.ECONNREFUSED: "the connection was refused",
    errno.ENETUNREACH: "there is no route to the host",
    errno.EHOSTUNREACH: "there is no route to the host",
    errno.ECONNRESET: "the connection was reset",
    errno.EPIPE: "the connection was reset",
}


def _describe_cause(error: BaseException, text: str) -> str:
    """Return a short cause for the message; the stack's own texts contain object addresses."""
    if "headers take too long" in text:
        return "the response headers take too long"
    if "NameResolutionError" in text or "gaierror" in text:
        return "the host name is not known"
    for cause in iter_exception_chain(error):
        if isinstance(cause, OSError) and cause.errno in _CAUSE_BY_ERRNO:
            return _CAUSE_BY_ERRNO[cause.errno]
    if "Timeout" in text or "timed out" in text:
        return "no data was received within the timeout"
    return "the response is incomplete" if "IncompleteRead" in text else "the connection was closed"
