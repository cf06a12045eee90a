"""Asking a token service for what a challenge names, and what a refusal of it means."""

from __future__ import annotations

import requests

from concil.errors import AccessDenied, RegistryDenied, StatusError
from concil.registry.credentials import Credentials
from concil.registry.held import Known
from concil.registry.identity import Identity
from concil.registry.tokens import Realm, Token, TokenService

# A service that knows only one repository at a time answers so to a mount's two.
_REFUSES_THE_SET = frozenset({400, 401, 403})


def ask(
    service: TokenService, identity: Identity, known: Known, credentials: Credentials | None
) -> Token:
    """Ask for all scopes, or for ours alone where the service refuses the set of them."""
    realm = known.realm
    assert realm is not None  # noqa: S101 - for the type checker
    first = Realm(realm.url, realm.service, realm.scopes[:1], realm.home)
    if known.narrow:
        return service.fetch(first, credentials)
    try:
        return service.fetch(realm, credentials)
    except StatusError as error:
        # A password that was never any good is not tried a second time.
        known_user = credentials is None or identity.is_proven(credentials)
        several = len(realm.scopes) > 1 and error.status in _REFUSES_THE_SET
        if not several or (error.status == requests.codes.unauthorized and not known_user):
            raise
    token = service.fetch(first, credentials)
    known.narrow = True
    return token


def is_wrong(
    service: TokenService,
    identity: Identity,
    known: Known,
    credentials: Credentials,
    error: RegistryDenied,
) -> bool:
    """Whether a refusal means the user, and not what was asked for.

    401 says so of a password that was never any good, 403 says no of one that was. In
    between (GitLab's 403 for a wrong password, Docker Hub's 401 for a read-only one) a
    token for nothing tells.
    """
    proven, status = identity.is_proven(credentials), error.status
    if proven is (status == requests.codes.forbidden):
        return not proven
    realm = known.realm
    if realm is None or not realm.scopes:
        return True
    try:
        service.fetch(Realm(realm.url, realm.service, (), realm.home), credentials)
    except RegistryDenied:
        return True
    except (StatusError, AccessDenied):
        return False  # it does not give tokens for nothing
    identity.prove(credentials)
    return False
