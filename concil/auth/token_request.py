"""Requests a token and classifies the refusals of a token service."""

from __future__ import annotations

import logging

import requests

from concil import retry
from concil.auth.challenge import Challenge
from concil.auth.credential_chain import CredentialChain
from concil.auth.credentials.credentials import Credentials
from concil.auth.scope import merge_scopes
from concil.auth.token_cache import AuthAttempt, CachedToken, TokenSlot
from concil.auth.token_service import Token, TokenRequest, TokenService
from concil.errors import AccessDenied, RegistryDenied, StatusError
from concil.http.urls import host_of

logger = logging.getLogger(__name__)

# Responses of services that accept one repository only, to the two scopes of a mount.
_SCOPE_SET_REJECTED = frozenset({400, 401, 403})


def request_token(
    service: TokenService,
    credential_chain: CredentialChain,
    slot: TokenSlot,
    credentials: Credentials | None,
) -> Token:
    """Request a token for all scopes, or for the first alone if the service rejects the set."""
    all_scopes_request = slot.token_request
    assert all_scopes_request is not None  # noqa: S101 - for the type checker
    first_scope_request = TokenRequest(
        all_scopes_request.realm,
        all_scopes_request.service,
        all_scopes_request.scopes[:1],
        all_scopes_request.registry_url,
    )
    if slot.is_single_scope:
        return service.fetch_token(first_scope_request, credentials)
    try:
        return service.fetch_token(all_scopes_request, credentials)
    except StatusError as error:
        # A password that was never accepted is not tried a second time.
        was_valid = credentials is None or credential_chain.is_valid(credentials)
        is_set_rejected = len(all_scopes_request.scopes) > 1 and error.status in _SCOPE_SET_REJECTED
        if not is_set_rejected or (error.status == requests.codes.unauthorized and not was_valid):
            raise
    token = service.fetch_token(first_scope_request, credentials)
    slot.is_single_scope = True
    return token


def request_wider_token(
    service: TokenService, slot: TokenSlot, challenge: Challenge, attempt: AuthAttempt
) -> bool:
    """Request a token that also has the actions in the challenge's scope.

    GitLab and Harbor require ``*`` where the specification says ``delete``.
    """
    wider = merge_scopes(attempt.scopes, challenge.get("scope"))
    cached_token, request = slot.cached_token, slot.token_request
    if (
        cached_token is None
        or request is None
        or slot.is_single_scope
        or set(wider) <= set(cached_token.scopes)
    ):
        return False
    request = TokenRequest(request.realm, request.service, wider, request.registry_url)
    try:
        token = service.fetch_token(request, cached_token.credentials)
    except (StatusError, AccessDenied) as error:
        if retry.is_retryable(error):
            raise
        # Only the wider scope is rejected; the credentials may still be valid.
        logger.debug("%s does not issue a token for more scopes: %s", host_of(request.realm), error)
        return False
    slot.cached_token, slot.token_request, slot.wider_scopes = (
        CachedToken(token, cached_token.credentials, wider),
        request,
        wider,
    )
    return True


def is_user_rejected(
    service: TokenService,
    credential_chain: CredentialChain,
    slot: TokenSlot,
    credentials: Credentials,
    error: RegistryDenied,
) -> bool:
    """Return whether a refusal rejects the user rather than the requested scopes.

    A 401 for credentials that were never accepted rejects the user; a 403 for accepted ones
    does not. In the other cases (GitLab's 403 for a wrong password, Docker Hub's 401 for a
    read-only one) a token request without scopes decides.
    """
    was_valid, status = credential_chain.is_valid(credentials), error.status
    if was_valid is (status == requests.codes.forbidden):
        return not was_valid
    token_request = slot.token_request
    if token_request is None or not token_request.scopes:
        return True
    try:
        service.fetch_token(
            TokenRequest(
                token_request.realm, token_request.service, (), token_request.registry_url
            ),
            credentials,
        )
    except RegistryDenied:
        return True
    except (StatusError, AccessDenied):
        return False  # the service issues no token without scopes
    credential_chain.mark_valid(credentials)
    return False
