"""Locks on open files that the kernel releases, and removal of files that nobody holds.

A flock belongs to the open file, so it keeps out threads as well as processes, in every pid
namespace that sees the file, and ends with its holder, however that dies.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import threading
import time
from pathlib import Path

from concil.forking import keep_file_from_children

# Seconds between two attempts, for flock itself knows no time limit.
_FIRST_STEP = 0.001
_LONGEST_STEP = 0.05
_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


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


def create_temporary(final: Path, ending: str = "", mode: int = 0o666) -> tuple[int, Path]:
    """Create a temporary file beside the file that it is meant for.

    It is locked as long as it is open, so that `remove_stale` of another process leaves it
    alone. Where the file system has no locks, `remove_stale` cannot lock either and removes
    nothing.

    Returns:
        The open file, which the caller closes, and its path: ``.<name>.<16 hex><ending>``.
    Raises:
        OSError: the directory does not take it.
    """
    while True:
        path = final.with_name(f".{final.name}.{secrets.token_hex(8)}{ending}")
        descriptor = os.open(path, _CREATE, mode)
        try:
            is_kept = try_lock(descriptor) and is_named(descriptor, path)
        except OSError:
            return descriptor, path
        if is_kept:
            return descriptor, path
        # Another process took it for a stale one before it was locked.
        os.close(descriptor)


def is_named(descriptor: int, path: Path) -> bool:
    """Whether an open file still has a name.

    Raises:
        OSError: the name cannot be looked up.
    """
    try:
        return os.path.samestat(path.stat(follow_symlinks=False), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def remove_stale(final: Path, pattern: str) -> bool:
    """Remove the temporary files of killed processes beside the file they were meant for.

    Args:
        final: the file; theirs are named ``.<its name>.<pattern>``.
        pattern: a regular expression.
    Returns:
        Whether there are any that a living process holds.
    """
    stale = re.compile(rf"\.{re.escape(final.name)}\.{pattern}")
    is_held = False
    with contextlib.suppress(OSError), os.scandir(final.parent) as entries:
        for path in [Path(entry.path) for entry in entries if stale.fullmatch(entry.name)]:
            try:
                remove_unlocked(path)
            except BlockingIOError:
                is_held = True
            except OSError:
                continue
    return is_held


def remove_unlocked(path: Path) -> None:
    """Remove a file unless somebody holds its lock.

    Raises:
        OSError: somebody holds it (BlockingIOError), or it cannot be removed.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Its holder may have removed it before it was locked here: then the name is another's.
        if is_named(descriptor, path):
            path.unlink()
    finally:
        os.close(descriptor)
