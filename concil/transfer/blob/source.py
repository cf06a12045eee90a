"""BlobSource: one blob to read, and how its bytes are checked."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Self

from concil.oci.blob_reader import RangeOpener
from concil.oci.descriptor import Descriptor
from concil.oci.digest import Digest
from concil.ratelimit.bandwidth import BandwidthLimits
from concil.runtime.dataclass import dataclass
from concil.store.protocols import Store


@dataclass(frozen=True, slots=True)
class BlobSource:
    """One blob to transfer."""

    open: RangeOpener  # any thread may call it; the caller closes the reader
    size: int  # bytes
    digest: Digest | None  # None: the digest of the bytes that are read
    name: str  # in messages
    host: str = ""  # host[:port] from which it is read; "" for local
    check_unchanged: Callable[[], None] | None = None  # raises if the source has changed
    # Raises if the source does not have the digest; needed if an earlier process has sent some
    # bytes, which are not read here.
    verify_digest: Callable[[], None] | None = None

    @classmethod
    def in_store(cls, store: Store, blob: Descriptor) -> Self:
        """Return the source for a blob of a store."""
        opener = partial(store.open_blob, blob)
        return cls(opener, blob.size, blob.digest, f"{store.name}@{blob.digest}", store.host)

    def throttled(self, bandwidth: BandwidthLimits, host: str, cancel: threading.Event) -> Self:
        """Return the source within the bandwidth limits of the run and of both hosts.

        Args:
            host: of the destination.
            cancel: ends a wait with Cancelled.
        """
        return replace(self, open=bandwidth.throttled(self.open, (self.host, host), cancel))
