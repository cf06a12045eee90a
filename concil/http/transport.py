"""Sends one request: timeouts, redirects, TLS, proxies and throttling."""

from __future__ import annotations

import contextlib
import io
import logging
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import field
from typing import Any

import requests
import requests.utils

from concil.config import Timeouts
from concil.errors import Cancelled, ConcilError, ConnectionLost, ProtocolViolation, safe_repr
from concil.http import errors, proxies
from concil.http.adapter import check_proxy
from concil.http.observed_request import report_request
from concil.http.redirects import (
    MAX_REDIRECTS,
    ResolveRedirect,
    TooManyRedirects,
    redirect_location,
    resolve_location,
)
from concil.http.sanitize import register_user
from concil.http.throttle.host_limiters import HostLimiters
from concil.http.tls_context import environment_ca
from concil.http.urls import Origin, describe_request, host_of, origin, redact_url
from concil.http.warning_header import WarningLog
from concil.oci.reference import display_host
from concil.runtime.dataclass import dataclass
from concil.runtime.redaction import SECRETS

logger = logging.getLogger(__name__)

MAX_ERROR_SIZE = 64 * 1024  # bytes of an error body; the rest is not read
BODY_TIMEOUT = 300.0  # seconds for a whole small body; one byte a minute passes an idle timeout
_SECRET_HEADERS = ("Authorization", "Cookie", "Proxy-Authorization")


@dataclass(frozen=True, slots=True)
class SendOptions:
    """Options of one request, in addition to the request itself."""

    read_timeout: float | None = None  # seconds without a byte; None for the idle timeout
    allow_redirects: bool = True  # follow redirects
    resolve_redirect: ResolveRedirect = resolve_location
    # URL whose origin may receive credentials; None for the request's own.
    credentials_url: str | None = None
    session: bool = False  # the URL is an upload session's and therefore secret
    overrides: Mapping[str, Any] = field(default_factory=dict)  # timeout, verify, cert, proxies


DEFAULT_OPTIONS = SendOptions()


class ResponseTooLarge(ProtocolViolation):
    """A response body exceeds its size limit."""


class Transport:
    """Sends requests over one session. Any thread may call any method."""

    def __init__(
        self,
        session: requests.Session,
        *,
        timeouts: Timeouts | None = None,
        cancel: threading.Event | None = None,
        host_limiters: HostLimiters | None = None,
        warnings: WarningLog | None = None,
    ) -> None:
        """Use ``session``, which the caller closes."""
        self.session = session
        self.timeouts = timeouts or Timeouts()
        self.cancel = cancel or threading.Event()
        self.host_limiters = host_limiters or HostLimiters()
        self.warnings = warnings or WarningLog()
        self._answered_hosts: set[str] = set()  # hosts that have answered at least once
        self._lost_responses: Counter[str] = Counter()  # lost responses and 5xx, by host
        self._lost_responses_lock = threading.Lock()
        self._proxies_by_origin: dict[Origin, Mapping[str, str]] = {}
        self._seen_proxies: Mapping[str, str] = {}  # of the last request

    def send(
        self, request: requests.Request, options: SendOptions = DEFAULT_OPTIONS
    ) -> requests.Response:
        """Send ``request`` and return its response with the body unread, whatever the status.

        Redirects are followed for GET and HEAD, and for other methods if the body can be sent
        again. Credentials are sent only to the origin they belong to.

        Raises:
            ConnectionLost, Unreachable, TLSFailure: there was no response.
            ProtocolViolation: too many redirects, or one that ``resolve_redirect`` forbids.
        """
        prepared = self._prepare(request)
        target = origin(prepared.url or "")
        owner: Origin | None = target  # the origin that receives the credentials
        if options.credentials_url is not None:
            owner = origin(options.credentials_url)
        for _ in range(MAX_REDIRECTS + 1):
            has_credentials = target == owner
            if not has_credentials:
                owner = None  # they are not sent again, even back at the first origin
                for name in _SECRET_HEADERS:
                    prepared.headers.pop(name, None)
            response = self._send_once(prepared, options, has_credentials=has_credentials)
            location = redirect_location(response, prepared) if options.allow_redirects else None
            url = None if location is None else _resolve_redirect(response, location, options)
            if url is None:
                return response
            drain_response(response)
            prepared, target = prepared.copy(), origin(url)
            prepared.url = url
        raise TooManyRedirects(f"{redact_url(request.url)}: more than {MAX_REDIRECTS} redirects")

    def has_answered(self, url: str) -> bool:
        """Return whether the host of ``url`` has sent any response so far."""
        return host_of(url) in self._answered_hosts

    def lost_response_count(self, url: str) -> int:
        """Return how many responses of the host were lost or 5xx: it may have lost data since."""
        return self._lost_responses[host_of(url)]

    def record_lost_response(self, url: str) -> None:
        """Count a lost response of the host of ``url``."""
        with self._lost_responses_lock:
            self._lost_responses[host_of(url)] += 1

    def is_proxied(self, url: str) -> bool:
        """Return whether requests for ``url`` use a proxy, which then resolves the host name."""
        known_proxies = self.session.proxies or self._environment_proxies(url)
        return requests.utils.select_proxy(url, known_proxies) is not None

    def _prepare(self, request: requests.Request) -> requests.PreparedRequest:
        try:
            return self.session.prepare_request(request)
        except (requests.RequestException, ValueError) as error:
            operation = describe_request(request.method or "", request.url or "")
            raise errors.translate(error, operation, has_answered=False) from error

    def _send_once(
        self, prepared: requests.PreparedRequest, options: SendOptions, *, has_credentials: bool
    ) -> requests.Response:
        """Send a request, without redirects, when the limits of its host allow it."""
        url, host = prepared.url or "", host_of(prepared.url or "")
        settings = self._send_arguments(url, options)
        if not has_credentials:
            settings["cert"] = None  # do not identify the user to other hosts
        limiter = self.host_limiters.limiter_for(host)
        if self.cancel.is_set():
            raise Cancelled(f"{_describe(prepared)}: cancelled")
        permit = limiter.acquire(
            self.cancel, is_pull=prepared.method == "GET" and "/manifests/" in url
        )
        start_time, response, observer = time.monotonic(), None, self.host_limiters.observer
        try:
            response = self.session.send(prepared, **settings)
        except (requests.RequestException, OSError, ValueError, errors.URLLIB3_ERRORS) as error:
            raise self._translate(error, prepared, host) from error
        finally:
            limiter.record_response(permit, response, _read_429_body(response))
            if observer is not None:
                report_request(observer, prepared, host, response, start_time)
        self._answered_hosts.add(host)
        if "Warning" in response.headers:
            self.warnings.record(host, response.headers["Warning"])
        if response.status_code >= requests.codes.server_error:
            self.record_lost_response(url)
        if logger.isEnabledFor(logging.DEBUG):
            duration = (time.monotonic() - start_time) * 1000
            logger.debug("%s %d %.0f ms", _describe(prepared), response.status_code, duration)
        return response

    def _translate(
        self, error: Exception, prepared: requests.PreparedRequest, host: str
    ) -> ConcilError:
        """Return the exception for a request without a response, which is counted as lost."""
        has_answered = host in self._answered_hosts
        if has_answered:  # otherwise it may not speak TLS or not exist
            self.record_lost_response(prepared.url or "")
        setting = self._proxy_source(prepared.url or "")
        operation = describe_request(prepared.method or "", prepared.url or "")
        translated = errors.translate(
            error, operation, has_answered=has_answered, proxy_setting=setting
        )
        translated.host = display_host(host)
        return translated

    def _send_arguments(self, url: str, options: SendOptions) -> dict[str, Any]:
        """Return the arguments of `requests.Session.send`: TLS, proxies and timeouts."""
        verify = self.session.verify
        if verify is True or verify is None:  # for plain http requests does not use it
            verify = (not url.startswith("http:") and environment_ca()) or True
        settings: dict[str, Any] = {
            "verify": verify,
            "cert": self.session.cert,
            "proxies": self.session.proxies or self._environment_proxies(url),
            "timeout": (self.timeouts.connect, options.read_timeout or self.timeouts.idle),
            "stream": True,
            "allow_redirects": False,
        }
        if options.overrides:
            settings.update({k: v for k, v in options.overrides.items() if v is not None})
        if settings["proxies"] != self._seen_proxies:
            for proxy in filter(None, settings["proxies"].values()):
                register_user(str(proxy))
            self._seen_proxies = dict(settings["proxies"])  # last: other threads rely on it
        return settings

    def _proxy_source(self, url: str) -> str:
        """Return the name of the setting of a URL's proxy, for messages; "" without one."""
        if self.session.proxies:
            return "the proxies of the session"
        proxy = proxies.find_proxy(url)
        return "" if proxy is None else proxy.setting

    def _environment_proxies(self, url: str) -> Mapping[str, str]:
        """Return the proxies for a URL, cached per origin: a lookup costs as much as a request."""
        target = origin(url)
        origin_proxies = self._proxies_by_origin.get(target)
        if origin_proxies is None:
            proxy = proxies.find_proxy(url)
            if proxy is not None:
                check_proxy(proxy)
            origin_proxies = {} if proxy is None else {target[0]: proxy.url}
            self._proxies_by_origin[target] = origin_proxies
        return origin_proxies


def _describe(prepared: requests.PreparedRequest) -> str:
    return f"{prepared.method} {redact_url(prepared.url or '')}"


def _resolve_redirect(
    response: requests.Response, location: str, options: SendOptions
) -> str | None:
    """Return the URL to follow a redirect to; it is a secret, because it may hold a signature.

    Raises:
        ProtocolViolation: the policy forbids the redirect; the response is closed.
    """
    register = SECRETS.register_session if options.session else SECRETS.register_signed
    register(location)  # an error of `resolve_redirect` would show it
    try:
        url = options.resolve_redirect(response.url, location)
    except ProtocolViolation:
        drain_response(response)
        raise
    if url is not None:
        register(url)
    return url


def _read_429_body(response: requests.Response | None) -> bytes:
    """Return the body of a 429, which tells a quota from a rate limit; b"" otherwise."""
    if response is None or response.status_code != requests.codes.too_many:
        return b""
    return read_error(response)


def read_limited(response: requests.Response, limit: int, operation: str) -> bytes:
    """Read a small body completely; ``.content`` of the response returns it as well.

    Raises:
        ResponseTooLarge: the body has more than ``limit`` bytes.
        ProtocolViolation: the body has a content encoding that was not requested.
        ConnectionLost: the body was interrupted or took too long.
    """
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    length = content_length(response)
    if encoding not in ("", "identity"):
        response.close()
        raise ProtocolViolation(
            f"{operation}: the response has the content encoding {safe_repr(encoding, 40)}"
        )
    if length is not None and length > limit:
        response.close()
        raise ResponseTooLarge(f"{operation}: the response is larger than {limit} bytes")
    pieces: list[bytes] = []
    remaining = limit + 1
    deadline = time.monotonic() + BODY_TIMEOUT
    try:
        while remaining > 0:
            # read1 receives once; read would wait for a full piece, past the deadline.
            piece = response.raw.read1(min(remaining, 64 * 1024), decode_content=False)
            if not piece:
                break
            pieces.append(piece)
            remaining -= len(piece)
            if time.monotonic() > deadline:
                raise ConnectionLost(f"{operation}: the response takes too long")
    except (requests.RequestException, OSError, errors.URLLIB3_ERRORS) as error:
        response.close()
        raise errors.translate(error, operation, has_answered=True) from error
    content = b"".join(pieces)
    if remaining <= 0:
        response.close()
        raise ResponseTooLarge(f"{operation}: the response is larger than {limit} bytes")
    response.raw = _ReadBody(content)
    return response.content  # and keep it, even if the response is closed


class _ReadBody(io.BytesIO):
    """A body that was read; requests would join copies of its pieces."""

    def stream(self, _chunk_size: int, **_options: object) -> Iterator[bytes]:
        """Yield the whole body, as urllib3's responses yield pieces."""
        yield self.getvalue()


def read_error(response: requests.Response) -> bytes:
    """Read the body of an error response; b"" if it cannot be read, since the status suffices."""
    if isinstance(response.raw, io.BytesIO):
        return response.raw.getvalue()  # read before
    content = b""
    length = content_length(response)
    # Distribution 2.8 sends the whole blob's Content-Length with a 416, and a few bytes.
    if response.status_code != 416 or (length is not None and length <= MAX_ERROR_SIZE):
        with contextlib.suppress(ConcilError):
            content = read_limited(response, MAX_ERROR_SIZE, "an error")
    if not content:
        response.close()
        response.raw = io.BytesIO()
    return content


def content_length(response: requests.Response) -> int | None:
    """Return the Content-Length of a response in bytes; None if missing or not a number."""
    value = response.headers.get("Content-Length", "")
    # isdigit is true for superscripts, and int() rejects numbers of thousands of digits.
    return int(value) if value.isdecimal() and len(value) < 20 else None


def drain_response(response: requests.Response) -> None:
    """Close a response, after reading a short body so that the connection can be reused."""
    length = content_length(response)
    # Never read a 416: distribution 2.8 announces more bytes than it sends.
    if response.status_code != 416 and length is not None and length <= MAX_ERROR_SIZE:
        with contextlib.suppress(ConcilError):
            read_limited(response, MAX_ERROR_SIZE, "a discarded response")
    response.close()
