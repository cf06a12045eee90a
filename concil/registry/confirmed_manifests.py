"""Remembers which manifests a registry has returned after they were put."""

from __future__ import annotations

import threading
from collections import OrderedDict

from concil.oci.manifest import Digest

_MAX_MANIFESTS = 20_000  # manifests; an evicted one is read back again


class ConfirmedManifests:
    """Confirmed manifests by registry and repository. Any thread may call any method."""

    def __init__(self) -> None:
        """Start with no confirmed manifests."""
        self._lock = threading.Lock()  # guards the field below
        self._lost_responses: OrderedDict[tuple[str, str, Digest], int] = OrderedDict()

    def is_confirmed(
        self, base_url: str, repository: str, digest: Digest, lost_responses: int
    ) -> bool:
        """Return whether a manifest was confirmed and no response has been lost since.

        Args:
            lost_responses: the registry's lost responses so far.
        """
        with self._lock:
            return self._lost_responses.get((base_url, repository, digest)) == lost_responses

    def add(self, base_url: str, repository: str, digest: Digest, lost_responses: int) -> None:
        """Record a confirmed manifest with the number of responses lost until then."""
        with self._lock:
            self._lost_responses[base_url, repository, digest] = lost_responses
            if len(self._lost_responses) > _MAX_MANIFESTS:
                self._lost_responses.popitem(last=False)
