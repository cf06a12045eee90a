"""Locks on open files that the kernel releases, and removal of files that nobody holds.

A flock belongs to the open file, so it keeps out threads as well as processes, in every pid
namespace that sees the file, and ends with its holder, however that dies.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import threading
import time
from pathlib import Path

from concil.forking import keep_file_from_children

# Seconds between two attempts, for flock itself knows no time limit.
_FIRST_STEP = 0.001
_LONGEST_STEP = 0.05


def try_lock(descriptor: int) -> bool:
    """Lock an open file; return False if somebody else holds it.

    A process that is forked meanwhile does not share the lock: it ends with this one.

    Raises:
        OSError: the file system has no locks.
    """
    keep_file_from_children(descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def lock(descriptor: int, timeout: float, cancel: threading.Event | None = None) -> bool:
    """Lock an open file; closing it unlocks it.

    Args:
        timeout: seconds to wait for another holder.
        cancel: ends the wait early.
    Returns:
        False if another holder still had it at the end of the wait.
    Raises:
        OSError: the file system has no locks.
    """
    end = time.monotonic() + timeout
    step = _FIRST_STEP
    while not try_lock(descriptor):
        if time.monotonic() > end or (cancel is not None and cancel.is_set()):
            return False
        time.sleep(step)
        step = min(2 * step, _LONGEST_STEP)
    return True


def lock_temporary(descriptor: int) -> None:
    """Keep `remove_stale` away from a temporary file while it is open.

    Where the file system has no locks, `remove_stale` cannot lock either and removes nothing.
    """
    with contextlib.suppress(OSError):
        try_lock(descriptor)


def remove_stale(final: Path, pattern: str) -> None:
    """Remove the temporary files of killed processes beside the file they were meant for.

    Args:
        final: the file; theirs are named ``.<its name>.<pattern>``.
        pattern: a regular expression.
    """
    stale = re.compile(rf"\.{re.escape(final.name)}\.{pattern}")
    with contextlib.suppress(OSError), os.scandir(final.parent) as entries:
        for path in [Path(entry.path) for entry in entries if stale.fullmatch(entry.name)]:
            with contextlib.suppress(OSError):
                remove_unlocked(path)


def remove_unlocked(path: Path) -> None:
    """Remove a file unless somebody holds its lock.

    Raises:
        OSError: somebody holds it (BlockingIOError), or it cannot be removed.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
    finally:
        os.close(descriptor)
