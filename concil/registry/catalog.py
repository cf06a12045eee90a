"""Lists the repositories of a registry."""

from __future__ import annotations

from collections.abc import Iterator

from concil.config import RetryPolicy
from concil.errors import StatusError
from concil.registry import name_lists
from concil.registry.endpoint import Endpoint
from concil.registry.list_cache import ListCache, PageReader

CATALOG_SCOPES = ("registry:catalog:*",)
_UNSUPPORTED_STATUSES = frozenset({401, 403, 404, 405, 501})
_REMEDY = (
    "many registries do not list their repositories, or only for some users; give the "
    "repositories by name"
)


def list_repositories(
    endpoint: Endpoint, policy: RetryPolicy | None = None, cache: ListCache | None = None
) -> Iterator[str]:
    """Yield the repository names in the registry's order; their syntax is not checked.

    Args:
        cache: of lists; None: it is always read.
    Raises:
        StatusError: the registry does not list repositories.
        ProtocolViolation: as for `name_lists.iter_names`.
    Source: distribution, docs/spec/api.md, "Listing Repositories".
    """
    policy, operation = policy or RetryPolicy(), f"{endpoint.host}: repositories"
    reader = PageReader(endpoint, policy, CATALOG_SCOPES, operation, cache)
    try:
        yield from name_lists.iter_names(reader, "/v2/_catalog", endpoint.host, "repositories")
    except StatusError as error:
        if error.status in _UNSUPPORTED_STATUSES:
            error.remedy = _REMEDY
        raise
