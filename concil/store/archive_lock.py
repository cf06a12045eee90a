"""One writer at a time puts an archive in its place."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

from concil.errors import Cancelled, StoreError, shown
from concil.fs.path_lock import PathLock
from concil.store.files import disk_error


def acquire(path: Path, timeout: float, cancel: threading.Event | None) -> PathLock | None:
    """Keep other threads and processes from replacing an archive.

    Args:
        path: of the file, behind all links.
        timeout: seconds to wait for another writer.
    Returns:
        The lock, which the caller releases; None: another writer did not end in time.
    Raises:
        Cancelled: ``cancel`` was set.
        StoreError: the directory does not take the lock file.
    """
    lock = PathLock(path)
    try:
        if lock.acquire(timeout, cancel):
            return lock
    except OSError as error:
        raise disk_error("cannot lock", path, error) from error
    if cancel is not None and cancel.is_set():
        raise Cancelled(f"stopped while another process wrote {path}; it has nothing of this run")
    return None


@contextlib.contextmanager
def locked(path: Path, timeout: float, cancel: threading.Event | None) -> Iterator[None]:
    """Hold the lock of an archive.

    Raises:
        StoreError: another writer did not end in time. Else as `acquire`.
    """
    lock = acquire(path, timeout, cancel)
    if lock is None:
        raise StoreError(
            f"cannot write {shown(str(path))}: another process was writing it for {timeout:.0f} s",
            remedy="run it again when that has ended, or write to another file",
        )
    try:
        yield
    finally:
        lock.release()
