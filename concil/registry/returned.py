"""Manifests that the registries of a run have shown to return."""

from __future__ import annotations

import threading
from collections import OrderedDict

from concil.content import Digest

_REMEMBERED = 20_000  # manifests; one that is forgotten is read back once more


class Returned:
    """Manifests by registry and repository. Any thread may call any method."""

    def __init__(self) -> None:
        """Know none."""
        self._lock = threading.Lock()  # guards the field below
        self._losses: OrderedDict[tuple[str, str, Digest], int] = OrderedDict()

    def has(self, base: str, repository: str, digest: Digest, losses: int) -> bool:
        """Whether a manifest was returned, and no answer of its registry was lost since.

        Args:
            losses: answers that were lost so far.
        """
        with self._lock:
            return self._losses.get((base, repository, digest)) == losses

    def add(self, base: str, repository: str, digest: Digest, losses: int) -> None:
        """Remember that a manifest was returned when so many answers had been lost."""
        with self._lock:
            self._losses[base, repository, digest] = losses
            if len(self._losses) > _REMEMBERED:
                self._losses.popitem(last=False)
