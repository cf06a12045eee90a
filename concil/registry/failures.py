"""What requests, urllib3 and a registry's error answers mean, as concil's own exceptions."""

from __future__ import annotations

import email.utils
import errno
import http.client
import re
import time

import requests
import urllib3.exceptions

from concil.errors import (
    ConcilError,
    ConnectionLost,
    LimitReached,
    ProtocolViolation,
    QuotaRefusal,
    RegistryDenied,
    RegistryNotFound,
    StatusError,
    TLSFailure,
    Unreachable,
    UsageError,
    shown,
)
from concil.limits import reached
from concil.registry import proxies, quota
from concil.registry.sanitize import (
    chain,
    clean_exceptions,
    clean_response,
    clean_text,
    register_request,
)
from concil.registry.urls import redacted
from concil.strict_json import InvalidJson, read_json

HTTP_ERRORS = urllib3.exceptions.HTTPError
_REASONS = {400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found"}
_OF_PROXIES = frozenset({407, 502, 503, 504})  # what a proxy answers by itself
# What requests says of a file that is not there, before it connects.
_MISSING_FILE = re.compile(r"Could not find .*invalid path: (.*?)(?: \||$)")
_TUNNEL = re.compile(r"Tunnel connection failed: (\d{3})")
# The limits of http.client: 100 lines of 64 KiB.
_TOO_LARGE = re.compile(r"LineTooLong|got more than \d+ (?:headers|trailers|interim answers)")
TWO_LENGTHS = "two lengths"  # says connections.py
_UNTRUSTED = re.compile(r"CERTIFICATE_VERIFY_FAILED[^(]*?: (.*?)(?: \(_ssl|['\")]|$)")


def translate(error: BaseException, what: str, *, answered: bool, proxy: str = "") -> ConcilError:
    """Return our exception for one of the HTTP stack's, which loses the secrets in it.

    Args:
        what: what was being done, for the message.
        answered: whether the host has answered anything before.
        proxy: the setting that names the proxy which was asked; "": not known.
    """
    if isinstance(error, ConcilError):
        return error
    # What it says is read first: cleaned it says less.
    found = _translated(error, _texts(error), what, answered=answered, proxy=proxy)
    clean_exceptions(error)
    return found


def _translated(
    error: BaseException, text: str, what: str, *, answered: bool, proxy: str
) -> ConcilError:
    failure = _limit(error, what) or _tls(error, text, what) or _proxy(error, text, what, proxy)
    if isinstance(failure, Unreachable):
        failure.answered_before = answered and failure.answered_before
    if failure is not None:
        return failure
    nonsense = _nonsense(error, text)
    if nonsense:
        return ProtocolViolation(f"{what}: {nonsense}")
    if isinstance(error, requests.exceptions.ConnectTimeout) or _never_connected(error):
        if proxy:
            return _no_proxy_there(what, proxy)
        lost = Unreachable(f"{what}: {_why(error, text)}", remedy="check the host name and port")
        lost.answered_before = answered
        return lost
    return ConnectionLost(f"{what}: {_why(error, text)}")


def _limit(error: BaseException, what: str) -> LimitReached | None:
    """The limit of this machine that was reached; nobody knows whether the host is there."""
    limit = next(filter(None, map(reached, chain(error))), None)
    return None if limit is None else LimitReached(f"{what}: {limit[0]}", remedy=limit[1])


def _nonsense(error: BaseException, text: str) -> str:
    """What is wrong with an answer that makes no sense, or ""."""
    if _TOO_LARGE.search(text):
        return "the headers of the answer are too large, or too many"
    if TWO_LENGTHS in text:
        return "the answer has two lengths"
    return "a URL or header that cannot be sent" if isinstance(error, ValueError) else ""


_ANY_PROXY = "HTTP_PROXY or HTTPS_PROXY"


def unusable_proxy(what: str, setting: str = "") -> UsageError:
    """The error for the URL of a proxy; it may hold a password, and is not repeated."""
    return UsageError(
        f"{what}: the URL of the proxy cannot be used",
        remedy=f"write {setting or _ANY_PROXY} as http://[user:password@]host:port",
    )


def _proxy(
    error: BaseException, text: str, what: str, setting: str
) -> Unreachable | UsageError | None:
    """The trouble with a proxy, if it is that; the proxy's own words are not repeated."""
    if isinstance(error, requests.exceptions.InvalidProxyURL) or "SOCKS" in text:
        return unusable_proxy(what, setting)
    if not isinstance(error, requests.exceptions.ProxyError):
        return None
    refused = _TUNNEL.search(text)
    if refused is None:
        return _no_proxy_there(what, setting)
    status = int(refused[1])
    where = setting or _ANY_PROXY
    remedy = f"the proxy of {where} does not let this host through, or cannot reach it"
    if status == requests.codes.proxy_authentication_required:
        remedy = _proxy_password(setting)
    lost = Unreachable(f"{what}: the proxy answers {status}", remedy=remedy)
    lost.answered_before = status >= 500
    return lost


def _no_proxy_there(what: str, setting: str) -> Unreachable:
    return Unreachable(
        f"{what}: the proxy cannot be reached",
        remedy=f"check {setting or _ANY_PROXY}, or name the host in NO_PROXY",
    )


def _proxy_password(setting: str) -> str:
    where = setting or _ANY_PROXY
    return f"give the proxy's user and password: {where}=http://user:password@host:port"


def _of_proxy(response: requests.Response) -> str:
    """What can be done about an answer to plain http that a proxy may have given; or ""."""
    proxied = proxies.of_environment(response.url)
    if proxied is None or response.url.startswith("https:"):
        return ""
    if response.status_code == requests.codes.proxy_authentication_required:
        return _proxy_password(proxied.setting)
    return f"it came through the proxy that {proxied.setting} names, which may not reach the host"


def _texts(error: BaseException) -> str:
    """All that a chain of exceptions says: requests hides the cause several levels down.

    Of those that repeat what the other side sent only the names count: a server whose
    status line speaks of certificates would have a person told to trust anybody.
    """
    return " | ".join(
        f"{type(e).__name__} {e}" if _is_ours(e) else type(e).__name__ for e in chain(error)
    )


def _is_ours(error: BaseException) -> bool:
    """Whether the words of an exception are the system's, or those of a library itself."""
    if type(error) in (http.client.HTTPException, requests.exceptions.InvalidSchema):
        return True
    return isinstance(error, OSError) and not isinstance(error, requests.RequestException)


def _tls(error: BaseException, text: str, what: str) -> TLSFailure | None:
    missing = _MISSING_FILE.search(text)
    if missing:
        return _unreadable(f"{what}: there is no CA or certificate file {shown(missing[1])}")
    tls = isinstance(error, requests.exceptions.SSLError) or "SSLError" in text
    return _handshake(text, what) if tls else None


def _handshake(text: str, what: str) -> TLSFailure | None:
    if "CERTIFICATE_VERIFY_FAILED" in text or "doesn't match" in text:
        found = _UNTRUSTED.search(text)
        why = found[1] if found else "certificate verify failed"
        failure = TLSFailure(
            f"{what}: the server's certificate is not trusted: {why}",
            remedy="name its CA with verify=FILE, or use verify=False if you must",
        )
        failure.untrusted = True
        return failure
    if any(mark in text for mark in ("WRONG_VERSION_NUMBER", "RECORD_LAYER", "HTTP_REQUEST")):
        return TLSFailure(
            f"{what}: the server does not speak TLS",
            remedy="write http:// in front of the host if plain http is meant",
        )
    if any(mark in text for mark in ("No such file", "PEM", "NO_CERTIFICATE", "is encrypted")):
        return _unreadable(f"{what}: the CA or client certificate file cannot be read")
    if "KEY_VALUES_MISMATCH" in text:
        return _unreadable(f"{what}: the client certificate and its key are no pair")
    if "ALERT" in text or "HANDSHAKE" in text or "UNSUPPORTED_PROTOCOL" in text:
        failure = TLSFailure(
            f"{what}: the TLS handshake failed", remedy="the server may want a client certificate"
        )
        failure.untrusted = True  # it does speak TLS
        return failure
    return None  # broken off in the middle: a lost connection like any other


def _unreadable(message: str) -> TLSFailure:
    failure = TLSFailure(message, remedy="name a file of PEM certificates")
    failure.untrusted = True  # a slip in a path is no reason to go on without TLS
    return failure


def _never_connected(error: BaseException) -> bool:
    kinds = (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError)
    return any(isinstance(one, kinds) for one in chain(error))


_CAUSES = {
    errno.ECONNREFUSED: "the connection was refused",
    errno.ENETUNREACH: "there is no route to the host",
    errno.EHOSTUNREACH: "there is no route to the host",
    errno.ECONNRESET: "the connection was reset",
    errno.EPIPE: "the connection was reset",
}


def _why(error: BaseException, text: str) -> str:
    """A few words for a person; the stack's own texts hold object addresses."""
    if "headers take too long" in text:
        return "the headers of the answer take too long"
    if "NameResolutionError" in text or "gaierror" in text:
        return "the host name is not known"
    for one in chain(error):
        if isinstance(one, OSError) and one.errno in _CAUSES:
            return _CAUSES[one.errno]
    if "Timeout" in text or "timed out" in text:
        return "no byte came for too long"
    return "the answer broke off" if "IncompleteRead" in text else "the connection was closed"


def retry_after(response: requests.Response) -> float | None:
    """Seconds that an answer asks to wait, from seconds or a date; None if it does not.

    Source: RFC 9110, 10.2.3.
    """
    value = response.headers.get("Retry-After", "").strip()
    if value.isdecimal():  # isdigit is true for a superscript, which is no number
        return min(float(value), 300.0)
    try:
        seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
    except (TypeError, ValueError, OverflowError, OSError):
        return None
    return min(max(0.0, seconds), 300.0)


def status_error(response: requests.Response, content: bytes, what: str = "") -> StatusError:
    """Return the exception for an answer that is an error; its body was read already.

    The first argument begins with the status code, as ``raise_for_status`` has it, and
    goes on with the registry's own codes and messages.
    """
    register_request(response.request)
    status = response.status_code
    side = "Client" if status < 500 else "Server"
    reason = clean_text(response.reason or _REASONS.get(status, ""))[:100]
    message = f"{status} {side} Error: {reason} for url: {redacted(response.url)}"
    told = _told(content)
    if told:
        message = f"{message}: {told}"
    if what:
        message = f"{message} ({what})"
    kind: type[StatusError] = StatusError
    remedy = ""
    if status == 404:
        kind, remedy = RegistryNotFound, "check the repository, tag or digest"
    elif status in (401, 403):
        kind, remedy = RegistryDenied, "give credentials, log in, or ask for the right to do this"
    elif quota.is_spent(status, response.headers, content):
        kind, remedy = QuotaRefusal, "log in to have more, or run it again when it renews"
    elif status == 413:
        remedy = "a proxy in front of the registry limits the size of a body"
    elif status in _OF_PROXIES:
        remedy = _of_proxy(response)
    error = kind(message, response=clean_response(response, content), remedy=remedy)
    error.retry_after = retry_after(response)
    # Distribution 2.8 says 500 to a manifest whose foreign layers it does not want.
    error.final = status == 500 and "MANIFEST_BLOB_UNKNOWN" in codes(content)
    return error


def codes(content: bytes) -> list[str]:
    """The registry's error codes; none if the body is something else.

    Source: distribution-spec, "Error Codes".
    """
    return [code for code, _ in _entries(content) if code]


def _told(content: bytes) -> str:
    entries = _entries(content)
    if entries:
        return "; ".join(clean_text(": ".join(filter(None, entry))) for entry in entries)[:500]
    text = content.decode("utf-8", "replace").strip()
    if not text or text.startswith("<"):  # the HTML of a proxy says nothing
        return ""
    return clean_text(text)[:200]


def _entries(content: bytes) -> list[tuple[str, str]]:
    try:
        document = read_json(content)
    except InvalidJson:
        return []
    errors = document.get("errors") if isinstance(document, dict) else None
    if not isinstance(errors, list):
        return []
    found = []
    for entry in errors[:10]:
        if isinstance(entry, dict):
            message, detail = entry.get("message"), entry.get("detail")
            told = message if isinstance(message, str) else ""
            if isinstance(detail, str) and detail and detail not in told:
                told = f"{told} ({detail})" if told else detail
            code = entry.get("code")
            found.append((code if isinstance(code, str) else "", told))
    return found
