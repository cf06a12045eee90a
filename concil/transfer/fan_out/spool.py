"""Spool: a bounded temporary file of slots, which hold parts of blobs until all have read them."""

from __future__ import annotations

import heapq
import logging
import os
import tempfile
from pathlib import Path
from typing import IO

from concil.config import MIB
from concil.errors import StoreError
from concil.fs.local_file import disk_error

logger = logging.getLogger(__name__)

SLOT_SIZE = MIB  # bytes


class Spool:
    """A temporary file without a name: a killed process leaves nothing behind.

    `acquire` and `release` are called under the lock of the `FanOut`; any thread may call `read`
    and `write` for a slot that it holds.
    """

    def __init__(self, directory: Path, size: int) -> None:
        """Use up to ``size`` bytes in ``directory``; the file is created with its first slot."""
        self._directory = directory
        self._limit = size // SLOT_SIZE  # slots
        self._count = 0  # slots that the file has
        self._free: list[int] = []  # heap of slots that nobody holds
        self._file: IO[bytes] | None = None

    def acquire(self) -> int | None:
        """Return a free slot; None: the spool is full, or its disk is."""
        if self._free:
            return heapq.heappop(self._free)
        if self._count >= self._limit or not self._open():
            return None
        self._count += 1
        return self._count - 1

    def release(self, slot: int) -> None:
        """Return a slot."""
        heapq.heappush(self._free, slot)

    def write(self, slot: int, offset: int, data: memoryview) -> bool:
        """Write bytes of a slot; return False if the disk is full or fails."""
        try:
            written = 0
            while written < len(data):
                position = slot * SLOT_SIZE + offset + written
                written += os.pwrite(self._fileno(), data[written:], position)
        except OSError as error:
            self._disable(error)
            return False
        return True

    def read(self, slot: int, offset: int, buffer: memoryview) -> int:
        """Read bytes of a slot; return their number.

        Raises:
            StoreError: the disk fails.
        """
        try:
            return os.preadv(self._fileno(), [buffer], slot * SLOT_SIZE + offset)
        except OSError as error:
            raise disk_error("cannot read from the spool in", self._directory, error) from error

    def close(self) -> None:
        """Delete the file."""
        file, self._file, self._limit = self._file, None, 0
        if file is not None:
            file.close()

    def _open(self) -> bool:
        if self._file is None:
            try:
                self._file = _create_file(self._directory)
            except OSError as error:
                self._disable(error)
        return self._file is not None

    def _disable(self, error: OSError) -> None:
        """Use no more slots than there are: what does not fit is read from the source again."""
        if self._limit:
            reason = disk_error("cannot write to the spool in", self._directory, error)
            logger.warning("%s; the source may be read more than once", reason)
        self._limit = 0

    def _fileno(self) -> int:
        if self._file is None:
            raise StoreError("the spool is closed")
        return self._file.fileno()


def _create_file(directory: Path) -> IO[bytes]:
    return tempfile.TemporaryFile(dir=directory, buffering=0)
