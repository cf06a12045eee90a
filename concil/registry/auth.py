"""Tokens for one registry: fetched once for all threads, renewed before they expire."""

from __future__ import annotations

import ipaddress
import json
import logging
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass

import requests

from concil.errors import AccessDenied, ProtocolViolation, RegistryDenied
from concil.reference import is_loopback
from concil.registry import failures
from concil.registry.challenge import Challenge
from concil.registry.credentials import Login
from concil.registry.session import Transport, read_error, read_limited
from concil.registry.urls import host_of, join, origin, redacted

logger = logging.getLogger(__name__)

TOKEN_LIMIT = 64 * 1024  # bytes of a token endpoint's answer that are read
LEAST_LIFETIME = 60.0  # seconds; what a token lives if nobody says so
RENEW_AT = 0.8  # of a token's life
Scopes = tuple[str, ...]


def repository_scope(name: str, *actions: str) -> str:
    """Return ``repository:<name>:<actions>``. Source: distribution, token scope documentation."""
    return f"repository:{name}:{','.join(actions)}"


@dataclass(frozen=True, slots=True)
class _Realm:
    """Where a token for some scopes is had."""

    url: str
    service: str
    scopes: Scopes


@dataclass(frozen=True, slots=True)
class _Token:
    header: str
    born: float  # monotonic seconds
    lifetime: float  # seconds

    @property
    def aged(self) -> bool:
        return time.monotonic() - self.born >= self.lifetime * RENEW_AT


class Authenticator:
    """Makes Authorization headers for one registry. Any thread may call any method.

    A token is fetched under a lock of its scopes: other threads that need the same one
    wait for it instead of fetching their own.
    """

    def __init__(self, transport: Transport, home: str, login: Login | None = None) -> None:
        """Use the credentials of ``login``; without, be anonymous.

        Args:
            home: the registry's own URL; realms are judged by it.
        """
        login = login or Login()
        self._transport = transport
        self.home = home
        self.credentials = login.given
        self._ask = login.ask
        self._stored = login.stored
        self._searching = threading.Lock()  # for _stored: a helper is a program, and is run once
        self._basic = False  # the registry wants Basic on every request
        self._realms: dict[Scopes, _Realm] = {}
        self._tokens: dict[Scopes, _Token] = {}
        self._locks: dict[Scopes, threading.Lock] = {}
        self._guard = threading.Lock()  # for the dictionaries above, never held over I/O

    def authorization(self, scopes: Scopes) -> str | None:
        """The header for a request with these scopes, renewed if it has aged; None if unknown yet.

        Raises:
            RegistryDenied, StatusError, ConnectionLost: the token service refused or is gone.
        """
        if self._basic and self.credentials is not None:
            return self.credentials.basic()
        token = self._tokens.get(scopes)
        if token is None or not token.aged:
            return token.header if token else None
        with self._lock(scopes):
            token = self._tokens[scopes]
            if token.aged:
                token = self._fetch(self._realms[scopes], scopes)
            return token.header

    def is_aged(self, scopes: Scopes, sent: str | None) -> bool:
        """Whether a refusal may only mean that the token sent with the request has expired."""
        token = self._tokens.get(scopes)
        return token is not None and token.header == sent and token.aged

    def renew(
        self, challenges: Iterable[Challenge], scopes: Scopes, sent: str | None, *, last: bool
    ) -> bool:
        """Answer a refusal of the header ``sent``.

        Args:
            last: a fresh header was refused too: only new credentials can help.
        Returns:
            Whether `authorization` now gives something worth sending.
        """
        self._search()
        with self._lock(scopes):
            offered = {c.scheme: c for c in reversed(list(challenges))}
            if not last and self._has_other(scopes, sent):
                return True
            bearer = self._realm(offered.get("bearer"), scopes)
            if bearer is not None:
                return self._renew_token(bearer, scopes, last=last)
            return "basic" in offered and self._begin_basic(sent)

    def _search(self) -> None:
        """Look once for what a login left, if nobody gave credentials."""
        with self._searching:
            stored, self._stored = self._stored, None
            if stored is not None and self.credentials is None:
                self.credentials = stored()

    def _has_other(self, scopes: Scopes, sent: str | None) -> bool:
        """Whether another thread has got a newer token while this request was under way."""
        token = self._tokens.get(scopes)
        return token is not None and token.header != sent and not token.aged

    def _realm(self, challenge: Challenge | None, scopes: Scopes) -> _Realm | None:
        """Where to get a token; Harbor offers only Basic to a request that had a token."""
        if challenge is None:
            return self._realms.get(scopes)
        url = join(self.home, challenge.get("realm"))
        if not challenge.get("realm"):
            raise ProtocolViolation(f"{host_of(self.home)} offers a token but names no realm")
        self._check_realm(url)
        realm = _Realm(url, challenge.get("service"), _joined(scopes, challenge.get("scope")))
        with self._guard:
            self._realms[scopes] = realm
        return realm

    def _check_realm(self, url: str) -> None:
        """Refuse a realm that would carry credentials to where they must not go.

        Source: REGISTRIES.md 3.3.
        """
        there, here = origin(url), origin(self.home)
        if there[0] == "http" and here[0] == "https":
            raise ProtocolViolation(
                f"{here[1]} sends its users to a token service without TLS: {redacted(url)}",
                remedy="the registry's configuration is wrong, or somebody sits in between",
            )
        if there[1] != here[1] and _is_local(there[1]) and not _is_local(here[1]):
            raise ProtocolViolation(
                f"{here[1]} names a token service inside this network: {redacted(url)}"
            )

    def _renew_token(self, realm: _Realm, scopes: Scopes, *, last: bool) -> bool:
        if not last:
            try:
                self._fetch(realm, scopes)
                return True
            except RegistryDenied:
                # GHCR answers 401 here for what an anonymous user may not see.
                if self.credentials is not None or self._ask is None:
                    raise
        if self.credentials is not None or not self._prompt():
            return False
        self._fetch(realm, scopes)
        return True

    def _begin_basic(self, sent: str | None) -> bool:
        if self.credentials is None and not self._prompt():
            return False
        assert self.credentials is not None  # noqa: S101 - for the type checker
        if sent == self.credentials.basic():
            return False
        self._basic = True
        return True

    def _prompt(self) -> bool:
        if self._ask is None:
            return False
        self.credentials = self._ask()
        return self.credentials is not None

    def _fetch(self, realm: _Realm, scopes: Scopes) -> _Token:
        """Get a token by GET, as a user if there is one. The caller holds the lock."""
        query: list[tuple[str, str]] = [("service", realm.service)] if realm.service else []
        query += [("scope", scope) for scope in realm.scopes]
        # None keeps back what the caller set on the session: it is the registry's.
        basic = self.credentials.basic() if self.credentials is not None else None
        headers = {"Accept": "application/json", "Authorization": basic}
        what = f"token from {redacted(realm.url)}"
        request = requests.Request("GET", realm.url, params=query, headers=headers)
        response = self._transport.send(request)
        if response.status_code != requests.codes.ok:
            raise failures.status_error(response, read_error(response), self._refusal())
        token = _read_token(read_limited(response, TOKEN_LIMIT, what), what)
        with self._guard:
            self._tokens[scopes] = token
        return token

    def _refusal(self) -> str:
        if self.credentials is None:
            return "asked for a token without user and password"
        return f"asked for a token as user {self.credentials.username!r}"

    def _lock(self, scopes: Scopes) -> threading.Lock:
        with self._guard:
            return self._locks.setdefault(scopes, threading.Lock())


def _read_token(content: bytes, what: str) -> _Token:
    """Read ``token`` or ``access_token``, and how long it lives.

    Source: distribution, token authentication specification; REGISTRIES.md 3.2.
    """
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ProtocolViolation(f"{what}: the answer is not JSON") from error
    token = None
    if isinstance(document, dict):
        token = document.get("token") or document.get("access_token")
    if not isinstance(token, str) or not token.isascii() or not token.isprintable():
        raise AccessDenied(f"{what}: the answer has no token")
    lifetime = document.get("expires_in")
    if not isinstance(lifetime, (int, float)) or isinstance(lifetime, bool) or lifetime <= 0:
        lifetime = LEAST_LIFETIME
    return _Token(f"Bearer {token}", time.monotonic(), float(lifetime))


def _joined(scopes: Scopes, offered: str) -> Scopes:
    """Our scopes, after those of the challenge that name something else.

    A notary server calls the repository by another name than the registry does; a scope
    for the same thing adds nothing, and Quay refuses some of what others offer.
    """
    ours = {scope.rpartition(":")[0] for scope in scopes}
    theirs = [s for s in offered.split() if s.rpartition(":")[0] not in ours]
    return (*theirs, *scopes) if theirs and not scopes else (*scopes, *theirs)


def _is_local(host: str) -> bool:
    if is_loopback(f"[{host}]" if ":" in host else host):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_private or address.is_link_local or address.is_unspecified
