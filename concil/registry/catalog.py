"""Lists the repositories of a registry."""

from __future__ import annotations

from collections.abc import Iterator

import requests

from concil.config import RetryPolicy
from concil.errors import StatusError
from concil.registry import name_lists
from concil.registry.endpoint import Call, Endpoint

CATALOG_SCOPES = ("registry:catalog:*",)
_UNSUPPORTED_STATUSES = frozenset({401, 403, 404, 405, 501})
_REMEDY = (
    "many registries do not list their repositories, or only for some users; give the "
    "repositories by name"
)


def list_repositories(endpoint: Endpoint, policy: RetryPolicy | None = None) -> Iterator[str]:
    """Yield the repository names in the registry's order; their syntax is not checked.

    Raises:
        StatusError: the registry does not list repositories.
        ProtocolViolation: as for `name_lists.iter_names`.
    Source: distribution, docs/spec/api.md, "Listing Repositories".
    """
    policy, host = policy or RetryPolicy(), endpoint.host

    def read(url: str) -> requests.Response:
        call = Call(
            "GET",
            url,
            CATALOG_SCOPES,
            max_response_size=name_lists.MAX_PAGE_SIZE,
            operation=f"{host}: repositories",
        )
        return endpoint.send_with_retry(call, policy)

    try:
        yield from name_lists.iter_names(
            read, "/v2/_catalog", lambda: endpoint.base_url, host, "repositories"
        )
    except StatusError as error:
        if error.status in _UNSUPPORTED_STATUSES:
            error.remedy = _REMEDY
        raise
