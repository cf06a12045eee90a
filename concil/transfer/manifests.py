"""Manifests that a run has read, by digest: a registry counts every GET of one."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

from concil.config import MIB
from concil.content import Manifest
from concil.digest import Digest

_LIMIT = 8 * MIB  # bytes of bodies


class Manifests:
    """The manifests that were read last. Any thread may call any method."""

    def __init__(self, limit: int = _LIMIT) -> None:
        """Hold ``limit`` bytes of bodies."""
        self._limit = limit
        self._lock = threading.Lock()  # guards the fields below, never held over I/O
        self._held: OrderedDict[tuple[str, Digest], Manifest] = OrderedDict()
        self._size = 0  # bytes

    def get(self, host: str, digest: Digest, read: Callable[[], Manifest]) -> Manifest:
        """Return the manifest of a digest, read if it is not held.

        Args:
            host: where it is from; what one host says of its kind is not another's word.
            read: may return another one: a tag has moved since it was asked for.
        """
        with self._lock:
            held = self._held.get((host, digest))
            if held is not None:
                self._held.move_to_end((host, digest))
                return held
        manifest = read()
        self._hold(host, manifest)
        return manifest

    def _hold(self, host: str, manifest: Manifest) -> None:
        key = host, manifest.digest
        with self._lock:
            if key not in self._held:
                self._size += len(manifest.body)
            self._held[key] = manifest
            while self._size > self._limit:
                _, oldest = self._held.popitem(last=False)
                self._size -= len(oldest.body)
