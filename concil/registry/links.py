"""Reads Link headers: where the next page of a list is."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable

import requests

from concil.errors import ProtocolViolation
from concil.registry.urls import origin, redacted, resolve

logger = logging.getLogger(__name__)

MOST_EMPTY_PAGES = 100  # in a row: a registry may filter a page after it was cut
LONGEST = 8 * 1024  # characters of a header that are read
_PARAMETER = re.compile(r"\s*([A-Za-z*]+)\s*=\s*(?:\"([^\"]*)\"|([^\s\",;]*))\s*")


class Links:
    """Leads from each page of one list to the next. One thread at a time."""

    def __init__(self, base: Callable[[], str], what: str) -> None:
        """Follow the pages of a list.

        Args:
            base: returns scheme and host of the registry as they are known by now.
            what: what is listed, for messages.
        """
        self._base = base
        self._what = what
        self._seen: set[int] = set()  # hashes: ten thousand long URLs are a lot of memory
        self.empty_pages = 0  # in a row, up to the last page

    def following(self, response: requests.Response, *, empty: bool) -> str | None:
        """Return the URL of the page behind this one; None: it was the last.

        A page that was read before ends the list, and so do many empty pages in a row;
        one does not.

        Args:
            empty: whether the page lists nothing.
        Raises:
            ProtocolViolation: as `next_page`.
        """
        self._seen.add(hash(response.url))
        self.empty_pages = self.empty_pages + 1 if empty else 0
        url = next_page(response, self._base(), self._what)
        if url is None or hash(url) in self._seen:
            return None
        if self.empty_pages >= MOST_EMPTY_PAGES:
            logger.warning(
                "%s: %d empty pages in a row are taken for the end of the list of %s",
                redacted(response.url),
                self.empty_pages,
                self._what,
            )
            return None
        self._seen.add(hash(url))
        return url


def next_page(response: requests.Response, base: str, what: str) -> str | None:
    """Return the URL of the next page of a list; None: this was the last.

    Args:
        base: scheme and host of the registry.
        what: what is listed, for messages.
    Raises:
        ProtocolViolation: it is neither where the page came from nor at the registry.
            Half a list would be worse: what is missing in it is taken for deleted.
    """
    link = next_link(response.headers.get("Link", ""))
    if link is None:
        return None
    target = resolve(response.url, link)
    # The page may have come by a redirect: registry.k8s.io has others answer for it.
    if origin(target) not in (origin(response.url), origin(base)):
        raise ProtocolViolation(
            f"{redacted(response.url)}: the list of {what} goes on elsewhere: {redacted(target)}",
            remedy="the registry does not know its own address; see its settings",
        )
    return target


def next_link(header: str) -> str | None:
    """Return the target of the link whose relation is ``next``, as it is written; None: none.

    The angle brackets may be missing, and quotes around the relation: registries do that.

    Source: RFC 8288; distribution-spec, "Listing Tags"; REGISTRIES.md 2.20.
    """
    # Two expressions that scan to the end from every start would need hours for 64 KiB.
    rest = header[:LONGEST]
    while rest:
        target, rest = _target(rest)
        relations, rest = _relations(rest)
        if target and "next" in relations:
            return target
    return None


def _target(text: str) -> tuple[str, str]:
    """A target and what stands behind it."""
    text = text.lstrip(" \t,")
    if text.startswith("<"):
        target, _, rest = text[1:].partition(">")
    else:
        target = text.partition(";")[0]
        rest = text[len(target) :]
    return target.strip(), rest.lstrip()


def _relations(text: str) -> tuple[list[str], str]:
    """The relations among the parameters of a link, and what stands behind its comma."""
    relations: list[str] = []
    while text.startswith(";"):
        found = _PARAMETER.match(text, 1)
        if found is None:
            break
        if found[1].lower() == "rel":
            relations += (found[2] if found[2] is not None else found[3]).lower().split()
        text = text[found.end() :]
    return relations, text.partition(",")[2]
