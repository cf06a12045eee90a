"""Lock file beside a file that is replaced by renaming."""

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

from concil.errors import safe_repr
from concil.fs.file_lock import is_same_file, lock, remove_unlocked

logger = logging.getLogger(__name__)

_NOTICE_DELAY = 2.0  # seconds of waiting before the user gets a message
_OPEN_FLAGS = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
# A user without write permission on the lock file can still lock it.
_OPEN_MODES = (os.O_RDWR, os.O_RDONLY, os.O_RDWR | os.O_CREAT | os.O_EXCL)
_MAX_ATTEMPTS = 100
_UNSUPPORTED_ERRNOS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


class PathLock:
    """Prevents other threads and processes from replacing a file. One thread at a time.

    The file itself cannot be locked, because each writer replaces it. The lock file
    ``.<name>.lock`` is removed on release; after a kill it remains unlocked, and the next holder
    removes it. If the file system does not support locks, a warning is logged.
    """

    def __init__(self, path: Path) -> None:
        """Set the path; nothing is opened."""
        self._display_name = safe_repr(str(path))
        self._lock_path = path.with_name(f".{path.name}.lock")
        self._fd = -1

    def acquire(self, timeout: float, cancel: threading.Event | None = None) -> bool:
        """Wait until the lock is free, and acquire it.

        Args:
            timeout: seconds.
            cancel: ends the wait early.
        Returns:
            False if another holder still has the lock after the wait.
        Raises:
            OSError: the lock file cannot be created, or is not a regular file.
        """
        deadline = time.monotonic() + timeout
        notice_time = min(deadline, time.monotonic() + _NOTICE_DELAY)
        while not self._try_acquire(notice_time, cancel):
            if (cancel is not None and cancel.is_set()) or time.monotonic() >= deadline:
                return False
            if notice_time < deadline:
                logger.warning("waiting for another process that writes %s", self._display_name)
                notice_time = deadline
        return True

    def _try_acquire(self, deadline: float, cancel: threading.Event | None) -> bool:
        """Wait for the lock until ``deadline``. Returns and raises as `acquire`."""
        while True:
            descriptor = self._open_lock_file()
            try:
                if not lock(descriptor, deadline - time.monotonic(), cancel):
                    return False
                # The holder may have removed the file meanwhile; then another file was locked.
                if is_same_file(descriptor, self._lock_path):
                    self._fd, descriptor = descriptor, -1
                    return True
            except OSError as error:
                if error.errno not in _UNSUPPORTED_ERRNOS:
                    raise
                logger.warning(
                    "%s: the file system does not support locks; make sure that no other process "
                    "writes to it",
                    self._display_name,
                )
                with contextlib.suppress(OSError):
                    self._lock_path.unlink()
                return True
            finally:
                if descriptor >= 0:
                    os.close(descriptor)

    def release(self) -> None:
        """Release the lock; a second call does nothing."""
        descriptor, self._fd = self._fd, -1
        if descriptor < 0:
            return
        try:
            # Unlink first: whoever locks the file afterwards notices that it was removed.
            with contextlib.suppress(OSError):
                if is_same_file(descriptor, self._lock_path):
                    self._lock_path.unlink()
            # A forked child shares the open file, so closing alone would not release the lock.
            with contextlib.suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_UN)
        finally:
            os.close(descriptor)

    def remove_stale(self) -> None:
        """Remove the lock file of a killed process."""
        with contextlib.suppress(OSError):
            remove_unlocked(self._lock_path)

    def _open_lock_file(self) -> int:
        """Open the lock file, or create it.

        Raises:
            OSError: as `acquire`.
        """
        refusal: OSError | None = None
        # Retried because other processes create and remove the file at the same time.
        for mode in _OPEN_MODES * _MAX_ATTEMPTS:
            try:
                descriptor = os.open(self._lock_path, mode | _OPEN_FLAGS, 0o666)
            except (FileNotFoundError, FileExistsError, PermissionError) as error:
                refusal = error
                continue
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                return descriptor
            os.close(descriptor)
            break
        raise refusal or OSError(errno.EINVAL, f"{self._lock_path.name} is not a regular file")
