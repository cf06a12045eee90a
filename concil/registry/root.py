"""GET /v2/: what a registry says of its users where nothing else is asked of it."""

from __future__ import annotations

import requests

from concil.errors import TRANSIENT_STATUS, RegistryDenied
from concil.registry import challenge, failures
from concil.registry.challenge import Challenge
from concil.registry.credentials import Credentials
from concil.registry.sanitize import clean_response
from concil.registry.session import Options, Transport, discard, read_error


def root_challenges(transport: Transport, home: str) -> list[Challenge]:
    """Return the challenges of the registry as such; none if it lets everybody in.

    gcr.io has its challenge only there.

    Raises:
        StatusError, ConnectionLost: ask again later.
    Source: distribution-spec, end-1.
    """
    response = _get(transport, home, None)
    if response.status_code in TRANSIENT_STATUS:
        raise failures.status_error(response, read_error(response))
    refused = response.status_code == requests.codes.unauthorized
    found = challenge.read(response) if refused else []
    discard(response)
    return found


def password_refusal(
    transport: Transport, home: str, credentials: Credentials, *, worked: bool
) -> RegistryDenied | None:
    """Return why a user and a password are no good, by a request that changes nothing.

    Sixteen threads that send a wrong password each would lock a user out.

    Args:
        worked: the password was good before.
    Raises:
        StatusError, ConnectionLost: ask again later.
    """
    response = _get(transport, home, credentials.basic())
    content = read_error(response)
    error = failures.status_error(response, content, credentials.whose)
    if response.status_code in TRANSIENT_STATUS:
        raise error
    response.close()
    # ECR calls a password that has expired by other numbers.
    refused = (400, 401, 403) if worked else (401,)
    if response.status_code not in refused:
        return None
    return RegistryDenied(
        str(error),
        response=clean_response(response, content),
        remedy="check the credentials, or log in again",
    )


def _get(transport: Transport, home: str, authorization: str | None) -> requests.Response:
    headers = {} if authorization is None else {"Authorization": authorization}
    request = requests.Request("GET", f"{home}/v2/", headers=headers)
    return transport.send(request, Options(follow=False))  # what others say is not its word
