"""Lock that lets one writer at a time replace an archive."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

from concil.errors import Cancelled, StoreError, safe_repr
from concil.fs.local_file import disk_error
from concil.fs.path_lock import PathLock


def acquire_lock(path: Path, timeout: float, cancel: threading.Event | None) -> PathLock | None:
    """Lock an archive against replacement by other threads and processes.

    Args:
        path: of the file, with links resolved.
        timeout: seconds to wait for another writer.
    Returns:
        The lock, which the caller releases; None if another writer still holds it.
    Raises:
        Cancelled: ``cancel`` was set.
        StoreError: the lock file cannot be created.
    """
    lock = PathLock(path)
    try:
        if lock.acquire(timeout, cancel):
            return lock
    except OSError as error:
        raise disk_error("cannot lock", path, error) from error
    if cancel is not None and cancel.is_set():
        raise Cancelled(
            f"stopped while another process wrote {path}; it does not contain the images of this "
            "run"
        )
    return None


@contextlib.contextmanager
def locked(path: Path, timeout: float, cancel: threading.Event | None) -> Iterator[None]:
    """Hold the lock of an archive.

    Raises:
        StoreError: another writer still holds the lock. Otherwise as `acquire_lock`.
    """
    lock = acquire_lock(path, timeout, cancel)
    if lock is None:
        raise StoreError(
            f"cannot write {safe_repr(str(path))}: another process was writing it for "
            f"{timeout:.0f} s",
            remedy="try again after that process has ended, or write to another file",
        )
    try:
        yield
    finally:
        lock.release()
