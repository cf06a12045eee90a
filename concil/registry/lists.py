"""Lists of names, page by page: the tags of a repository, the repositories of a registry."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import requests

from concil.config import MIB
from concil.errors import ProtocolViolation, StatusError
from concil.registry.links import Links
from concil.strict_json import InvalidJson, read_json

PAGE = 1000  # names; ECR refuses to list more at once
PAGE_LIMIT = 8 * MIB  # bytes; distribution 2.8 sends all tags in one page
MOST_PAGES = 10_000
MOST_NAMES = 500_000  # a list without end would fill the memory of who keeps it
LIMIT = 24 * MIB  # bytes of all pages

Read = Callable[[str], tuple[requests.Response, bytes]]


def names(read: Read, path: str, base: Callable[[], str], whose: str, what: str) -> Iterator[str]:
    """Yield names as the registry orders them.

    Args:
        read: gets a page.
        path: of the list, without a query.
        base: returns scheme and host of the registry as they are known by now: with the
            first page a registry may turn out to speak plain http.
        whose: who has them, for messages.
        what: "tags" or "repositories", as the documents have it.
    Raises:
        ProtocolViolation: a page is no list, the next one is at another host, or
            there is no end to them.
    Source: distribution-spec, "Listing Tags"; odd Links in REGISTRIES.md 2.20.
    """
    links = Links(base, what)
    pages: set[int] = set()  # hashes of those that had names
    url: str | None = None
    many = size = 0
    for _ in range(MOST_PAGES):
        response, content = _first_page(read, path) if url is None else read(url)
        found = _names(content, whose, what)
        many, size = many + len(found), size + len(content)
        if many > MOST_NAMES or size > LIMIT:
            break
        if links.empty_pages and hash(content) in pages:
            return  # Cloudflare links from its empty last page to the first
        if found:
            pages.add(hash(content))
        yield from found
        url = links.following(response, empty=not found)
        if url is None:
            return
    raise ProtocolViolation(
        f"{whose}: the list of {what} goes on after {MOST_PAGES} pages,"
        f" {MOST_NAMES} {what} or {LIMIT} bytes"
    )


def _first_page(read: Read, path: str) -> tuple[requests.Response, bytes]:
    """Read the first page; as long as the registry likes where it refuses the wanted length.

    Distribution 3 answers 400, PAGINATION_NUMBER_INVALID, to more than its `maxentries`.
    """
    try:
        return read(f"{path}?n={PAGE}")
    except StatusError as error:
        if error.status != requests.codes.bad_request:
            raise
    return read(path)


def _names(content: bytes, whose: str, what: str) -> list[str]:
    try:
        document = read_json(content, most=MOST_NAMES + 3)
    except InvalidJson as error:
        raise ProtocolViolation(f"{whose}: the list of {what} is {error}") from error
    # Distribution says null where there are none.
    found = document.get(what) or [] if isinstance(document, dict) else None
    if not isinstance(found, list):
        raise ProtocolViolation(f"{whose}: the list of {what} is no list")
    return [name for name in found if isinstance(name, str)]
