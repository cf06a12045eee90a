"""A lock on a file that is read, changed and replaced by renaming: a lock file beside it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import stat
import threading
import time
from pathlib import Path

from concil.errors import shown
from concil.fs.file_lock import is_named, lock, remove_unlocked

logger = logging.getLogger(__name__)

_NOTICE = 2.0  # seconds of waiting until the user is told why
_FLAGS = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
# Whoever may not write to the lock file of another user can still lock it.
_MODES = (os.O_RDWR, os.O_RDONLY, os.O_RDWR | os.O_CREAT | os.O_EXCL)
_MOST_ATTEMPTS = 100
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


class PathLock:
    """Keeps other threads and processes from replacing a file. One thread at a time.

    The file itself cannot be locked, for each writer puts another one in its place. The lock
    file ``.<name>.lock`` is removed on release; a killed holder leaves it behind unlocked, and
    the next holder removes it. Where the file system has no locks, a warning says so.
    """

    def __init__(self, path: Path) -> None:
        """Name the file; nothing is opened."""
        self._name = shown(str(path))
        self._lock_file = path.with_name(f".{path.name}.lock")
        self._descriptor = -1

    def acquire(self, timeout: float, cancel: threading.Event | None = None) -> bool:
        """Wait for other holders to end, and become the holder.

        Args:
            timeout: seconds.
            cancel: ends the wait early.
        Returns:
            False if another holder still had it at the end of the wait.
        Raises:
            OSError: the lock file cannot be made, or something else is in its place.
        """
        end = time.monotonic() + timeout
        notice = min(end, time.monotonic() + _NOTICE)
        while not self._try(notice, cancel):
            if (cancel is not None and cancel.is_set()) or time.monotonic() >= end:
                return False
            if notice < end:
                logger.warning("waiting for another process that writes %s", self._name)
                notice = end
        return True

    def _try(self, end: float, cancel: threading.Event | None) -> bool:
        """Wait for other holders until ``end``. Returns and raises as `acquire`."""
        while True:
            descriptor = self._open()
            try:
                if not lock(descriptor, end - time.monotonic(), cancel):
                    return False
                # Its holder may have removed the file meanwhile: then another one is locked.
                if is_named(descriptor, self._lock_file):
                    self._descriptor, descriptor = descriptor, -1
                    return True
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
                logger.warning(
                    "%s: the file system has no locks; let no other process write to it meanwhile",
                    self._name,
                )
                with contextlib.suppress(OSError):
                    self._lock_file.unlink()
                return True
            finally:
                if descriptor >= 0:
                    os.close(descriptor)

    def release(self) -> None:
        """Let the next one have it; a second call does nothing."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor < 0:
            return
        try:
            # In this order: whoever locks the file afterwards sees that it is gone.
            with contextlib.suppress(OSError):
                if is_named(descriptor, self._lock_file):
                    self._lock_file.unlink()
            # A child that was forked meanwhile has the open file, too.
            with contextlib.suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_UN)
        finally:
            os.close(descriptor)

    def remove_stale(self) -> None:
        """Remove the lock file of a killed process."""
        with contextlib.suppress(OSError):
            remove_unlocked(self._lock_file)

    def _open(self) -> int:
        """Open the lock file, or make it.

        Raises:
            OSError: as `acquire`.
        """
        refusal: OSError | None = None
        # Others make and remove it at the same time.
        for mode in _MODES * _MOST_ATTEMPTS:
            try:
                descriptor = os.open(self._lock_file, mode | _FLAGS, 0o666)
            except (FileNotFoundError, FileExistsError, PermissionError) as error:
                refusal = error
                continue
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                return descriptor
            os.close(descriptor)
            break
        raise refusal or OSError(errno.EINVAL, f"{self._lock_file.name} is not a regular file")
