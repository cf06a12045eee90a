"""TransferContext: settings, journal and cancellation of one run."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import field

from concil.config import TransferConfig
from concil.ratelimit.bandwidth import BandwidthLimits
from concil.runtime.cancellation import ScopedEvent
from concil.runtime.dataclass import dataclass
from concil.runtime.parent_process import ParentProcess
from concil.transfer.journal import Journal


class BufferPool:
    """Pool of reusable buffers of one size. Any thread may borrow.

    A new buffer for each blob would cost a megabyte of page faults and, because each thread
    has its own heap arena, a megabyte for each thread that ever transferred a blob.
    """

    def __init__(self, size: int) -> None:
        """Create an empty pool of buffers of ``size`` bytes."""
        self._size = size
        self._free: list[bytearray] = []

    @contextlib.contextmanager
    def borrow(self) -> Iterator[memoryview]:
        """Lend a buffer for the duration of a `with` block; its initial content is undefined."""
        try:
            buffer = self._free.pop()
        except IndexError:
            buffer = bytearray(self._size)
        try:
            yield memoryview(buffer)
        finally:
            self._free.append(buffer)


@dataclass(frozen=True, slots=True)
class TransferContext:
    """The settings of a run, its journal, and its cancellation events.

    ``cancel`` lets the chunk in flight finish, so that an upload can be resumed even at a
    registry that loses a session with a broken chunk. ``abandon`` aborts that chunk as well.
    If a single call is cancelled, both are set for the threads of that call only.
    """

    config: TransferConfig = field(default_factory=TransferConfig)
    cancel: threading.Event = field(default_factory=ScopedEvent)
    abandon: threading.Event = field(default_factory=lambda: ScopedEvent(on_abandon=True))
    journal: Journal = field(default_factory=lambda: Journal(None))
    parent: ParentProcess | None = None  # of a run that is split over several processes
    buffer_pool: BufferPool = field(init=False)
    bandwidth: BandwidthLimits = field(init=False)

    def __post_init__(self) -> None:
        """Create the members that depend on the settings."""
        object.__setattr__(self, "buffer_pool", BufferPool(self.config.block_size))
        object.__setattr__(self, "bandwidth", BandwidthLimits(self.config, self.parent))
