"""Remembers which manifests a registry has returned after they were put."""

from __future__ import annotations

import threading

from concil.oci.manifest import Digest
from concil.runtime.lru_dict import LruDict


class ConfirmedManifests:
    """Confirmed manifests by registry and repository. Any thread may call any method.

    A manifest that was dropped is read back again.
    """

    def __init__(self) -> None:
        """Start with no confirmed manifests."""
        self._lock = threading.Lock()  # guards the field below
        self._lost_responses: LruDict[tuple[str, str, Digest], int] = LruDict()

    def is_confirmed(
        self, base_url: str, repository: str, digest: Digest, lost_responses: int
    ) -> bool:
        """Return whether a manifest was confirmed and no response has been lost since.

        Args:
            lost_responses: the registry's lost responses so far.
        """
        with self._lock:
            return self._lost_responses.use((base_url, repository, digest)) == lost_responses

    def add(self, base_url: str, repository: str, digest: Digest, lost_responses: int) -> None:
        """Record a confirmed manifest with the number of responses lost until then."""
        with self._lock:
            self._lost_responses.store((base_url, repository, digest), lost_responses)
