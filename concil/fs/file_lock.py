"""Kernel locks on open files, and removal of stale temporary files.

A flock belongs to the open file. It therefore excludes threads as well as processes, in every pid
namespace that has access to the file, and is released however its holder ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import threading
import time
from pathlib import Path

from concil.runtime.forking import detach_file_in_child

# Seconds between two attempts, because flock has no timeout.
_INITIAL_DELAY = 0.001
_MAX_DELAY = 0.05
_CREATE_FLAGS = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def try_lock(fd: int, *, shared: bool = False) -> bool:
    """Lock an open file; return False if another holder has the lock.

    Several holders may share a lock, if all of them ask for a ``shared`` one. A process forked
    meanwhile does not share it: the lock ends with this process.

    Raises:
        OSError: the file system does not support locks.
    """
    detach_file_in_child(fd)
    try:
        fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def lock(
    fd: int, timeout: float, cancel: threading.Event | None = None, *, shared: bool = False
) -> bool:
    """Lock an open file; closing it releases the lock.

    Args:
        timeout: seconds to wait for another holder.
        cancel: ends the wait early.
        shared: share the lock with others that do the same.
    Returns:
        False if another holder still has the lock after the wait.
    Raises:
        OSError: the file system does not support locks.
    """
    deadline = time.monotonic() + timeout
    delay = _INITIAL_DELAY
    while not try_lock(fd, shared=shared):
        if time.monotonic() > deadline or (cancel is not None and cancel.is_set()):
            return False
        time.sleep(delay)
        delay = min(2 * delay, _MAX_DELAY)
    return True


def create_temporary(final_path: Path, suffix: str = "", mode: int = 0o666) -> tuple[int, Path]:
    """Create a temporary file beside its final path.

    The file is locked while it is open, so that `remove_stale` of another process keeps it. If
    the file system does not support locks, `remove_stale` cannot lock either and removes
    nothing.

    Returns:
        The open file, which the caller closes, and its path: ``.<name>.<16 hex><suffix>``.
    Raises:
        OSError: the file cannot be created.
    """
    while True:
        path = final_path.with_name(f".{final_path.name}.{os.urandom(8).hex()}{suffix}")
        descriptor = os.open(path, _CREATE_FLAGS, mode)
        try:
            is_locked = try_lock(descriptor) and is_same_file(descriptor, path)
        except OSError:
            return descriptor, path
        if is_locked:
            return descriptor, path
        # Another process removed it as stale before it was locked.
        os.close(descriptor)


def is_same_file(fd: int, path: Path) -> bool:
    """Return whether an open file is still the one at ``path``.

    Raises:
        OSError: the path cannot be read.
    """
    try:
        return os.path.samestat(path.stat(follow_symlinks=False), os.fstat(fd))
    except FileNotFoundError:
        return False


def remove_stale(final_path: Path, pattern: str) -> bool:
    """Remove the temporary files that killed processes left beside a file.

    Args:
        final_path: the file; the temporary files are named ``.<its name>.<pattern>``.
        pattern: a regular expression.
    Returns:
        Whether any temporary file is still in use.
    """
    stale = re.compile(rf"\.{re.escape(final_path.name)}\.{pattern}")
    is_held = False
    with contextlib.suppress(OSError), os.scandir(final_path.parent) as entries:
        for path in [Path(entry.path) for entry in entries if stale.fullmatch(entry.name)]:
            try:
                remove_unlocked(path)
            except BlockingIOError:
                is_held = True
            except OSError:
                continue
    return is_held


def remove_unlocked(path: Path) -> None:
    """Remove a file unless it is locked.

    Raises:
        OSError: it is locked (BlockingIOError), or cannot be removed.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The holder may have removed it before this lock; the path then is another file.
        if is_same_file(descriptor, path):
            path.unlink()
    finally:
        os.close(descriptor)
