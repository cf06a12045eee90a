"""Spool: a bounded temporary file of slots, which hold parts of blobs until all have read them."""

from __future__ import annotations

import contextlib
import heapq
import logging
import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from concil.config import MIB
from concil.errors import StoreError
from concil.fs.local_file import disk_error

logger = logging.getLogger(__name__)

SLOT_SIZE = MIB  # bytes


class Spool:
    """A temporary file without a name: a killed process leaves nothing behind. Any thread."""

    def __init__(self, directory: Path, size: int) -> None:
        """Use up to ``size`` bytes in ``directory``; the file is created with its first slot."""
        self._directory = directory
        self._lock = threading.Lock()  # guards the fields below
        self._limit = size // SLOT_SIZE  # slots
        self._count = 0  # slots that the file has
        self._free: list[int] = []  # heap of slots that nobody holds
        self._file: IO[bytes] | None = None
        self._is_closed = False
        self._user_count = 0  # threads that read or write the file

    def acquire(self) -> int | None:
        """Return a free slot; None: the spool is full, or its disk is."""
        with self._lock:
            if self._is_closed:
                return None
            if self._free:
                return heapq.heappop(self._free)
            if self._count >= self._limit or not self._open():
                return None
            self._count += 1
            return self._count - 1

    def release(self, slot: int) -> None:
        """Return a slot."""
        with self._lock:
            heapq.heappush(self._free, slot)

    def write(self, slot: int, offset: int, data: memoryview) -> bool:
        """Write bytes of a slot; return False if the disk is full or fails.

        Raises:
            StoreError: the spool is closed.
        """
        try:
            with self._use() as descriptor:
                written = 0
                while written < len(data):
                    position = slot * SLOT_SIZE + offset + written
                    written += os.pwrite(descriptor, data[written:], position)
        except OSError as error:
            with self._lock:
                self._disable(error)
            return False
        return True

    def read(self, slot: int, offset: int, buffer: memoryview) -> int:
        """Read bytes of a slot; return their number.

        Raises:
            StoreError: the disk fails, or the spool is closed.
        """
        try:
            with self._use() as descriptor:
                return os.preadv(descriptor, [buffer], slot * SLOT_SIZE + offset)
        except OSError as error:
            raise disk_error("cannot read from the spool in", self._directory, error) from error

    def close(self) -> None:
        """Delete the file, as soon as no thread uses it."""
        with self._lock:
            self._is_closed = True
            self._close_if_unused()

    @contextlib.contextmanager
    def _use(self) -> Iterator[int]:
        """Keep the file open: another file could get its descriptor in the meantime."""
        with self._lock:
            if self._file is None or self._is_closed:
                raise StoreError("the spool is closed")
            self._user_count += 1
            descriptor = self._file.fileno()
        try:
            yield descriptor
        finally:
            with self._lock:
                self._user_count -= 1
                self._close_if_unused()

    def _close_if_unused(self) -> None:
        """Close the file if the spool is closed and no thread uses it; the lock is held."""
        if self._is_closed and self._file is not None and not self._user_count:
            self._file.close()
            self._file = None

    def _open(self) -> bool:
        """Create the file; return whether there is one. The lock is held."""
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


def _create_file(directory: Path) -> IO[bytes]:
    return tempfile.TemporaryFile(dir=directory, buffering=0)
