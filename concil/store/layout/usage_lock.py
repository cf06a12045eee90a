"""Lock that keeps garbage collection away from a layout while something writes to it.

A writer that finds a blob in the layout does not write it, and names it in the index only later.
Until then nothing shows that the blob is needed. Therefore all writers of concil share this lock
from before their first look until their last change of the index, and garbage collection holds
it alone.
"""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Self

from concil.errors import StoreError, safe_repr
from concil.fs.file_lock import lock, try_lock
from concil.fs.local_file import disk_error
from concil.fs.nofollow_tree import PRIVATE_DIRECTORY, NoFollowTree

_NAME = "usage"  # of the lock file
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
_TIMEOUT = 600.0  # seconds; removing very many files takes long


class UsageLock:
    """A lock on one layout, held until `close`."""

    def __init__(self, descriptor: int) -> None:
        """Own an open file that is locked."""
        self._descriptor = descriptor

    @classmethod
    def shared(cls, directory: Path) -> Self:
        """Share the lock with other writers; wait for a garbage collection to end.

        Raises:
            StoreError: it did not end, or the lock file cannot be created.
        """
        descriptor = _open(directory)
        try:
            if lock(descriptor, _TIMEOUT, shared=True):
                return cls(descriptor)
        except OSError as error:
            os.close(descriptor)
            raise disk_error("cannot lock", _path(directory), error) from error
        os.close(descriptor)
        raise StoreError(
            f"{safe_repr(str(directory))} is locked by `concil gc`", remedy="try again later"
        )

    @classmethod
    def exclusive(cls, directory: Path) -> Self:
        """Hold the lock alone.

        Raises:
            StoreError: something is writing to the layout, or the lock file cannot be created.
        """
        descriptor = _open(directory)
        try:
            if try_lock(descriptor):
                return cls(descriptor)
        except OSError as error:
            os.close(descriptor)
            raise disk_error("cannot lock", _path(directory), error) from error
        os.close(descriptor)
        raise StoreError(
            f"{safe_repr(str(directory))} is being written to, or served",
            remedy="wait until the copy or mirror has ended, or stop `concil serve`",
        )

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Release the lock."""
        self.close()

    def close(self) -> None:
        """Release the lock; a second call has no effect."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1


def _path(directory: Path) -> Path:
    return directory / PRIVATE_DIRECTORY / _NAME


def _open(directory: Path) -> int:
    with NoFollowTree(directory).inside(PRIVATE_DIRECTORY, "cannot lock") as private_fd:
        return os.open(_NAME, _FLAGS, 0o666, dir_fd=private_fd)
