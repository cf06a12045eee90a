"""One request for a token: the ways to ask a token service, and what its answer says."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import requests

from concil.errors import (
    AccessDenied,
    ConcilError,
    ConnectionLost,
    ProtocolViolation,
    RegistryDenied,
)
from concil.redaction import SECRETS
from concil.registry import failures, go_json
from concil.registry.credentials import TOKEN_USER, Credentials
from concil.registry.realms import check_realm, same_origin
from concil.registry.sanitize import clean_response
from concil.registry.session import MAX_REDIRECTS, Options, Transport, discard, read_error
from concil.registry.urls import redacted, resolve

logger = logging.getLogger(__name__)

TOKEN_LIMIT = 64 * 1024  # bytes of a token service's answer that are read
DEFAULT_LIFETIME = 60.0  # seconds; what a token lives if nobody says so
LONGEST_LIFETIME = 24 * 3600.0  # seconds; what is told beyond is not believed
RENEW_AT = 0.8  # of a token's life
CLIENT_ID = "concil"
_BLOCK = 8 * 1024  # bytes
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
# What services without the POST of OAuth answer to it: GCR 404, JFrog 401, others 400 and 405.
_NO_POST = frozenset({400, 401, 404, 405}) | _REDIRECTS
_NO_GET = frozenset({404, 405})
_WITHOUT_REDIRECTS = Options(follow=False)


@dataclass(frozen=True, slots=True)
class Realm:
    """Where a token is had, and for what."""

    url: str  # passed `check_realm`
    service: str
    scopes: tuple[str, ...]
    home: str  # the registry's own URL: redirects are judged by it


@dataclass(frozen=True, slots=True)
class Token:
    """A bearer token and its life, by this machine's steady clock alone."""

    header: str = field(repr=False)
    born: float  # monotonic seconds, before it was asked for
    lifetime: float  # seconds
    refresh: str | None = field(
        default=None, repr=False
    )  # an OAuth 2 refresh token that came along

    @property
    def aged(self) -> bool:
        """Whether it is time for another one."""
        return time.monotonic() - self.born >= self.lifetime * RENEW_AT


def bearer(token: str) -> str | None:
    """The header for a token; None if it holds what no header may."""
    fits = token and token.isascii() and token.isprintable()
    return f"Bearer {token}" if fits else None


def bearer_of_login(token: str) -> str:
    """The header for a bearer token that a login left.

    Raises:
        AccessDenied: it is none.
    """
    header = bearer(token)
    if header is None:
        raise AccessDenied("the registry token of the login is none", remedy="log in again")
    return header


_Key = tuple[str, str, Credentials | None]  # realm, service and user


class TokenService:
    """Asks token services, each in the way it understands. Any thread may call `fetch`."""

    def __init__(self, transport: Transport) -> None:
        """Know nothing of any service yet."""
        self._transport = transport
        self._refresh: dict[_Key, str] = {}
        self._no_post: set[_Key] = set()  # has no use for an identity token
        self._no_get: set[_Key] = set()  # takes a password only in a form
        self._lock = threading.Lock()  # guards all above, never held over I/O

    def fetch(self, realm: Realm, credentials: Credentials | None) -> Token:
        """Get a token.

        A refresh or identity token goes into a form first; a user and a password go by
        GET, and into a form only where GET is not known.

        Raises:
            RegistryDenied: the service refused the credentials, or anonymous users.
            AccessDenied: it answered, but with no token.
            StatusError, ConnectionLost, ProtocolViolation: it is in trouble.
        Source: distribution, "Token Authentication Specification", "OAuth2".
        """
        key = (realm.url, realm.service, credentials)
        for grant in self._grants(key):
            began = time.monotonic()
            form = {"grant_type": "refresh_token", "refresh_token": grant}
            response = self._post(realm, form)
            if response.status_code == requests.codes.ok:
                return self._taken(key, response, began)
            self._put_aside(key, grant, response)
        if key not in self._no_get:
            began = time.monotonic()
            response = self._get(realm, credentials)
            if response.status_code == requests.codes.ok:
                return self._taken(key, response, began)
            content = read_error(response)
            if response.status_code not in _NO_GET or not _has_password(credentials):
                raise _refusal(response, content, credentials)
        began = time.monotonic()
        response = self._post(realm, _password_form(credentials))
        if response.status_code != requests.codes.ok:
            raise _refusal(response, read_error(response), credentials)
        with self._lock:
            self._no_get.add(key)
        return self._taken(key, response, began)

    def _grants(self, key: _Key) -> Iterator[str]:
        """Refresh tokens that are worth a form: the service's own, then that of a login."""
        with self._lock:
            refresh, skipped = self._refresh.get(key), key in self._no_post
        if refresh is not None:
            yield refresh
        identity = key[2].identity_token if key[2] is not None else None
        if identity is not None and identity != refresh and not skipped:
            yield identity

    def _put_aside(self, key: _Key, grant: str, response: requests.Response) -> None:
        """Let the next way be tried after a form was refused, or raise what is final."""
        content = read_error(response)
        identity = key[2].identity_token if key[2] is not None else None
        final = response.status_code not in _NO_POST
        if grant == identity and _oauth_error(content) == "invalid_grant":
            final = True  # it was understood: it has expired, or was taken back
        if final:
            raise _refusal(response, content, key[2])
        logger.debug("%s: no refresh token is taken", redacted(response.url))
        with self._lock:
            if self._refresh.get(key) == grant:
                del self._refresh[key]
            if grant == identity:
                self._no_post.add(key)

    def _taken(self, key: _Key, response: requests.Response, began: float) -> Token:
        what = f"token from {redacted(response.url)}"
        # A service that sends a byte a second would hold everybody up for a day.
        until = time.monotonic() + self._transport.timeouts.idle
        token = read_token(_read(response, until, what), what, began)
        if token.refresh is not None:
            with self._lock:
                self._refresh[key] = token.refresh
        return token

    def _get(self, realm: Realm, credentials: Credentials | None) -> requests.Response:
        """Ask by GET, as a user if there is one; follow to where a realm could be."""
        query: list[tuple[str, str]] = [("service", realm.service)] if realm.service else []
        query += [("scope", scope) for scope in realm.scopes]
        url, authorization = realm.url, _basic(credentials)
        for _ in range(MAX_REDIRECTS + 1):
            request = requests.Request("GET", url, params=query)
            response = self._send(request, authorization)
            location = response.headers.get("Location")
            if response.status_code not in _REDIRECTS or location is None:
                return response
            discard(response)
            target = check_realm(resolve(response.url, location), realm.home)
            if not same_origin(target, url):
                authorization = None  # and it does not come back on the way back
            url, query = target, []
        raise ProtocolViolation(f"token from {redacted(realm.url)}: redirects without end")

    def _post(self, realm: Realm, form: dict[str, str]) -> requests.Response:
        """Ask with a form. It holds a secret, so it is never sent on to another place."""
        fields = {**form, "client_id": CLIENT_ID}
        if realm.service:
            fields["service"] = realm.service
        if realm.scopes:
            fields["scope"] = " ".join(realm.scopes)
        return self._send(requests.Request("POST", realm.url, data=fields), None)

    def _send(self, request: requests.Request, authorization: str | None) -> requests.Response:
        # What the caller set on the session is the registry's: None and the callable keep
        # its Authorization and its `auth` back.
        request.headers = {"Accept": "application/json", "Authorization": authorization}
        request.auth = _unchanged
        return self._transport.send(request, _WITHOUT_REDIRECTS)


def _unchanged(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def _has_password(credentials: Credentials | None) -> bool:
    return credentials is not None and bool(credentials.password)


def _basic(credentials: Credentials | None) -> str | None:
    """Basic, of an identity token where nothing else is to be had: containerd does so."""
    if credentials is None:
        return None
    if credentials.password or credentials.identity_token is None:
        return credentials.basic()
    username = "" if credentials.username == TOKEN_USER else credentials.username
    return Credentials(username, credentials.identity_token).basic()


def _password_form(credentials: Credentials | None) -> dict[str, str]:
    if credentials is None:
        return {}
    return {
        "grant_type": "password",
        "username": credentials.username,
        "password": credentials.password,
    }


def _asker(credentials: Credentials | None) -> str:
    if credentials is None:
        return "asked for a token without user and password"
    if credentials.identity_token is not None and not credentials.password:
        return f"asked for a token with the identity token of {credentials.whose}"
    return f"asked for a token as {credentials.whose}"


def _refusal(
    response: requests.Response, content: bytes, credentials: Credentials | None
) -> ConcilError:
    """The error of a service that gives no token; OAuth says 400 where others say 401."""
    error = failures.status_error(response, content, _asker(credentials))
    code = _oauth_error(content)
    if response.status_code == requests.codes.bad_request and code == "invalid_grant":
        error = RegistryDenied(f"{error}: {code}", response=clean_response(response, content))
    if credentials is not None and isinstance(error, RegistryDenied):
        error.remedy = "check the credentials, or log in again"
    return error


def _oauth_error(content: bytes) -> str:
    """The error code of OAuth 2. Source: RFC 6749, 5.2."""
    try:
        document = go_json.decode(content)
    except (ValueError, RecursionError):
        return ""
    code = document.get("error") if isinstance(document, dict) else None
    return code if code in ("invalid_grant", "invalid_client", "unauthorized_client") else ""


def _read(response: requests.Response, until: float, what: str) -> bytes:
    """Read a small answer before a time is over, and close it."""
    content = b""
    try:
        while piece := response.raw.read1(_BLOCK, decode_content=True):
            content += piece
            if len(content) > TOKEN_LIMIT:
                raise ProtocolViolation(f"{what}: the answer is larger than {TOKEN_LIMIT} bytes")
            if time.monotonic() > until:
                raise ConnectionLost(f"{what}: the answer takes too long")
    except (requests.RequestException, OSError, failures.HTTP_ERRORS) as error:
        raise failures.translate(error, what, answered=True) from error
    finally:
        response.close()
    return content


def read_token(content: bytes, what: str, began: float) -> Token:
    """Read ``token`` or ``access_token``, and how long it lives.

    Args:
        began: monotonic seconds at which it was asked for. ``issued_at`` is not looked
            at: it is the time of another clock.
    Raises:
        AccessDenied: there is no token in it.
    Source: distribution, "Token Authentication Specification"; REGISTRIES.md 3.2.
    """
    read = False
    with contextlib.suppress(ValueError, RecursionError):  # which hold the answer
        document = go_json.decode(content)
        read = True
    if not read:
        raise AccessDenied(
            f"{what}: the answer is not JSON", remedy="something else than a token service answers"
        )
    token = refresh = None
    if isinstance(document, dict):
        token = document.get("token") or document.get("access_token")
        refresh = document.get("refresh_token")
    header = bearer(token) if isinstance(token, str) else None
    usable = isinstance(refresh, str) and bool(refresh)
    SECRETS.register(refresh if usable else None, kind="refresh token")
    if header is None:
        raise AccessDenied(f"{what}: the answer has no token")
    SECRETS.register(token, kind="token")
    lifetime = document.get("expires_in")
    # A comparison with NaN is false, and True is a number to Python.
    numeric = isinstance(lifetime, (int, float)) and not isinstance(lifetime, bool)
    told = min(lifetime, LONGEST_LIFETIME) if numeric and lifetime > 0 else DEFAULT_LIFETIME
    return Token(header, began, float(told), refresh if usable else None)
