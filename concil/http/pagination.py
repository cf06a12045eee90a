"""Parses Link headers to find the next page of a list."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from typing import Protocol

from concil.errors import ProtocolViolation
from concil.http.redirects import resolve_location
from concil.http.urls import origin, redact_url

logger = logging.getLogger(__name__)

MAX_EMPTY_PAGES = 100  # in a row; registries may filter entries after cutting a page
MAX_HEADER_LENGTH = 8 * 1024  # characters; the rest of a header is ignored
_PARAMETER = re.compile(r"\s*([A-Za-z*]+)\s*=\s*(?:\"([^\"]*)\"|([^\s\",;]*))\s*")


class Page(Protocol):
    """A page of a list: a response, or what is left of one."""

    @property
    def url(self) -> str:
        """That sent it."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Among them Link."""
        ...


class Paginator:
    """Finds the next page of one list. Not thread-safe."""

    def __init__(self, get_base_url: Callable[[], str], list_name: str) -> None:
        """Follow the pages of a list.

        Args:
            get_base_url: returns the registry's current scheme and host.
            list_name: what is listed, for messages.
        """
        self._get_base_url = get_base_url
        self._list_name = list_name
        self._seen_urls: set[int] = set()  # hashes: thousands of long URLs take much memory
        self.empty_pages = 0  # consecutive, including the last page read

    def next_url(self, response: Page, *, is_empty: bool) -> str | None:
        """Return the URL of the next page; None after the last.

        A page that was read before ends the list, and so do `MAX_EMPTY_PAGES` empty pages in a
        row; a single empty page does not.

        Args:
            is_empty: whether this page has no entries.
        Raises:
            ProtocolViolation: as for `next_page_url`.
        """
        self._seen_urls.add(hash(response.url))
        self.empty_pages = self.empty_pages + 1 if is_empty else 0
        url = next_page_url(response, self._get_base_url(), self._list_name)
        if url is None or hash(url) in self._seen_urls:
            return None
        if self.empty_pages >= MAX_EMPTY_PAGES:
            logger.warning(
                "%s: stopped after %d consecutive empty pages of the list of %s",
                redact_url(response.url),
                self.empty_pages,
                self._list_name,
            )
            return None
        self._seen_urls.add(hash(url))
        return url


def next_page_url(response: Page, base_url: str, list_name: str) -> str | None:
    """Return the URL of the next page of a list; None after the last.

    Args:
        base_url: scheme and host of the registry.
        list_name: what is listed, for messages.
    Raises:
        ProtocolViolation: the next page is neither at the registry nor on the host that sent
            this page. A truncated list would be worse: missing entries count as deleted.
    """
    link = parse_next_link(response.headers.get("Link", ""))
    if link is None:
        return None
    target = resolve_location(response.url, link)
    # The page may come from a redirect target: registry.k8s.io redirects to other hosts.
    if origin(target) not in (origin(response.url), origin(base_url)):
        raise ProtocolViolation(
            f"{redact_url(response.url)}: the next page of the list of {list_name} is on another "
            "host: "
            f"{redact_url(target)}",
            remedy="check the external address in the registry's configuration",
        )
    return target


def parse_next_link(header: str) -> str | None:
    """Return the target of the ``next`` link as it is written; None if there is none.

    Some registries omit the angle brackets, or the quotes around the relation.

    Source: RFC 8288; distribution-spec, "Listing Tags"; REGISTRIES.md 2.20.
    """
    # Cut first: the regular expressions are quadratic and would take hours for 64 KiB.
    rest = header[:MAX_HEADER_LENGTH]
    while rest:
        target, rest = _parse_target(rest)
        relations, rest = _parse_relations(rest)
        if target and "next" in relations:
            return target
    return None


def _parse_target(text: str) -> tuple[str, str]:
    """Return the link's target and the remaining text."""
    text = text.lstrip(" \t,")
    if text.startswith("<"):
        target, _, rest = text[1:].partition(">")
    else:
        target = text.partition(";")[0]
        rest = text[len(target) :]
    return target.strip(), rest.lstrip()


def _parse_relations(text: str) -> tuple[list[str], str]:
    """Return a link's relations and the text after its comma."""
    relations: list[str] = []
    while text.startswith(";"):
        parameter = _PARAMETER.match(text, 1)
        if parameter is None:
            break
        if parameter[1].lower() == "rel":
            relations += (
                (parameter[2] if parameter[2] is not None else parameter[3]).lower().split()
            )
        text = text[parameter.end() :]
    return relations, text.partition(",")[2]
