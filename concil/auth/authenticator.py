"""Provides Authorization headers for one registry; threads share one token fetch per scope."""

from __future__ import annotations

import contextlib
import logging
import time

import requests

from concil.auth import token_request
from concil.auth.challenge import Challenge
from concil.auth.credential_chain import CredentialChain
from concil.auth.credentials.credentials import CredentialProviders, Credentials
from concil.auth.ping import check_password, ping_challenges
from concil.auth.realm_policy import check_realm
from concil.auth.scope import Scopes, join_scopes, push_scopes
from concil.auth.shared_attempts import SharedAttempts
from concil.auth.token_cache import AuthAttempt, CachedToken, TokenCache, TokenSlot
from concil.auth.token_service import TokenRequest, TokenService, registry_token_header
from concil.errors import (
    ConcilError,
    ConnectionLost,
    ProtocolViolation,
    RegistryDenied,
    StatusError,
)
from concil.http.transport import Transport
from concil.http.urls import host_of

logger = logging.getLogger(__name__)


class Authenticator:
    """Provides Authorization headers for one registry. Any thread may call any method.

    A token is fetched under the lock of its scopes: other threads that need the same token
    wait for it instead of fetching their own.
    """

    def __init__(
        self,
        transport: Transport,
        registry_url: str,
        providers: CredentialProviders | None = None,
        attempts: SharedAttempts | None = None,
    ) -> None:
        """Use the credentials of ``providers``; anonymous access if None.

        Args:
            registry_url: the registry's own URL, which token realms are checked against.
            attempts: those of other processes of the run; None if there are none.
        """
        self._transport = transport
        self.registry_url = registry_url
        self._credential_chain = CredentialChain(providers or CredentialProviders(), attempts)
        self._token_service = TokenService(transport)
        self._uses_basic = False  # send Basic with every request
        self._ping_challenges: list[Challenge] | None = None  # from GET /v2/
        self._requires_password = False  # and no credentials were available
        self._token_cache = TokenCache()
        self._service_error: tuple[float, ConcilError] | None = (
            None  # last failure of the token service and its monotonic time
        )

    @property
    def credentials(self) -> Credentials | None:
        """The credentials in use; setting them applies to later requests."""
        return self._credential_chain.current

    @credentials.setter
    def credentials(self, credentials: Credentials | None) -> None:
        self._credential_chain.set_credentials(credentials)

    @property
    def has_accepted_credentials(self) -> bool:
        """Whether the registry or its token service has accepted the credentials."""
        credentials = self._credential_chain.current
        return credentials is not None and self._credential_chain.is_valid(credentials)

    def authorization(self, scopes: Scopes) -> str | None:
        """Return the header for a request with these scopes, refreshed if needed; None if unknown.

        Raises:
            RegistryDenied: the credentials were rejected, possibly for another request.
            StatusError, ConnectionLost: the token service failed.
            AccessDenied, ProtocolViolation: its response contains no token.
        """
        self._credential_chain.raise_if_rejected(scopes)
        credentials = self._credential_chain.current
        if credentials is not None and credentials.registry_token is not None:
            return registry_token_header(credentials.registry_token)
        if self._uses_basic and credentials is not None:
            return credentials.basic_header()
        slot = self._token_cache.slot_for(scopes)
        slot.last_used = time.monotonic()
        if slot.cached_token is not None and not self._is_valid(slot.cached_token):
            header = self._get_push_header(scopes)
            if header is not None:
                return header
        return self._get_header(slot, scopes)

    def _get_header(self, slot: TokenSlot, scopes: Scopes) -> str | None:
        """Return the slot's header, refreshed if needed; None if there is no token yet."""
        cached_token = slot.cached_token
        if cached_token is None or self._is_valid(cached_token):
            return cached_token.token.header if cached_token else None
        start_time = time.monotonic()
        with slot.lock:
            if slot.cached_token is cached_token:  # otherwise another thread has refreshed it
                self._fetch_token(slot, scopes, start_time)
            return slot.cached_token.token.header if slot.cached_token else None

    def _is_valid(self, cached_token: CachedToken) -> bool:
        return (
            cached_token.credentials == self._credential_chain.current
            and not cached_token.token.needs_refresh
        )

    def _get_push_header(self, scopes: Scopes) -> str | None:
        """Return the header of a push token for these pull scopes, if one is in use.

        During pushes only one token needs refreshing then, because a push token can pull as well.
        Return None if there is none or it was rejected; the pull token is then refreshed.
        """
        wider = push_scopes(scopes)
        slot = self._token_cache.slot_for(wider) if wider else TokenSlot()
        cached_token = slot.cached_token
        if cached_token is None or cached_token.credentials != self._credential_chain.current:
            return None
        if time.monotonic() - slot.last_used > cached_token.token.lifetime:
            return None
        with contextlib.suppress(RegistryDenied):
            self._credential_chain.raise_if_rejected(wider)
            return self._get_header(slot, wider)
        return None

    def is_access_denied(self) -> bool:
        """Return whether the registry is known to deny every request.

        Either the credentials were rejected, or there are none and GET /v2/ itself requires a
        password. With a token service access is decided per repository, so it does not count.
        """
        if self._credential_chain.current is not None or not self._requires_password:
            return self._credential_chain.is_rejected
        if self._ping_challenges is None:
            try:
                self._ping_challenges = ping_challenges(self._transport, self.registry_url)
            except (StatusError, ConnectionLost):
                return False
        return bool(self._ping_challenges) and all(
            challenge.scheme == "basic" for challenge in self._ping_challenges
        )

    def is_expired(self, scopes: Scopes, sent_header: str | None) -> bool:
        """Return whether a rejection may only mean that the header sent has expired."""
        if sent_header is None:
            return False
        cached_token = self._token_cache.slot_for(scopes).cached_token
        if cached_token is not None and sent_header.startswith("Bearer "):
            return cached_token.token.header != sent_header or cached_token.token.needs_refresh
        return self._credential_chain.can_be_expired()

    def refresh(self, attempt: AuthAttempt) -> bool:
        """Handle a 401: fetch a token, switch to Basic, or look up other credentials.

        Returns:
            Whether to repeat the request with the new header of `authorization`.
        Raises:
            RegistryDenied: the credentials were rejected.
            ProtocolViolation: the challenge names a realm that must not receive credentials.
            StatusError, ConnectionLost, AccessDenied: no token could be fetched.
        """
        self._credential_chain.lookup()
        self._credential_chain.raise_if_rejected(attempt.scopes)
        slot = self._token_cache.slot_for(attempt.scopes)
        attempt.start_time = time.monotonic()
        with slot.lock:
            if self._has_newer_token(slot, attempt):
                attempt.is_refreshed = True
                return True
            credentials = self._credential_chain.current
            if credentials is not None and credentials.registry_token is not None:
                return self._use_registry_token(credentials, attempt)
            challenges = self._challenges_by_scheme(slot, attempt)
            if "bearer" in challenges or slot.token_request is not None:
                return self._refresh_token(slot, challenges.get("bearer"), attempt)
            return ("basic" in challenges or self._uses_basic) and self._switch_to_basic(attempt)

    def _has_newer_token(self, slot: TokenSlot, attempt: AuthAttempt) -> bool:
        """Return whether another thread fetched a newer token since the request was sent."""
        cached_token = slot.cached_token
        if attempt.is_refreshed or cached_token is None or not self._is_valid(cached_token):
            return False
        return cached_token.token.header != attempt.sent_header

    def _challenges_by_scheme(self, slot: TokenSlot, attempt: AuthAttempt) -> dict[str, Challenge]:
        """Return the first challenge per scheme; gcr.io sends one for GET /v2/ only."""
        challenges = attempt.challenges
        if not challenges and slot.token_request is None and not self._uses_basic:
            if self._ping_challenges is None:
                self._ping_challenges = ping_challenges(self._transport, self.registry_url)
            challenges = self._ping_challenges
        return {c.scheme: c for c in reversed(challenges)}

    # Tokens ------------------------------------------------------------------------

    def _use_registry_token(self, credentials: Credentials, attempt: AuthAttempt) -> bool:
        """Use a stored registry token; it cannot be refreshed, but a new login may replace it."""
        if attempt.sent_header != registry_token_header(credentials.registry_token or ""):
            return True
        if attempt.is_refreshed:
            return False
        attempt.is_refreshed = True
        return self._credential_chain.refresh_credentials(credentials)

    def _refresh_token(
        self, slot: TokenSlot, challenge: Challenge | None, attempt: AuthAttempt
    ) -> bool:
        # Harbor offers only Basic to a request with a token, so the realm is kept.
        if challenge is not None and (
            slot.token_request is None or not attempt.is_scope_insufficient
        ):
            slot.token_request = self._parse_realm(slot, challenge, attempt.scopes)
        needs_refresh = slot.cached_token is not None and slot.cached_token.token.needs_refresh
        if attempt.is_scope_insufficient and not needs_refresh and not self._is_other_users(slot):
            # A new token for the same scopes would grant no more than this one.
            attempt.is_refreshed = True
            if (
                not attempt.is_widened
                and challenge is not None
                and token_request.request_wider_token(self._token_service, slot, challenge, attempt)
            ):
                attempt.is_widened = True
                return True
        if not attempt.is_refreshed:
            attempt.is_refreshed = True
            try:
                self._fetch_token(slot, attempt.scopes, attempt.start_time)
                return True
            except RegistryDenied:
                # GHCR answers 401 here if anonymous users may not access the repository.
                if (
                    self._credential_chain.current is not None
                    or not self._credential_chain.prompt()
                ):
                    raise
        elif self._credential_chain.current is not None or not self._credential_chain.prompt():
            return False
        self._fetch_token(slot, attempt.scopes, attempt.start_time)
        return True

    def _is_other_users(self, slot: TokenSlot) -> bool:
        return (
            slot.cached_token is not None
            and slot.cached_token.credentials != self._credential_chain.current
        )

    def _parse_realm(self, slot: TokenSlot, challenge: Challenge, scopes: Scopes) -> TokenRequest:
        realm = challenge.get("realm")
        if not realm:
            raise ProtocolViolation(
                f"{host_of(self.registry_url)} offers a token service but does not name its realm"
            )
        requested_scopes = slot.wider_scopes or join_scopes(scopes, challenge.get("scope"))
        return TokenRequest(
            check_realm(realm, self.registry_url),
            challenge.get("service"),
            requested_scopes,
            self.registry_url,
        )

    def _fetch_token(self, slot: TokenSlot, scopes: Scopes, start_time: float) -> None:
        """Fetch a token. The caller holds the lock of ``slot``.

        Args:
            start_time: monotonic seconds. A failure of another thread after this time is raised
                here too: otherwise sixteen threads would wait one after the other for a token
                service that hangs.
        """
        while True:
            with self._credential_chain.exclusive_attempt(scopes) as credentials:
                if self._service_error is not None and self._service_error[0] > start_time:
                    raise self._service_error[1].with_traceback(None)
                try:
                    token = token_request.request_token(
                        self._token_service, self._credential_chain, slot, credentials
                    )
                except RegistryDenied as error:
                    if credentials is None:
                        raise
                    was_valid = self._credential_chain.is_valid(credentials)
                    is_forbidden = was_valid and error.status == requests.codes.forbidden
                    may_retry = not is_forbidden or self._credential_chain.can_be_expired()
                    if not may_retry or not self._credential_chain.refresh_credentials(credentials):
                        is_rejected = token_request.is_user_rejected(
                            self._token_service, self._credential_chain, slot, credentials, error
                        )
                        self._mark_rejected(credentials, error, None if is_rejected else scopes)
                        raise
                    continue
                except (StatusError, ConnectionLost) as error:
                    self._service_error = (time.monotonic(), error)
                    raise
                self._credential_chain.mark_valid(credentials)
            slot.cached_token = CachedToken(
                token, credentials, slot.token_request.scopes if slot.token_request else ()
            )
            return

    # Basic -------------------------------------------------------------------------

    def _switch_to_basic(self, attempt: AuthAttempt) -> bool:
        """Send Basic with all later requests, unless the registry rejects the credentials."""
        if attempt.is_refreshed or not self._credential_chain.prompt():
            self._requires_password = True
            return False
        attempt.is_refreshed = True
        while True:
            with self._credential_chain.exclusive_attempt(attempt.scopes) as credentials:
                if credentials is None or not (credentials.password or credentials.username):
                    return False  # an identity token is useless without a token service
                error = self._check_basic(credentials, attempt)
                if error is None:
                    self._credential_chain.mark_valid(credentials)
                    self._uses_basic = True
                    return attempt.sent_header != credentials.basic_header()
                if not self._credential_chain.refresh_credentials(credentials):
                    self._mark_rejected(credentials, error, None)
                    raise error

    def _check_basic(self, credentials: Credentials, attempt: AuthAttempt) -> RegistryDenied | None:
        was_valid = self._credential_chain.is_valid(credentials)
        if was_valid and attempt.sent_header != credentials.basic_header():
            return None
        return check_password(self._transport, self.registry_url, credentials, was_valid=was_valid)

    def _mark_rejected(
        self, credentials: Credentials, error: RegistryDenied, scopes: Scopes | None
    ) -> None:
        if scopes is None:
            error.denied_host = host_of(self.registry_url)
        self._credential_chain.mark_rejected(credentials, error, scopes)
