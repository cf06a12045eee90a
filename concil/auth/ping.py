"""Requests GET /v2/ to get the challenge of a registry."""

from __future__ import annotations

import requests

from concil.auth import challenge
from concil.auth.challenge import Challenge
from concil.auth.credentials.credentials import Credentials
from concil.errors import TRANSIENT_STATUS, RegistryDenied
from concil.http import status_errors
from concil.http.sanitize import clean_response
from concil.http.transport import SendOptions, Transport, drain_response, read_error
from concil.http.urls import host_of


def ping_challenges(transport: Transport, registry_url: str) -> list[Challenge]:
    """Return the challenges of GET /v2/; empty if the registry requires no authentication.

    gcr.io sends its challenge only there.

    Raises:
        StatusError, ConnectionLost: a transient failure.
    Source: distribution-spec, end-1.
    """
    response = _ping(transport, registry_url, None)
    if response.status_code in TRANSIENT_STATUS:
        raise status_errors.create_status_error(response, read_error(response))
    is_unauthorized = response.status_code == requests.codes.unauthorized
    challenges = challenge.read_challenges(response) if is_unauthorized else []
    drain_response(response)
    return challenges


def check_password(
    transport: Transport, registry_url: str, credentials: Credentials, *, was_valid: bool
) -> RegistryDenied | None:
    """Check user and password with GET /v2/; return the error if they are rejected.

    One check for all threads: sixteen requests with a wrong password could lock the user out.

    Args:
        was_valid: whether the password was accepted before.
    Raises:
        StatusError, ConnectionLost: a transient failure.
    """
    response = _ping(transport, registry_url, credentials.basic_header())
    content = read_error(response)
    operation = f"cannot log in to {host_of(registry_url)} with {credentials.description}"
    error = status_errors.create_status_error(response, content, operation)
    if response.status_code in TRANSIENT_STATUS:
        raise error
    response.close()
    # ECR answers 400 or 403 to an expired password.
    rejecting_statuses = (400, 401, 403) if was_valid else (401,)
    if response.status_code not in rejecting_statuses:
        return None
    denied = RegistryDenied(
        str(error),
        response=clean_response(response, content),
        remedy="check the credentials, or log in again",
    )
    denied.host, denied.operation, denied.reason = error.host, operation, error.reason
    return denied


def _ping(transport: Transport, registry_url: str, authorization: str | None) -> requests.Response:
    headers = {} if authorization is None else {"Authorization": authorization}
    request = requests.Request("GET", f"{registry_url}/v2/", headers=headers)
    return transport.send(
        request, SendOptions(allow_redirects=False)
    )  # only the registry's own response counts
