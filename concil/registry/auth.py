"""Authorization headers for one registry: tokens fetched once for all threads, or Basic."""

from __future__ import annotations

import contextlib
import logging
import threading
import time

import requests

from concil import retry
from concil.errors import (
    AccessDenied,
    ConcilError,
    ConnectionLost,
    ProtocolViolation,
    RegistryDenied,
    StatusError,
)
from concil.registry import asking
from concil.registry.challenge import Challenge
from concil.registry.credentials import Credentials, Login
from concil.registry.held import Held, Known, Refusal
from concil.registry.identity import Identity
from concil.registry.realms import check_realm
from concil.registry.root import password_refusal, root_challenges
from concil.registry.scopes import Scopes, joined, merged, pushing
from concil.registry.session import Transport
from concil.registry.tokens import Realm, TokenService, bearer_of_login
from concil.registry.urls import host_of

logger = logging.getLogger(__name__)


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
        self._transport = transport
        self.home = home
        self._identity = Identity(login or Login())
        self._service = TokenService(transport)
        self._basic = False  # the registry wants Basic on every request
        self._root: list[Challenge] | None = None  # what GET /v2/ is answered
        self._wants_a_password = False  # where there is none
        self._known: dict[Scopes, Known] = {}
        self._guard = threading.Lock()  # for the dictionary, never held over I/O
        self._trouble: tuple[float, ConcilError] | None = None  # of the token service, and when

    @property
    def credentials(self) -> Credentials | None:
        """Whose requests they are; setting it makes them another's from here on."""
        return self._identity.current

    @credentials.setter
    def credentials(self, credentials: Credentials | None) -> None:
        self._identity.give(credentials)

    @property
    def accepted(self) -> bool:
        """Whether the registry, or its token service, has accepted the credentials."""
        credentials = self._identity.current
        return credentials is not None and self._identity.is_proven(credentials)

    def authorization(self, scopes: Scopes) -> str | None:
        """The header for a request with these scopes, renewed if it has aged; None if unknown yet.

        Raises:
            RegistryDenied: the credentials were refused, be it for another request.
            StatusError, ConnectionLost: the token service is in trouble.
            AccessDenied, ProtocolViolation: its answer is no token.
        """
        self._identity.check(scopes)
        credentials = self._identity.current
        if credentials is not None and credentials.registry_token is not None:
            return bearer_of_login(credentials.registry_token)
        if self._basic and credentials is not None:
            return credentials.basic()
        known = self._of(scopes)
        known.used = time.monotonic()
        if known.held is not None and not self._is_good(known.held):
            found = self._from_pushing(scopes)
            if found is not None:
                return found
        return self._fresh(known, scopes)

    def _fresh(self, known: Known, scopes: Scopes) -> str | None:
        """The header for these scopes, renewed if it has aged; None if unknown yet."""
        held = known.held
        if held is None or self._is_good(held):
            return held.token.header if held else None
        since = time.monotonic()
        with known.lock:
            if known.held is held:  # else another thread has fetched one meanwhile
                self._fetch(known, scopes, since)
            return known.held.token.header if known.held else None

    def _is_good(self, held: Held) -> bool:
        return held.owner == self._identity.current and not held.token.aged

    def _from_pushing(self, scopes: Scopes) -> str | None:
        """The header of a token that pushes, too, while there are pushes: one is renewed, not two.

        What the registry makes of it is the same; if it makes nothing of it, or there is none
        to be had any more, the token for these scopes alone is renewed.
        """
        wider = pushing(scopes)
        known = self._of(wider) if wider else Known()
        held = known.held
        if held is None or held.owner != self._identity.current:
            return None
        if time.monotonic() - known.used > held.token.lifetime:
            return None
        with contextlib.suppress(RegistryDenied):
            self._identity.check(wider)
            return self._fresh(known, wider)
        return None

    def is_shut(self) -> bool:
        """Whether nothing at all can be had of the registry, as it has shown already.

        Its credentials were refused; or there are none, and not even GET /v2/ goes without a
        password. A token service may let nobody see one repository, and the next.
        """
        if self._identity.current is not None or not self._wants_a_password:
            return self._identity.is_refused
        if self._root is None:
            try:
                self._root = root_challenges(self._transport, self.home)
            except (StatusError, ConnectionLost):
                return False
        return bool(self._root) and all(one.scheme == "basic" for one in self._root)

    def is_aged(self, scopes: Scopes, sent: str | None) -> bool:
        """Whether a refusal may only mean that what was sent with the request has expired."""
        if sent is None:
            return False
        held = self._of(scopes).held
        if held is not None and sent.startswith("Bearer "):
            return held.token.header != sent or held.token.aged
        return self._identity.may_have_expired()

    def renew(self, refusal: Refusal) -> bool:
        """Answer a refusal.

        Returns:
            Whether `authorization` now gives something worth sending.
        Raises:
            RegistryDenied: the credentials were refused.
            ProtocolViolation: the challenge leads to where no credentials may go.
            StatusError, ConnectionLost, AccessDenied: there is no token to be had.
        """
        self._identity.search()
        self._identity.check(refusal.scopes)
        known = self._of(refusal.scopes)
        refusal.since = time.monotonic()
        with known.lock:
            if self._has_other(known, refusal):
                refusal.renewed = True
                return True
            credentials = self._identity.current
            if credentials is not None and credentials.registry_token is not None:
                return self._answer_with_token(credentials, refusal)
            offered = self._offered(known, refusal)
            if "bearer" in offered or known.realm is not None:
                return self._renew_token(known, offered.get("bearer"), refusal)
            return ("basic" in offered or self._basic) and self._begin_basic(refusal)

    def _has_other(self, known: Known, refusal: Refusal) -> bool:
        """Whether another thread has got a newer token while this request was under way."""
        held = known.held
        if refusal.renewed or held is None or not self._is_good(held):
            return False
        return held.token.header != refusal.sent

    def _offered(self, known: Known, refusal: Refusal) -> dict[str, Challenge]:
        """The challenges by scheme, of several the first; gcr.io has one at /v2/ only."""
        challenges = refusal.challenges
        if not challenges and known.realm is None and not self._basic:
            if self._root is None:
                self._root = root_challenges(self._transport, self.home)
            challenges = self._root
        return {c.scheme: c for c in reversed(challenges)}

    # Tokens ------------------------------------------------------------------------

    def _answer_with_token(self, credentials: Credentials, refusal: Refusal) -> bool:
        """A login left a bearer token: nothing can be fetched, but a login may have another."""
        if refusal.sent != bearer_of_login(credentials.registry_token or ""):
            return True
        if refusal.renewed:
            return False
        refusal.renewed = True
        return self._identity.replaced(credentials)

    def _renew_token(self, known: Known, offered: Challenge | None, refusal: Refusal) -> bool:
        # Harbor offers only Basic to a request that had a token: the realm stays.
        if offered is not None and (known.realm is None or not refusal.wants_more):
            known.realm = self._realm(known, offered, refusal.scopes)
        aged = known.held is not None and known.held.token.aged
        if refusal.wants_more and not aged and not self._is_anothers(known):
            # A new token for the same scopes would hold no more than this one.
            refusal.renewed = True
            if not refusal.widened and offered is not None and self._widen(known, offered, refusal):
                refusal.widened = True
                return True
        if not refusal.renewed:
            refusal.renewed = True
            try:
                self._fetch(known, refusal.scopes, refusal.since)
                return True
            except RegistryDenied:
                # GHCR answers 401 here for what an anonymous user may not see.
                if self._identity.current is not None or not self._identity.prompt():
                    raise
        elif self._identity.current is not None or not self._identity.prompt():
            return False
        self._fetch(known, refusal.scopes, refusal.since)
        return True

    def _is_anothers(self, known: Known) -> bool:
        return known.held is not None and known.held.owner != self._identity.current

    def _realm(self, known: Known, offered: Challenge, scopes: Scopes) -> Realm:
        realm = offered.get("realm")
        if not realm:
            raise ProtocolViolation(f"{host_of(self.home)} offers a token but names no realm")
        asked = known.wider or joined(scopes, offered.get("scope"))
        return Realm(check_realm(realm, self.home), offered.get("service"), asked, self.home)

    def _widen(self, known: Known, offered: Challenge, refusal: Refusal) -> bool:
        """Ask once more, for what the challenge names beyond what was asked for.

        GitLab and Harbor want ``*`` where the specification says ``delete``.
        """
        wider = merged(refusal.scopes, offered.get("scope"))
        held, realm = known.held, known.realm
        if held is None or realm is None or known.narrow or set(wider) <= set(held.scopes):
            return False
        realm = Realm(realm.url, realm.service, wider, realm.home)
        try:
            token = self._service.fetch(realm, held.owner)
        except (StatusError, AccessDenied) as error:
            if retry.is_transient(error):
                raise
            # What is refused is the more: the user may well be who they say.
            logger.debug("%s gives no wider token: %s", host_of(realm.url), error)
            return False
        known.held, known.realm, known.wider = Held(token, held.owner, wider), realm, wider
        return True

    def _fetch(self, known: Known, scopes: Scopes, since: float) -> None:
        """Get a token. The caller holds the lock of ``known``.

        Args:
            since: monotonic seconds. The trouble of somebody who was waited for from then
                on is the caller's too: sixteen threads do not wait for a service that
                hangs one after the other.
        """
        while True:
            with self._identity.trial(scopes) as credentials:
                if self._trouble is not None and self._trouble[0] > since:
                    raise self._trouble[1].with_traceback(None)
                try:
                    token = asking.ask(self._service, self._identity, known, credentials)
                except RegistryDenied as error:
                    if credentials is None:
                        raise
                    proven = self._identity.is_proven(credentials)
                    forbidden = proven and error.status == requests.codes.forbidden
                    looked = not forbidden or self._identity.may_have_expired()
                    if not looked or not self._identity.replaced(credentials):
                        wrong = asking.is_wrong(
                            self._service, self._identity, known, credentials, error
                        )
                        self._deny(credentials, error, None if wrong else scopes)
                        raise
                    continue
                except (StatusError, ConnectionLost) as error:
                    self._trouble = (time.monotonic(), error)
                    raise
                self._identity.prove(credentials)
            known.held = Held(token, credentials, known.realm.scopes if known.realm else ())
            return

    # Basic -------------------------------------------------------------------------

    def _begin_basic(self, refusal: Refusal) -> bool:
        """Send user and password along from here on, unless the registry has refused them."""
        if refusal.renewed or not self._identity.prompt():
            self._wants_a_password = True
            return False
        refusal.renewed = True
        while True:
            with self._identity.trial(refusal.scopes) as credentials:
                if credentials is None or not (credentials.password or credentials.username):
                    return False  # an identity token is nothing to a registry without tokens
                error = self._refused_basic(credentials, refusal)
                if error is None:
                    self._identity.prove(credentials)
                    self._basic = True
                    return refusal.sent != credentials.basic()
                if not self._identity.replaced(credentials):
                    self._deny(credentials, error, None)
                    raise error

    def _refused_basic(self, credentials: Credentials, refusal: Refusal) -> RegistryDenied | None:
        worked = self._identity.is_proven(credentials)
        if worked and refusal.sent != credentials.basic():
            return None
        return password_refusal(self._transport, self.home, credentials, worked=worked)

    def _deny(self, credentials: Credentials, error: RegistryDenied, scopes: Scopes | None) -> None:
        if scopes is None:
            error.everywhere = host_of(self.home)
        self._identity.deny(credentials, error, scopes)

    def _of(self, scopes: Scopes) -> Known:
        with self._guard:
            return self._known.setdefault(scopes, Known())
