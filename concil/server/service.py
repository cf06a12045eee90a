"""What the endpoints of a registry share."""

from __future__ import annotations

import bisect
from collections.abc import Callable
from dataclasses import dataclass

from concil.content import Digest
from concil.errors import InvalidDigest
from concil.server.http import Reply, Request
from concil.server.personality import Personality
from concil.server.refusal import Refusal
from concil.server.repositories import Repositories
from concil.server.uploads import Uploads
from concil.store.layout import Layout


@dataclass(frozen=True, slots=True)
class Service:
    """A layout and the rules by which it is served."""

    layout: Layout
    repositories: Repositories
    uploads: Uploads
    personality: Personality
    read_only: bool


@dataclass(frozen=True, slots=True)
class Target:
    """What a path names; the repository's syntax is checked, the reference's is not."""

    repository: str = ""
    reference: str = ""  # a tag, a digest or a session


Endpoint = Callable[[Service, Request, Target], Reply]


def digest_of(text: str | None) -> Digest:
    """Read a digest that a client sent.

    Raises:
        Refusal: it is missing, or its syntax or algorithm is not known here.
    """
    try:
        return Digest.parse(text or "")
    except InvalidDigest as error:
        raise Refusal("DIGEST_INVALID", str(error)) from error


def page_of(service: Service, request: Request, names: list[str]) -> tuple[list[str], str | None]:
    """Choose what a listing sends, by ``n`` and ``last``.

    Args:
        service: its rules say how much is sent at most.
        request: the question.
        names: everything there is, in ASCII order.

    Returns:
        The names of the page, and the Link header if there are more.

    Raises:
        Refusal: ``n`` is not a number.

    Source: distribution-spec, "Listing Tags".
    """
    last, asked = request.first("last"), request.first("n")
    if last:
        names = names[bisect.bisect_right(names, last) :]
    if asked is None:
        return names, None
    if not asked.isascii() or not asked.isdigit() or len(asked) > 9:
        raise Refusal("PAGINATION_NUMBER_INVALID", "n is not a number")
    count = min(int(asked), service.personality.page_limit)
    page = names[:count]
    more = page and len(names) > count
    return page, f'<{request.path}?n={count}&last={page[-1]}>; rel="next"' if more else None
