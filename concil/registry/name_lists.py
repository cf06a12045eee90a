"""Fetches paginated lists of tags and repositories."""

from __future__ import annotations

from collections.abc import Iterator

import requests

from concil.config import MIB
from concil.errors import ProtocolViolation, StatusError
from concil.http.pagination import Paginator
from concil.http.urls import describe_request
from concil.http.web_page import WEB_PAGE_REMEDY, describe_web_page, is_web_page
from concil.oci.strict_json import InvalidJSON, parse_json
from concil.registry.list_cache import PAGE_LENGTH, ListPage, PageReader

__all__ = ["PAGE_LENGTH", "iter_names", "parse_only_page"]

MAX_PAGES = 10_000
MAX_NAMES = 500_000  # protects callers that keep the list in memory
MAX_LIST_SIZE = 24 * MIB  # bytes of all pages


def iter_names(reader: PageReader, path: str, owner: str, list_name: str) -> Iterator[str]:
    """Yield the names of a list in the registry's order.

    Args:
        reader: reads the pages.
        path: of the list, without a query.
        owner: repository or host, for messages.
        list_name: "tags" or "repositories", the member of the JSON document.
    Raises:
        ProtocolViolation: a page is malformed, the next page is on another host, or the list
            exceeds the limits.
    Source: distribution-spec, "Listing Tags"; odd Links in REGISTRIES.md 2.20.
    """
    endpoint = reader.endpoint
    # The first page may downgrade it to http.
    paginator = Paginator(lambda: endpoint.base_url, list_name)
    seen_pages: set[int] = set()  # hashes of non-empty pages
    url: str | None = None
    name_count = total_size = 0
    for _ in range(MAX_PAGES):
        page = _read_first_page(reader, path) if url is None else reader.read(url)
        content = page.content
        if is_web_page("", content):
            operation = describe_request("GET", f"{endpoint.base_url}{path}")
            raise ProtocolViolation(
                f"{operation}: {describe_web_page(content)}", remedy=WEB_PAGE_REMEDY
            )
        names = _parse_names(content, owner, list_name)
        reader.accept(page, len(names))
        name_count, total_size = name_count + len(names), total_size + len(content)
        if name_count > MAX_NAMES or total_size > MAX_LIST_SIZE:
            break
        if paginator.empty_pages and hash(content) in seen_pages:
            return  # Cloudflare's empty last page links to the first page
        if names:
            seen_pages.add(hash(content))
        yield from names
        url = paginator.next_url(page, is_empty=not names)
        if url is None:
            return
    raise ProtocolViolation(
        f"{owner}: the list of {list_name} does not end after {MAX_PAGES} pages,"
        f" {MAX_NAMES} {list_name} or {MAX_LIST_SIZE} bytes"
    )


def parse_only_page(page: ListPage, owner: str, list_name: str) -> list[str] | None:
    """Return the names of a list that has one page; None if it may have more.

    Args: as for `iter_names`.
    Raises:
        ProtocolViolation: the page is malformed.
    """
    if page.headers.get("Link", "").strip():
        return None
    names = _parse_names(page.content, owner, list_name)
    return names if len(names) < PAGE_LENGTH else None


def _read_first_page(reader: PageReader, path: str) -> ListPage:
    """Read the first page, with the registry's default length if it rejects ours.

    Distribution 3 answers 400, PAGINATION_NUMBER_INVALID, to more than its `maxentries`.
    """
    try:
        return reader.read(f"{path}?n={PAGE_LENGTH}")
    except StatusError as error:
        if error.status != requests.codes.bad_request:
            raise
    return reader.read(path)


def _parse_names(content: bytes, owner: str, list_name: str) -> list[str]:
    try:
        document = parse_json(content, max_parts=MAX_NAMES + 3)
    except InvalidJSON as error:
        raise ProtocolViolation(f"{owner}: the list of {list_name} is {error}") from error
    # Distribution sends null for an empty list.
    names = document.get(list_name) or [] if isinstance(document, dict) else None
    if not isinstance(names, list):
        raise ProtocolViolation(f"{owner}: the list of {list_name} is not a list")
    return [name for name in names if isinstance(name, str)]
