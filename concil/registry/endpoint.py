"""One registry as its clients see it: where it answers, and requests with its credentials."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import requests

from concil import retry
from concil.config import RetryPolicy
from concil.content import Body
from concil.errors import ConnectionLost, RegistryDenied, TLSFailure, Unreachable
from concil.registry import challenge, failures
from concil.registry.auth import Authenticator
from concil.registry.credentials import Login
from concil.registry.held import Refusal
from concil.registry.scopes import Scopes
from concil.registry.session import Options, Transport, read_error
from concil.registry.urls import origin, redacted

logger = logging.getLogger(__name__)

# A first token, a wider one, then that of a person who was asked.
_ANSWERS = 3


@dataclass(frozen=True, slots=True)
class Call:
    """One request to a registry, as often as it must be made."""

    method: str
    url: str  # absolute, or a path that begins with /
    scopes: Scopes = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | Body | None = None
    expect: frozenset[int] = frozenset({200})  # statuses that are no error
    options: Options = field(default_factory=Options)
    extra: Mapping[str, Any] = field(default_factory=dict)  # for requests.Request: auth, cookies
    rewind: Callable[[], None] | None = None  # makes a body that was read readable again


class Endpoint:
    """A registry's base URL and its authenticator. Any thread may call any method."""

    def __init__(
        self,
        transport: Transport,
        base: str,
        *,
        login: Login | None = None,
        may_be_plain: bool = False,
    ) -> None:
        """Use ``base``, scheme and host.

        Args:
            login: whose requests they are; None: nobody's.
            may_be_plain: go over to plain http where the host speaks no TLS at all.
        """
        self.transport = transport
        self.auth = Authenticator(transport, base, login)
        self._base = base
        self._may_be_plain = may_be_plain
        self._lock = threading.Lock()

    @property
    def base(self) -> str:
        """Scheme and host; http once a host has turned out to speak no TLS."""
        return self._base

    @property
    def host(self) -> str:
        """Host and port, which stay the same whatever the scheme turns out to be."""
        return self._base.partition("://")[2]

    @property
    def cancel(self) -> threading.Event:
        """What stops every request and every wait."""
        return self.transport.cancel

    def repeat(self, call: Call, policy: RetryPolicy) -> requests.Response:
        """Make a small call, again after transient errors: the one place for these."""

        def what() -> str:
            return f"{call.method} {redacted(self.absolute(call.url))}"

        return retry.call(lambda: self.send(call), policy, self.cancel, what)

    def send(self, call: Call) -> requests.Response:
        """Make a call once, with credentials; the body of the answer is unread.

        Raises:
            RegistryNotFound, RegistryDenied, StatusError: a status that is not expected.
            ConnectionLost: no answer; also when a body that cannot be read twice was
                refused for its credentials, which are good now.
        """
        response = self.authorized(call)
        if response.status_code in call.expect:
            return response
        error = failures.status_error(response, read_error(response))
        if isinstance(error, RegistryDenied) and challenge.rejects_token(response):
            error.remedy = "it takes no token of its token service: their clocks or keys may differ"
        raise error

    def authorized(self, call: Call) -> requests.Response:
        """Make a call once, renewing credentials that are refused; any status is returned.

        Raises:
            RegistryDenied: the credentials are known to be refused; nothing was sent.
            ConnectionLost: no answer, or a body that cannot be read twice was refused.
            TLSFailure, ProtocolViolation, AccessDenied, StatusError: from the token
                service, too.
        """
        refusal = Refusal(call.scopes, self._authorization(call))
        response = self._reach(call, refusal.sent)
        for _ in range(_ANSWERS):
            if not self._refused(response, call, refusal.sent):
                return response
            refusal.challenges = challenge.read(response)
            read_error(response)
            if not self.auth.renew(refusal):
                return response
            if call.rewind is not None:
                call.rewind()
            elif not (call.body is None or isinstance(call.body, bytes)):
                raise ConnectionLost(
                    f"{call.method} {redacted(response.url)}: the token expired on the way"
                )
            refusal.sent = self._authorization(call)
            response = self._reach(call, refusal.sent)
        return response

    def _refused(self, response: requests.Response, call: Call, sent: str | None) -> bool:
        if not self._is_home(response.url):
            return False  # a storage host's refusal says nothing of the registry's token
        if response.status_code == requests.codes.unauthorized:
            return True
        if response.status_code == requests.codes.forbidden and challenge.wants_more(response):
            return True  # RFC 6750 has 403 for what distribution answers with 401
        # ECR Public answers an expired token with 400, others with 403.
        return response.status_code in (400, 403) and self.auth.is_aged(call.scopes, sent)

    def _authorization(self, call: Call) -> str | None:
        if not self._is_home(self.absolute(call.url)):
            return None
        return self.auth.authorization(call.scopes)

    def _is_home(self, url: str) -> bool:
        return origin(url) == origin(self._base)

    def absolute(self, url: str) -> str:
        """The URL of a path; also of a URL made before the registry turned out to be plain.

        An upload session that another process began has a URL of http, which may come
        before this one knows that the registry is plain.
        """
        if url.startswith("/"):
            return self._base + url
        scheme, _, rest = url.partition("://")
        written = {"http": "https", "https": "http"}.get(self._base.partition("://")[0])
        is_ours = rest == self.host or rest.startswith((f"{self.host}/", f"{self.host}?"))
        if scheme != written or not is_ours:
            return url
        if scheme == "http" and not self._may_be_plain:
            return url
        return f"{self._base}{rest.removeprefix(self.host)}"

    def _reach(self, call: Call, authorization: str | None) -> requests.Response:
        """Send once; over http from now on if that is what the host speaks."""
        tried = self.absolute(call.url)
        try:
            return self._transmit(call, authorization)
        except (TLSFailure, ConnectionLost) as error:
            if not self._falls_back(tried, error):
                raise
            logger.info("%s speaks no TLS; going on over plain http", self._base)
        return self._transmit(call, authorization)

    def _transmit(self, call: Call, authorization: str | None) -> requests.Response:
        headers = dict(call.headers)
        if authorization is not None:
            headers["Authorization"] = authorization
        url = self.absolute(call.url)
        request = requests.Request(call.method, url, headers=headers, data=call.body, **call.extra)
        options = call.options
        if options.home is not None:  # it was said before the registry turned out to be plain
            options = replace(options, home=self.absolute(options.home))
        return self.transport.send(request, options)

    def _falls_back(self, tried: str, error: TLSFailure | ConnectionLost) -> bool:
        with self._lock:  # several threads find it out at once
            if self.absolute(tried) != tried:
                return True  # another one has found it out meanwhile
            if not (self._may_be_plain and tried.startswith("https://") and self._is_home(tried)):
                return False
            if isinstance(error, Unreachable) or getattr(error, "untrusted", False):
                return False
            if isinstance(error, ConnectionLost) and self.transport.has_answered(tried):
                return False
            self._base = "http" + self._base.removeprefix("https")
            self.auth.home = self._base
            return True
