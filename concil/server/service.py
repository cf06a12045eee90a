"""State and helpers that the endpoints share."""

from __future__ import annotations

import bisect
from collections.abc import Callable

from concil.errors import InvalidDigest
from concil.oci.manifest import Digest
from concil.runtime.dataclass import dataclass
from concil.server.behavior import RegistryBehavior
from concil.server.errors import ErrorResponse
from concil.server.http import Request, Response
from concil.server.repository_index import RepositoryIndex
from concil.server.upload_store import UploadStore
from concil.store.layout.store import LayoutDirectory


@dataclass(frozen=True, slots=True)
class Service:
    """A layout and how it is served."""

    layout: LayoutDirectory
    repositories: RepositoryIndex
    uploads: UploadStore
    behavior: RegistryBehavior
    read_only: bool


@dataclass(frozen=True, slots=True)
class PathParameters:
    """The parts of a path; only the repository's syntax is checked."""

    repository: str = ""
    reference: str = ""  # a tag, digest or session ID


Handler = Callable[[Service, Request, PathParameters], Response]


def parse_digest(text: str | None) -> Digest:
    """Parse a digest that a client sent.

    Raises:
        ErrorResponse: it is missing, malformed or of an unknown algorithm.
    """
    try:
        return Digest.parse(text or "")
    except InvalidDigest as error:
        raise ErrorResponse("DIGEST_INVALID", str(error)) from error


def paginate(service: Service, request: Request, names: list[str]) -> tuple[list[str], str | None]:
    """Select the page of a listing that ``n`` and ``last`` ask for.

    Args:
        service: its behavior has the maximum page size.
        request: the request of the client.
        names: all names, in ASCII order.

    Returns:
        The names of the page, and the Link header if there are more.

    Raises:
        ErrorResponse: ``n`` is not a number.

    Source: distribution-spec, "Listing Tags".
    """
    last, page_size = request.query_value("last"), request.query_value("n")
    if last:
        names = names[bisect.bisect_right(names, last) :]
    if page_size is None:
        return names, None
    if not page_size.isascii() or not page_size.isdigit() or len(page_size) > 9:
        raise ErrorResponse("PAGINATION_NUMBER_INVALID", "n is not a number")
    count = min(int(page_size), service.behavior.page_limit)
    page = names[:count]
    has_more = page and len(names) > count
    return page, f'<{request.path}?n={count}&last={page[-1]}>; rel="next"' if has_more else None
