"""Lists of names, page by page: the tags of a repository, the repositories of a registry."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import requests

from concil.config import MIB
from concil.errors import ProtocolViolation
from concil.registry.links import next_link
from concil.registry.urls import origin, redacted, resolve
from concil.strict_json import InvalidJson, read_json

PAGE = 1000  # names; ECR refuses to list more at once
PAGE_LIMIT = 8 * MIB  # bytes; distribution 2.8 sends all tags in one page
MOST_PAGES = 10_000
MOST_NAMES = 500_000  # a list without end would fill the memory of who keeps it
LIMIT = 24 * MIB  # bytes of all pages

Read = Callable[[str], tuple[requests.Response, bytes]]


def names(read: Read, url: str, base: str, whose: str, what: str) -> Iterator[str]:
    """Yield names as the registry orders them.

    Args:
        read: gets a page.
        url: of the first one.
        base: scheme and host of the registry.
        whose: who has them, for messages.
        what: "tags" or "repositories", as the documents have it.
    Raises:
        ProtocolViolation: a page is no list, the next one is at another origin, or
            there is no end to them.
    Source: distribution-spec, "Listing Tags"; odd Links in REGISTRIES.md 2.20.
    """
    seen: set[int] = set()  # hashes: ten thousand long URLs are a lot of memory
    many = size = 0
    for _ in range(MOST_PAGES):
        response, content = read(url)
        seen |= {hash(url), hash(response.url)}
        found = _names(content, whose, what)
        many, size = many + len(found), size + len(content)
        if many > MOST_NAMES or size > LIMIT:
            break
        yield from found
        following = next_page(response, base, what) if found else None
        if following is None or hash(following) in seen:
            return
        url = following
    raise ProtocolViolation(
        f"{whose}: the list of {what} goes on after {MOST_PAGES} pages,"
        f" {MOST_NAMES} {what} or {LIMIT} bytes"
    )


def next_page(response: requests.Response, base: str, what: str) -> str | None:
    """The URL of the next page of a list; None: this was the last.

    Args:
        what: what is listed, for messages.
    Raises:
        ProtocolViolation: it is not at the registry. Half a list would be worse: what
            is missing in it is taken for deleted.
    """
    link = next_link(response.headers.get("Link", ""))
    if link is None:
        return None
    target = resolve(response.url, link)
    if origin(target) != origin(base):
        raise ProtocolViolation(
            f"{redacted(response.url)}: the list of {what} goes on elsewhere: {redacted(target)}",
            remedy="the registry does not know its own address; see its settings",
        )
    return target


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
