"""Sends one request over a session: timeouts, redirects by hand, TLS, proxies, gates."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import requests
import requests.utils

from concil.config import Timeouts
from concil.errors import Cancelled, ConcilError, ConnectionLost, ProtocolViolation, shown
from concil.redaction import SECRETS
from concil.registry import failures, proxies
from concil.registry.connections import check_proxy
from concil.registry.gates import Gates
from concil.registry.sanitize import register_user
from concil.registry.urls import host_of, origin, redacted, resolve
from concil.registry.warning_header import WarningLog

logger = logging.getLogger(__name__)

MAX_REDIRECTS = 8
ERROR_LIMIT = 64 * 1024  # bytes of an error's body that are read
PATIENCE = 300.0  # seconds for all of a small answer: one byte a minute is no silence
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_SECRET_HEADERS = ("Authorization", "Cookie", "Proxy-Authorization")


@dataclass(frozen=True, slots=True)
class Options:
    """What `requests.Session.send` is told for one request, beside the request."""

    read_timeout: float | None = None  # seconds without a byte; None: the idle timeout
    follow: bool = True  # follow redirects
    home: str | None = None  # a URL of whom the secrets belong to; None: of the request itself
    session: bool = False  # the URL is that of an upload session, a secret
    overrides: Mapping[str, Any] = field(default_factory=dict)  # timeout, verify, cert, proxies


class TooLarge(ProtocolViolation):
    """An answer of more bytes than are read of its kind."""


class Transport:
    """A session with the manners every request needs. Any thread may call any method."""

    def __init__(
        self,
        session: requests.Session,
        *,
        timeouts: Timeouts | None = None,
        cancel: threading.Event | None = None,
        gates: Gates | None = None,
        warnings: WarningLog | None = None,
    ) -> None:
        """Use ``session``, which stays its owner's to close."""
        self.session = session
        self.timeouts = timeouts or Timeouts()
        self.cancel = cancel or threading.Event()
        self.gates = gates or Gates()
        self.warnings = warnings or WarningLog()
        self._answered: set[str] = set()  # hosts that have answered at least once
        self._losses: Counter[str] = Counter()  # answers that were lost or 5xx, by host
        self._losses_lock = threading.Lock()
        self._proxies: dict[str, Mapping[str, str]] = {}
        self._seen_proxies: Mapping[str, str] = {}  # of the last request

    def send(self, request: requests.Request, options: Options | None = None) -> requests.Response:
        """Send ``request`` and return its answer, the body unread, whatever the status.

        Redirects are followed for GET and HEAD, and for other methods where the body
        can be sent again; credentials stay with the origin they were made for.

        Raises:
            ConnectionLost, Unreachable, TLSFailure: no answer.
            ProtocolViolation: redirects without end, or to where nobody should go.
        """
        options = options or Options()
        prepared = self._prepared(request)
        home = origin(options.home or prepared.url or "")
        for _ in range(MAX_REDIRECTS + 1):
            at_home = origin(prepared.url or "") == home
            if not at_home:
                for name in _SECRET_HEADERS:
                    prepared.headers.pop(name, None)
            response = self._exchange(prepared, options, at_home=at_home)
            if response.status_code not in _REDIRECTS or not options.follow:
                return response
            location = response.headers.get("Location")
            if location is None or not _repeatable(prepared):
                return response
            discard(response)
            prepared = prepared.copy()
            prepared.url = _followed(response.url, location, options)
            # What was taken away on the way does not come back.
            home = home if at_home else ("", "", 0)
        raise ProtocolViolation(f"{redacted(request.url)}: more than {MAX_REDIRECTS} redirects")

    def has_answered(self, url: str) -> bool:
        """Whether the host of ``url`` has answered anything so far."""
        return host_of(url) in self._answered

    def losses(self, url: str) -> int:
        """How many answers of the host of ``url`` were lost, or were a 5xx, so far.

        A host may have been restarted then, and have lost what it had confirmed.
        """
        return self._losses[host_of(url)]

    def count_loss(self, url: str) -> None:
        """Take note that an answer of the host of ``url`` was lost."""
        with self._losses_lock:
            self._losses[host_of(url)] += 1

    def is_proxied(self, url: str) -> bool:
        """Whether a proxy would be asked for ``url``, which then resolves its name."""
        known = self.session.proxies or self._environment_proxies(url)
        return requests.utils.select_proxy(url, known) is not None

    def _prepared(self, request: requests.Request) -> requests.PreparedRequest:
        try:
            return self.session.prepare_request(request)
        except (requests.RequestException, ValueError) as error:
            what = f"{request.method} {redacted(request.url)}"
            raise failures.translate(error, what, answered=False) from error

    def _exchange(
        self, prepared: requests.PreparedRequest, options: Options, *, at_home: bool
    ) -> requests.Response:
        url = prepared.url or ""
        host = host_of(url)
        settings = {**self._settings(url, options), "stream": True, "allow_redirects": False}
        if not at_home:
            settings["cert"] = None  # nobody else needs to know who asks
        gate = self.gates.of(host)
        if self.cancel.is_set():
            raise Cancelled(f"{prepared.method} {redacted(url)}: cancelled")
        given = gate.enter(self.cancel, pull=prepared.method == "GET" and "/manifests/" in url)
        began, response = time.monotonic(), None
        try:
            response = self.session.send(prepared, **settings)
        except (requests.RequestException, OSError, ValueError, failures.HTTP_ERRORS) as error:
            if host in self._answered:  # else it speaks no TLS, or was never there
                self.count_loss(url)
            what = f"{prepared.method} {redacted(url)}"
            setting = self._proxy_setting(url)
            raise failures.translate(
                error, what, answered=host in self._answered, proxy=setting
            ) from error
        finally:
            gate.leave(given, response, _refusal(response))
        self._answered.add(host)
        if "Warning" in response.headers:
            self.warnings.record(host, response.headers["Warning"])
        if response.status_code >= requests.codes.server_error:
            self.count_loss(url)
        took = (time.monotonic() - began) * 1000
        if logger.isEnabledFor(logging.DEBUG):
            what = f"{prepared.method} {redacted(url)}"
            logger.debug("%s %d %.0f ms", what, response.status_code, took)
        return response

    def _settings(self, url: str, options: Options) -> dict[str, Any]:
        """What the session says of TLS and proxies, or else the environment."""
        session = self.session
        verify = session.verify
        if verify is True or verify is None:
            verify = _environment_ca() or True
        known = session.proxies or self._environment_proxies(url)
        read = options.read_timeout or self.timeouts.idle
        settings: dict[str, Any] = {
            "verify": verify,
            "cert": session.cert,
            "proxies": known,
            "timeout": (self.timeouts.connect, read),
        }
        settings.update({k: v for k, v in options.overrides.items() if v is not None})
        if settings["proxies"] != self._seen_proxies:
            self._seen_proxies = dict(settings["proxies"])
            for proxy in filter(None, self._seen_proxies.values()):
                register_user(str(proxy))
        return settings

    def _proxy_setting(self, url: str) -> str:
        """Where the proxy for a URL is set, for messages."""
        if self.session.proxies:
            return "the proxies of the session"
        proxy = proxies.of_environment(url)
        return "" if proxy is None else proxy.setting

    def _environment_proxies(self, url: str) -> Mapping[str, str]:
        """Look them up once a host: each look-up costs as much as a small request."""
        key = "{}://{}".format(*origin(url))
        found = self._proxies.get(key)
        if found is None:
            proxy = proxies.of_environment(url)
            if proxy is not None:
                check_proxy(proxy)
            found = {} if proxy is None else {origin(url)[0]: proxy.url}
            self._proxies[key] = found
        return found


def _followed(answered: str, location: str, options: Options) -> str:
    """Where a redirect leads to. Its query may be a signature, and a session is one itself."""
    register = SECRETS.register_session if options.session else SECRETS.register_signed
    register(location)  # an error of `resolve` would show it
    target = resolve(answered, location)
    register(target)
    return target


def _refusal(response: requests.Response | None) -> bytes:
    """The body of a 429, which may be for a moment or for hours; nothing of other answers."""
    if response is None or response.status_code != requests.codes.too_many:
        return b""
    return read_error(response)


def _environment_ca() -> str | None:
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        path = os.environ.get(name)
        if path:
            return path
    return None


def _repeatable(prepared: requests.PreparedRequest) -> bool:
    """Whether the body can be sent again as it is: requests replays a stream empty."""
    return prepared.body is None or isinstance(prepared.body, (bytes, str))


def read_limited(response: requests.Response, limit: int, what: str) -> bytes:
    """Read a small body whole, close the response, and let ``.content`` return it later.

    Raises:
        TooLarge: more than ``limit`` bytes.
        ProtocolViolation: in an encoding nobody asked for.
        ConnectionLost: it broke off, or took too long.
    """
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    length = content_length(response)
    if encoding not in ("", "identity"):
        response.close()
        raise ProtocolViolation(f"{what}: the answer is encoded as {shown(encoding, 40)}")
    if length is not None and length > limit:
        response.close()
        raise TooLarge(f"{what}: the answer is larger than {limit} bytes")
    pieces: list[bytes] = []
    left = limit + 1
    until = time.monotonic() + PATIENCE
    try:
        while left > 0:
            # One receive: to wait for a full piece would be to wait for ever.
            piece = response.raw.read1(min(left, 64 * 1024), decode_content=False)
            if not piece:
                break
            pieces.append(piece)
            left -= len(piece)
            if time.monotonic() > until:
                raise ConnectionLost(f"{what}: the answer takes too long")
    except (requests.RequestException, OSError, failures.HTTP_ERRORS) as error:
        response.close()
        raise failures.translate(error, what, answered=True) from error
    content = b"".join(pieces)
    if left <= 0:
        response.close()
        raise TooLarge(f"{what}: the answer is larger than {limit} bytes")
    response.raw = io.BytesIO(content)
    return content


def read_error(response: requests.Response) -> bytes:
    """Read the body of an error as far as it can be had: its status counts, not its text."""
    if isinstance(response.raw, io.BytesIO):
        return response.raw.getvalue()  # it was read before
    content = b""
    length = content_length(response)
    # With a 416 distribution 2.8 announces the whole blob and sends a few bytes.
    if response.status_code != 416 or (length is not None and length <= ERROR_LIMIT):
        with contextlib.suppress(ConcilError):
            content = read_limited(response, ERROR_LIMIT, "an error")
    if not content:
        response.close()
        response.raw = io.BytesIO()
    return content


def content_length(response: requests.Response) -> int | None:
    """Bytes that an answer announces; None if it does not, or nothing that is a number."""
    value = response.headers.get("Content-Length", "")
    # isdigit is true for a superscript, and int() refuses numbers of thousands of digits.
    return int(value) if value.isdecimal() and len(value) < 20 else None


def discard(response: requests.Response) -> None:
    """Be done with an answer: read a short rest so that its connection can be used again."""
    length = content_length(response)
    # The 416 of distribution 2.8 announces more than it sends: never read one.
    if response.status_code != 416 and length is not None and length <= ERROR_LIMIT:
        with contextlib.suppress(ConcilError):
            read_limited(response, ERROR_LIMIT, "an answer that is put aside")
    response.close()
