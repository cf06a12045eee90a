"""Pages of lists of tags and repositories, as they are kept for later runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from concil.config import MIB
from concil.runtime.dataclass import dataclass

MAX_PAGE_SIZE = 8 * MIB  # bytes; distribution 2.8 sends all tags in one page


@dataclass(frozen=True, slots=True)
class CachedPage:
    """A page of a list, and the validator that its registry gave it."""

    etag: str
    link: str  # its Link header; "" if there was none
    content: bytes


class PageStore(Protocol):
    """Where pages of lists are kept. Any thread may call any method."""

    def etags(self, url: str) -> Mapping[str, str]:
        """Return the entity tags of a page by the identity of who read it."""
        ...

    def load(self, url: str, identity: str) -> CachedPage | None:
        """Return a page; None: it was dropped or is damaged."""
        ...

    def store(self, url: str, identity: str, page: CachedPage) -> None:
        """Keep a page."""
        ...
