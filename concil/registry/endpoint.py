"""Base URL of a registry, and requests with credentials and retries."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import field, replace
from functools import partial
from typing import Any

import requests

from concil import retry
from concil.auth import challenge
from concil.auth.authenticator import Authenticator
from concil.auth.credentials.credentials import CredentialProviders
from concil.auth.scope import Scopes
from concil.auth.shared_attempts import SharedAttempts
from concil.auth.token_cache import AuthAttempt
from concil.config import RetryPolicy
from concil.errors import ConnectionLost, RegistryDenied, StatusError, TLSFailure, Unreachable
from concil.http import status_errors
from concil.http.tls_context import answers_in_plain_http
from concil.http.transport import (
    DEFAULT_OPTIONS,
    SendOptions,
    Transport,
    read_error,
    read_limited,
)
from concil.http.urls import describe_request, host_of, origin, redact_url
from concil.oci.manifest import Body
from concil.oci.reference import is_loopback
from concil.runtime.dataclass import dataclass
from concil.runtime.parent_process import ParentProcess

logger = logging.getLogger(__name__)

# For the first token, a wider one, and one with credentials from a prompt.
_MAX_CHALLENGES = 3
_CREDENTIALS_STATUSES = frozenset({400, 401, 403})  # those of missing or expired credentials
_OK = frozenset({200})
_PROBE_TIMEOUT = 1.0  # seconds; only of hosts on this machine


@dataclass(frozen=True, slots=True)
class Call:
    """One request to a registry, which can be sent several times."""

    method: str
    url: str  # absolute, or a path that begins with /
    scopes: Scopes = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | Body | None = None
    expected_statuses: frozenset[int] = _OK  # other statuses are errors
    options: SendOptions = DEFAULT_OPTIONS
    request_arguments: Mapping[str, Any] = field(
        default_factory=dict
    )  # for requests.Request: auth, cookies
    rewind: Callable[[], None] | None = None  # rewinds a body that was read, to resend it
    max_response_size: int | None = None  # bytes to read of the response; None leaves it unread
    operation: str = ""  # for messages; "" for the method and the URL
    # More headers of an attempt, by its URL and its Authorization header.
    attempt_headers: Callable[[str, str | None], Mapping[str, str]] | None = None


class Endpoint:
    """A registry's base URL and its authenticator. Any thread may call any method."""

    def __init__(
        self,
        transport: Transport,
        base_url: str,
        *,
        providers: CredentialProviders | None = None,
        allow_plain_http: bool = False,
        parent: ParentProcess | None = None,
    ) -> None:
        """Use ``base_url``, which consists of scheme and host.

        Args:
            providers: sources of the credentials; None for anonymous access.
            allow_plain_http: switch to plain http if the host does not support TLS.
            parent: of a run that is split over several processes.
        """
        self.transport = transport
        attempts = None if parent is None else SharedAttempts(parent, base_url, transport.cancel)
        self.authenticator = Authenticator(transport, base_url, providers, attempts)
        self._base_url = base_url
        self._host = base_url.partition("://")[2]
        self._allow_plain_http = allow_plain_http
        self._is_probed = False  # whether the host was asked if it speaks TLS
        self._lock = threading.Lock()

    @property
    def base_url(self) -> str:
        """Scheme and host; the scheme becomes http after a downgrade."""
        return self._base_url

    @property
    def host(self) -> str:
        """Host and port, which a downgrade to http does not change."""
        return self._host

    @property
    def cancel(self) -> threading.Event:
        """The event that cancels all requests and waits."""
        return self.transport.cancel

    @property
    def lost_response_count(self) -> int:
        """Number of lost responses and 5xx of the registry since the run began."""
        return self.transport.lost_response_count(self._base_url)

    def may_pull_unannounced(self, *, is_single: bool) -> bool:
        """Return whether a GET of a manifest needs no HEAD before. See `HostLimiter`."""
        limiter = self.transport.host_limiters.limiter_for(host_of(self._base_url))
        return limiter.may_pull_unannounced(is_single=is_single)

    def send_with_retry(self, call: Call, policy: RetryPolicy) -> requests.Response:
        """Send a small call, with retries after transient errors. Raises as `send`."""
        describe = partial(self._describe, call)
        for number, attempt in enumerate(retry.attempts(policy, self.cancel, describe)):
            if number and (observer := self.transport.host_limiters.observer) is not None:
                observer.record_retry(self.host)
            with attempt:
                return self._accept(call, self.send_authorized(call))
        raise AssertionError("the last attempt returns or raises")

    def send(self, call: Call) -> requests.Response:
        """Send a call once, with credentials; return the response.

        Its body is unread, or in ``content`` if the call has a ``max_response_size``.

        Raises:
            RegistryNotFound, RegistryDenied, StatusError: the status is not expected.
            ConnectionLost: there was no response, or the credentials had expired and were
                refreshed, but the body cannot be sent again.
            ResponseTooLarge: the response is larger than ``max_response_size``.
        """
        return self._accept(call, self.send_authorized(call))

    def send_authorized(self, call: Call) -> requests.Response:
        """Send a call, again with refreshed credentials after a 401; return any status.

        After a TLS failure it is sent again over plain http if that is allowed.

        Raises:
            RegistryDenied: the credentials were rejected before; nothing was sent.
            ConnectionLost: there was no response, or the body cannot be sent again.
            TLSFailure, ProtocolViolation, AccessDenied, StatusError: also from the token service.
        """
        attempt, challenge_count = AuthAttempt(call.scopes), 0
        if self._allow_plain_http and not self._is_probed:
            self._probe_tls()
        while True:
            url = self.absolute_url(call.url)
            attempt.sent_header = (
                self.authenticator.authorization(call.scopes) if self._is_own_url(url) else None
            )
            try:
                response = self.transport.send(
                    _create_request(call, url, attempt.sent_header), self._current_options(call)
                )
            except (TLSFailure, ConnectionLost) as error:
                if not self._downgrade_to_http(url, error):
                    raise
                continue
            if not self._is_unauthorized(response, attempt) or challenge_count == _MAX_CHALLENGES:
                return response
            challenge_count += 1
            if not self._refresh_credentials(response, call, attempt):
                return response

    def _describe(self, call: Call) -> str:
        return call.operation or describe_request(call.method, self.absolute_url(call.url))

    def _accept(self, call: Call, response: requests.Response) -> requests.Response:
        """Return an expected response, with its body read if the call says so. Raises as `send`."""
        if response.status_code not in call.expected_statuses:
            raise _status_error(response)
        if call.max_response_size is not None:
            try:
                read_limited(response, call.max_response_size, self._describe(call))
            except ConnectionLost:
                self.transport.record_lost_response(response.url)
                raise
        return response

    def _refresh_credentials(
        self, response: requests.Response, call: Call, attempt: AuthAttempt
    ) -> bool:
        """Answer a 401; return whether to send the call again.

        Raises:
            ConnectionLost: the body cannot be sent again.
        """
        attempt.challenges = challenge.read_challenges(response)
        read_error(response)
        if not self.authenticator.refresh(attempt):
            return False
        if call.rewind is not None:
            call.rewind()
        elif not (call.body is None or isinstance(call.body, bytes)):
            raise ConnectionLost(
                f"{call.method} {redact_url(response.url)}: the token expired during the request"
            )
        return True

    def _is_unauthorized(self, response: requests.Response, attempt: AuthAttempt) -> bool:
        if response.status_code not in _CREDENTIALS_STATUSES:
            return False
        if not self._is_own_url(response.url):
            return False  # a storage host's 401 does not concern the registry's token
        if response.status_code == requests.codes.unauthorized:
            return True
        if response.status_code == requests.codes.forbidden and challenge.is_scope_insufficient(
            response
        ):
            return True  # RFC 6750 prescribes 403 where distribution answers 401
        # ECR Public answers 400 to an expired token, others 403.
        return self.authenticator.is_expired(attempt.scopes, attempt.sent_header)

    def _is_own_url(self, url: str) -> bool:
        base_url = self._base_url
        return url.startswith(f"{base_url}/") or origin(url) == origin(base_url)

    def absolute_url(self, url: str) -> str:
        """Return the URL for a path, or for a URL of this registry with the current scheme.

        A URL may be older than the downgrade to http. One of an upload session that another
        process started may already be http before this process has downgraded.
        """
        if url.startswith("/"):
            return self._base_url + url
        scheme, _, rest = url.partition("://")
        other_scheme = {"http": "https", "https": "http"}.get(self._base_url.partition("://")[0])
        is_ours = rest == self.host or rest.startswith((f"{self.host}/", f"{self.host}?"))
        if scheme != other_scheme or not is_ours:
            return url
        if scheme == "http" and not self._allow_plain_http:
            return url
        return f"{self._base_url}{rest.removeprefix(self.host)}"

    def _current_options(self, call: Call) -> SendOptions:
        """Return the options; ``credentials_url`` may have been set before a downgrade to http."""
        options = call.options
        if options.credentials_url is None:
            return options
        url = self.absolute_url(options.credentials_url)
        return options if url == options.credentials_url else replace(options, credentials_url=url)

    def _probe_tls(self) -> None:
        """Find a loopback host that speaks plain http, without loading the CA certificates.

        Any other host, and one that does not answer, gets its first request over TLS.
        """
        scheme, host, port = origin(self._base_url)
        with self._lock:
            is_needed = not self._is_probed and scheme == "https" and is_loopback(self.host)
            self._is_probed = True
            if not is_needed or self.transport.session.verify is not True:
                return
            transport = self.transport
            if transport.has_answered(self._base_url) or transport.is_proxied(self._base_url):
                return
            if answers_in_plain_http(host, port, min(_PROBE_TIMEOUT, transport.timeouts.connect)):
                self._use_plain_http()

    def _use_plain_http(self) -> None:
        """Use plain http from now on. The caller holds the lock."""
        if self.transport.warnings.is_new_plain_host(self.host):
            logger.info("%s does not support TLS; using plain http", self._base_url)
        self._base_url = "http" + self._base_url.removeprefix("https")
        self.authenticator.registry_url = self._base_url

    def _downgrade_to_http(self, url: str, error: TLSFailure | ConnectionLost) -> bool:
        with self._lock:  # several threads may fail at the same time
            if self.absolute_url(url) != url:
                return True  # another thread has downgraded already
            if not (
                self._allow_plain_http and url.startswith("https://") and self._is_own_url(url)
            ):
                return False
            if isinstance(error, Unreachable) or getattr(error, "is_downgrade_forbidden", False):
                return False
            if isinstance(error, ConnectionLost) and self.transport.has_answered(url):
                return False
            self._use_plain_http()
            return True


def _create_request(call: Call, url: str, authorization: str | None) -> requests.Request:
    headers = dict(call.headers)
    if call.attempt_headers is not None:
        headers |= call.attempt_headers(url, authorization)
    if authorization is not None:
        headers["Authorization"] = authorization
    return requests.Request(
        call.method, url, headers=headers, data=call.body, **call.request_arguments
    )


def _status_error(response: requests.Response) -> StatusError:
    error = status_errors.create_status_error(response, read_error(response))
    if isinstance(error, RegistryDenied) and challenge.is_token_invalid(response):
        error.remedy = "it rejects the tokens of its token service: their clocks or keys may differ"
    return error
