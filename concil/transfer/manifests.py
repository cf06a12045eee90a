"""Manifests that a run has read, by digest: a registry counts every GET of one."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Protocol

from concil.config import MIB
from concil.content import Descriptor, Digest, Manifest, Platform
from concil.store.protocol import Source
from concil.transfer.graph import attests, check_listed, chosen
from concil.transfer.job import Root, counted

_LIMIT = 8 * MIB  # bytes of bodies


class Wanted(Protocol):
    """An image, as far as it is read."""

    @property
    def source(self) -> Source:
        """Where it is."""
        ...

    @property
    def source_reference(self) -> str:
        """Its tag or digest."""
        ...

    @property
    def platforms(self) -> tuple[Platform, ...]:
        """Those that are wanted; none: all."""
        ...

    @property
    def subject(self) -> str:
        """The image as people write it."""
        ...


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

    def whole(self, job: Wanted, found: Descriptor) -> Manifest:
        """The manifest of an image's reference, read once for all that name the same."""
        read = partial(job.source.get_manifest, job.source_reference)
        return self.get(job.source.host, found.digest, read)

    def root(self, job: Wanted, found: Descriptor) -> Root:
        """What to copy: all that was asked for, or for some platforms a part of an index.

        Args:
            found: what the image's reference named when it was asked for.
        """
        whole = self.whole(job, found)
        pick = chosen(whole, job.platforms, job.subject)
        if isinstance(pick, Descriptor):
            read = partial(job.source.get_manifest, str(pick.digest))
            child = self.get(job.source.host, pick.digest, read)
            check_listed(pick, child, job.subject)
            count = sum(1 for each in whole.children() if attests(each) == str(pick.digest))
            notes = (f"{counted(count, 'attestation')} left behind in the index",) if count else ()
            return Root(pick, child, whole.digest, notes=notes)
        if pick is whole:
            # A registry may name it by another algorithm; its word for the digest is not taken.
            digest = Digest.of(whole.body, found.digest.algorithm)
            return Root(replace(whole.descriptor, digest=digest), whole, digest)
        wanted = ", ".join(map(str, job.platforms))
        note = f"the index is rewritten for {wanted}: {pick.digest} instead of {whole.digest}"
        return Root(pick.descriptor, pick, whole.digest, whole.digest, (note,))

    def _hold(self, host: str, manifest: Manifest) -> None:
        key = host, manifest.digest
        with self._lock:
            if key not in self._held:
                self._size += len(manifest.body)
            self._held[key] = manifest
            while self._size > self._limit:
                _, oldest = self._held.popitem(last=False)
                self._size -= len(oldest.body)
