"""The repositories of a registry, where it lists them."""

from __future__ import annotations

from collections.abc import Iterator

import requests

from concil.config import RetryPolicy
from concil.errors import StatusError
from concil.registry import lists
from concil.registry.client import RegistryClient
from concil.registry.endpoint import Call, Endpoint

SCOPES = ("registry:catalog:*",)
_UNKNOWN = frozenset({401, 403, 404, 405, 501})
_REMEDY = "many registries list them to nobody, or only to some users; name the repositories"


def repositories(endpoint: Endpoint, policy: RetryPolicy | None = None) -> Iterator[str]:
    """Yield the names as the registry orders them; what they are is not checked.

    Raises:
        StatusError: it does not list them.
        ProtocolViolation: as `lists.names`.
    Source: distribution, docs/spec/api.md, "Listing Repositories".
    """
    client = RegistryClient(endpoint, "", policy=policy)
    host = endpoint.host

    def read(url: str) -> tuple[requests.Response, bytes]:
        call = Call("GET", url, SCOPES)
        return client.read(call, lists.PAGE_LIMIT, f"{host}: repositories")

    try:
        yield from lists.names(read, "/v2/_catalog", lambda: endpoint.base, host, "repositories")
    except StatusError as error:
        if error.status in _UNKNOWN:
            error.remedy = _REMEDY
        raise
