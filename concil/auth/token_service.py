"""Token service client: GET and OAuth2 POST requests, and their responses."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import field
from functools import partial

import requests

from concil.auth.credentials import go_json
from concil.auth.credentials.credentials import TOKEN_USER, Credentials
from concil.auth.realm_policy import check_realm
from concil.errors import (
    AccessDenied,
    ConcilError,
    ConnectionLost,
    ProtocolViolation,
    RegistryDenied,
)
from concil.http import errors, status_errors
from concil.http.redirects import REDIRECT_STATUSES, resolve_location
from concil.http.sanitize import clean_response
from concil.http.transport import SendOptions, Transport, read_error
from concil.http.urls import redact_url
from concil.http.web_page import describe_web_page, is_web_page
from concil.runtime.dataclass import dataclass
from concil.runtime.redaction import SECRETS

logger = logging.getLogger(__name__)

MAX_RESPONSE_SIZE = 64 * 1024  # bytes
DEFAULT_LIFETIME = 60.0  # seconds, if the response has no expires_in
MAX_LIFETIME = 24 * 3600.0  # seconds; a larger expires_in is reduced to it
REFRESH_FRACTION = 0.8  # of a token's lifetime
CLIENT_ID = "concil"
_BLOCK_SIZE = 8 * 1024  # bytes
# Responses of services without OAuth2 POST: GCR 404, JFrog 401, others 400 and 405.
_POST_UNSUPPORTED = frozenset({400, 401, 404, 405}) | REDIRECT_STATUSES
_GET_UNSUPPORTED = frozenset({404, 405})


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """Realm, service and scopes of a token request."""

    realm: str  # passed `check_realm`
    service: str
    scopes: tuple[str, ...]
    registry_url: str  # the registry's own URL, which redirects are checked against


@dataclass(frozen=True, slots=True)
class Token:
    """A bearer token and its lifetime, measured by the local monotonic clock."""

    header: str = field(repr=False)
    request_time: float  # monotonic seconds, before the request
    lifetime: float  # seconds
    refresh_token: str | None = field(
        default=None, repr=False
    )  # an OAuth 2 refresh token from the same response

    @property
    def needs_refresh(self) -> bool:
        """Whether the token is close to its expiry."""
        return time.monotonic() - self.request_time >= self.lifetime * REFRESH_FRACTION


def bearer_header(token: str) -> str | None:
    """Return the header for a token; None if it has characters that headers must not have."""
    is_valid = token and token.isascii() and token.isprintable()
    return f"Bearer {token}" if is_valid else None


def registry_token_header(token: str) -> str:
    """Return the header for the registry token of a stored login.

    Raises:
        AccessDenied: the token cannot be sent in a header.
    """
    header = bearer_header(token)
    if header is None:
        raise AccessDenied(
            "the registry token of the login is not a valid token", remedy="log in again"
        )
    return header


_Key = tuple[str, str, Credentials | None]  # realm, service and user


class TokenService:
    """Client of token services that remembers what each supports. Thread-safe."""

    def __init__(self, transport: Transport) -> None:
        """Start with nothing known of any service."""
        self._transport = transport
        self._refresh_tokens: dict[_Key, str] = {}
        self._without_post: set[_Key] = set()  # does not accept an identity token
        self._without_get: set[_Key] = set()  # accepts a password only in a POST form
        self._lock = threading.Lock()  # guards all above, never held over I/O

    def fetch_token(self, request: TokenRequest, credentials: Credentials | None) -> Token:
        """Fetch a token.

        A refresh or identity token is tried first, by POST. User and password are sent by GET,
        and by POST only if the service does not support GET.

        Raises:
            RegistryDenied: the service rejected the credentials, or anonymous users.
            AccessDenied: its response contains no token.
            StatusError, ConnectionLost, ProtocolViolation: the service failed.
        Source: distribution, "Token Authentication Specification", "OAuth2".
        """
        key = (request.realm, request.service, credentials)
        for grant in self._refresh_grants(key):
            request_time = time.monotonic()
            form = {"grant_type": "refresh_token", "refresh_token": grant}
            response = self._post(request, form)
            if response.status_code == requests.codes.ok:
                return self._accept_response(key, response, request_time)
            self._reject_grant(key, grant, response)
        if key not in self._without_get:
            request_time = time.monotonic()
            response = self._get(request, credentials)
            if response.status_code == requests.codes.ok:
                return self._accept_response(key, response, request_time)
            content = read_error(response)
            if response.status_code not in _GET_UNSUPPORTED or not _has_password(credentials):
                raise _refusal_error(response, content, credentials)
        request_time = time.monotonic()
        response = self._post(request, _password_form(credentials))
        if response.status_code != requests.codes.ok:
            raise _refusal_error(response, read_error(response), credentials)
        with self._lock:
            self._without_get.add(key)
        return self._accept_response(key, response, request_time)

    def _refresh_grants(self, key: _Key) -> Iterator[str]:
        """Yield refresh tokens to try by POST: the service's own, then the login's."""
        with self._lock:
            refresh, skips_identity = self._refresh_tokens.get(key), key in self._without_post
        if refresh is not None:
            yield refresh
        identity = key[2].identity_token if key[2] is not None else None
        if identity is not None and identity != refresh and not skips_identity:
            yield identity

    def _reject_grant(self, key: _Key, grant: str, response: requests.Response) -> None:
        """Forget a rejected refresh token so that the next grant is tried; raise final errors."""
        content = read_error(response)
        identity = key[2].identity_token if key[2] is not None else None
        is_final = response.status_code not in _POST_UNSUPPORTED
        if grant == identity and _oauth_error(content) == "invalid_grant":
            is_final = True  # the service supports it, but it has expired or was revoked
        if is_final:
            raise _refusal_error(response, content, key[2])
        logger.debug("%s: identity tokens are not accepted", redact_url(response.url))
        with self._lock:
            if self._refresh_tokens.get(key) == grant:
                del self._refresh_tokens[key]
            if grant == identity:
                self._without_post.add(key)

    def _accept_response(
        self, key: _Key, response: requests.Response, request_time: float
    ) -> Token:
        operation = f"token from {redact_url(response.url)}"
        # A service that sends one byte per second would block all threads for hours.
        deadline = time.monotonic() + self._transport.timeouts.idle
        token = parse_token(_read_response(response, deadline, operation), operation, request_time)
        if token.refresh_token is not None:
            with self._lock:
                self._refresh_tokens[key] = token.refresh_token
        return token

    def _get(
        self, token_request: TokenRequest, credentials: Credentials | None
    ) -> requests.Response:
        """Request a token by GET, following redirects to allowed realms."""
        query: list[tuple[str, str]] = (
            [("service", token_request.service)] if token_request.service else []
        )
        query += [("scope", scope) for scope in token_request.scopes]
        request = requests.Request("GET", token_request.realm, params=query)
        resolve_redirect = partial(_resolve_redirect, token_request.registry_url)
        options = SendOptions(resolve_redirect=resolve_redirect)
        return self._send(request, _basic_header(credentials), options)

    def _post(self, token_request: TokenRequest, form: dict[str, str]) -> requests.Response:
        """Request a token by POST. The form holds a secret, so redirects are not followed."""
        fields = {**form, "client_id": CLIENT_ID}
        if token_request.service:
            fields["service"] = token_request.service
        if token_request.scopes:
            fields["scope"] = " ".join(token_request.scopes)
        request = requests.Request("POST", token_request.realm, data=fields)
        return self._send(request, None, SendOptions(allow_redirects=False))

    def _send(
        self, request: requests.Request, authorization: str | None, options: SendOptions
    ) -> requests.Response:
        # The session's Authorization and `auth` are for the registry; None and a callable
        # keep them from being sent to the token service.
        request.headers = {"Accept": "application/json", "Authorization": authorization}
        request.auth = _iter_unchanged
        return self._transport.send(request, options)


def _resolve_redirect(registry_url: str, response_url: str, location: str) -> str:
    return check_realm(resolve_location(response_url, location), registry_url)


def _iter_unchanged(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def _has_password(credentials: Credentials | None) -> bool:
    return credentials is not None and bool(credentials.password)


def _basic_header(credentials: Credentials | None) -> str | None:
    """Return the Basic header, with an identity token as password if need be, as containerd."""
    if credentials is None:
        return None
    if credentials.password or credentials.identity_token is None:
        return credentials.basic_header()
    username = "" if credentials.username == TOKEN_USER else credentials.username
    return Credentials(username, credentials.identity_token).basic_header()


def _password_form(credentials: Credentials | None) -> dict[str, str]:
    if credentials is None:
        return {}
    return {
        "grant_type": "password",
        "username": credentials.username,
        "password": credentials.password,
    }


def _describe_request(url: str, credentials: Credentials | None) -> str:
    action = f"cannot get a token from {redact_url(url)}"
    if credentials is None:
        return f"{action} without credentials"
    if credentials.identity_token is not None and not credentials.password:
        return f"{action} with the identity token of {credentials.description}"
    return f"{action} as {credentials.description}"


def _refusal_error(
    response: requests.Response, content: bytes, credentials: Credentials | None
) -> ConcilError:
    """Return the error for a refused token request; OAuth2 uses 400 where others use 401."""
    operation = _describe_request(response.url, credentials)
    error = status_errors.create_status_error(response, content, operation)
    code = _oauth_error(content)
    if response.status_code == requests.codes.bad_request and code == "invalid_grant":
        denied = RegistryDenied(f"{error}: {code}", response=clean_response(response, content))
        denied.host, denied.operation = error.host, operation
        denied.reason = f"{error.reason}: {code}" if code not in error.reason else error.reason
        error = denied
    if isinstance(error, RegistryDenied):
        error.remedy = "give credentials, log in, or request access"
        if credentials is not None:
            error.remedy = "check the credentials, or log in again"
    return error


def _oauth_error(content: bytes) -> str:
    """Return a known OAuth 2 error code, or "". Source: RFC 6749, 5.2."""
    try:
        document = go_json.decode(content)
    except ValueError:
        return ""
    code = document.get("error") if isinstance(document, dict) else None
    return code if code in ("invalid_grant", "invalid_client", "unauthorized_client") else ""


def _read_response(response: requests.Response, deadline: float, operation: str) -> bytes:
    """Read a small response until a deadline in monotonic seconds, and close it."""
    content = b""
    try:
        while piece := response.raw.read1(_BLOCK_SIZE, decode_content=True):
            content += piece
            if len(content) > MAX_RESPONSE_SIZE:
                raise ProtocolViolation(
                    f"{operation}: the response is larger than {MAX_RESPONSE_SIZE} bytes"
                )
            if time.monotonic() > deadline:
                raise ConnectionLost(f"{operation}: the response takes too long")
    except (requests.RequestException, OSError, errors.URLLIB3_ERRORS) as error:
        raise errors.translate(error, operation, has_answered=True) from error
    finally:
        response.close()
    return content


def parse_token(content: bytes, operation: str, request_time: float) -> Token:
    """Parse ``token`` or ``access_token`` and its lifetime.

    Args:
        request_time: monotonic seconds, before the request. ``issued_at`` is ignored because
            the service's clock may differ.
    Raises:
        AccessDenied: the response contains no token.
    Source: distribution, "Token Authentication Specification"; REGISTRIES.md 3.2.
    """
    is_json = False
    with contextlib.suppress(ValueError):  # their messages may quote the response
        document = go_json.decode(content)
        is_json = True
    if not is_json:
        raise AccessDenied(
            f"{operation}: "
            + (
                describe_web_page(content)
                if is_web_page("", content)
                else "the response is not JSON"
            ),
            remedy="the responding server is not a token service",
        )
    token = refresh = None
    if isinstance(document, dict):
        token = document.get("token") or document.get("access_token")
        refresh = document.get("refresh_token")
    header = bearer_header(token) if isinstance(token, str) else None
    has_refresh = isinstance(refresh, str) and bool(refresh)
    SECRETS.register(refresh if has_refresh else None, kind="refresh token")
    if header is None:
        raise AccessDenied(f"{operation}: the response contains no token")
    SECRETS.register(token, kind="token")
    lifetime = document.get("expires_in")
    # Comparisons with NaN are false, and True is an int.
    is_number = isinstance(lifetime, (int, float)) and not isinstance(lifetime, bool)
    seconds = min(lifetime, MAX_LIFETIME) if is_number and lifetime > 0 else DEFAULT_LIFETIME
    return Token(header, request_time, float(seconds), refresh if has_refresh else None)
