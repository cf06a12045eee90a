"""Checks a login against its registry."""

from __future__ import annotations

from concil import retry
from concil.auth.credentials.credentials import Credentials
from concil.auth.ping import check_password
from concil.config import MIB, RetryPolicy
from concil.errors import ProtocolViolation, RegistryDenied
from concil.http.urls import describe_request
from concil.http.web_page import WEB_PAGE_REMEDY, describe_web_page, is_web_page
from concil.registry.endpoint import Call, Endpoint

__all__ = ["verify_login"]


def verify_login(endpoint: Endpoint, policy: RetryPolicy) -> bool:
    """Check the credentials with the registry; a wrong password is sent once only.

    Returns:
        Whether the registry has checked them; it may allow anonymous access.
    Raises:
        RegistryDenied: the credentials were rejected.
        ProtocolViolation: the answer is a web page.
        ConcilError: they could not be checked.
    """
    credentials = endpoint.authenticator.credentials
    call = Call("GET", "/v2/", max_response_size=MIB)
    response = endpoint.send_with_retry(call, policy)
    if is_web_page(response.headers.get("Content-Type", ""), response.content):
        operation = describe_request("GET", response.url)
        raise ProtocolViolation(
            f"{operation}: {describe_web_page(response.content)}", remedy=WEB_PAGE_REMEDY
        )
    if (
        endpoint.authenticator.has_accepted_credentials
        or credentials is None
        or credentials.identity_token is not None
    ):
        return endpoint.authenticator.has_accepted_credentials
    # Some registries allow anonymous access but still reject a wrong password.
    refusal = _check_password(endpoint, credentials, policy)
    if refusal is not None:
        raise refusal
    return False


def _check_password(
    endpoint: Endpoint, credentials: Credentials, policy: RetryPolicy
) -> RegistryDenied | None:
    transport, url = endpoint.transport, endpoint.base_url
    for attempt in retry.attempts(policy, endpoint.cancel, lambda: f"GET {url}/v2/"):
        with attempt:
            return check_password(transport, url, credentials, was_valid=False)
    raise AssertionError("the last attempt returns or raises")
