"""What every transfer of one run shares: settings, journal, and the events that stop it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

from concil.cancellation import ScopedEvent
from concil.config import TransferConfig
from concil.transfer.journal import Journal
from concil.transfer.pace import Bandwidth


class Blocks:
    """Buffers of one size, handed from transfer to transfer. Any thread may borrow.

    A new one for each blob is a megabyte of page faults, and as each thread has its own
    part of the heap, a megabyte for each thread that ever carried a blob.
    """

    def __init__(self, size: int) -> None:
        """Hand out buffers of ``size`` bytes; none is made yet."""
        self._size = size
        self._free: list[bytearray] = []

    @contextlib.contextmanager
    def borrow(self) -> Iterator[memoryview]:
        """Lend a buffer for the length of a block; what it holds is of no meaning."""
        try:
            buffer = self._free.pop()
        except IndexError:
            buffer = bytearray(self._size)
        try:
            yield memoryview(buffer)
        finally:
            self._free.append(buffer)


@dataclass(frozen=True, slots=True)
class Run:
    """The settings of a run, its journal, and how it is ended.

    ``cancel`` lets the chunk in flight end: a registry that cannot survive a broken
    chunk can then be gone on with. ``abandon`` ends that too. For the threads of a call that
    is cancelled alone they are set as well.
    """

    config: TransferConfig = field(default_factory=TransferConfig)
    cancel: threading.Event = field(default_factory=ScopedEvent)
    abandon: threading.Event = field(default_factory=lambda: ScopedEvent(abandoning=True))
    journal: Journal = field(default_factory=lambda: Journal(None))
    blocks: Blocks = field(init=False)
    bandwidth: Bandwidth = field(init=False)

    def __post_init__(self) -> None:
        """Make what depends on the settings."""
        object.__setattr__(self, "blocks", Blocks(self.config.block_size))
        object.__setattr__(self, "bandwidth", Bandwidth(self.config))
