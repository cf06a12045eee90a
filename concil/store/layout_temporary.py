"""Files in a layout's own directory that are locked as long as their process lives."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
from collections.abc import Iterator

from concil.fs.file_lock import try_lock

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_STALE = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@contextlib.contextmanager
def temporary_file(inside: int) -> Iterator[tuple[int, str]]:
    """Open a new temporary file, locked, and tell its name; after an error it is removed.

    Args:
        inside: the open directory.
    """
    while True:
        name = f"{secrets.token_hex(8)}.new"
        descriptor = create_locked(name, inside)
        if _is_named(descriptor, name, inside):
            break
        # Another process took it for a stale one before it was locked.
        os.close(descriptor)
    try:
        yield descriptor, name
    except BaseException:  # also on Ctrl-C no draft is left behind
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=inside)
        raise
    finally:
        os.close(descriptor)


def create_locked(name: str, inside: int) -> int:
    """Create a file, and lock it where the file system has locks; the caller closes it.

    Raises:
        OSError: the directory does not take it.
    """
    descriptor = os.open(name, _CREATE, 0o666, dir_fd=inside)
    # Without locks nobody takes it for a stale one.
    with contextlib.suppress(OSError):
        try_lock(descriptor)
    return descriptor


def lock_stale(name: str, inside: int) -> int:
    """Open a file that a killed process has left, and lock it; the caller closes it.

    Raises:
        OSError: its process lives, or it cannot be opened.
    """
    descriptor = os.open(name, _STALE, dir_fd=inside)
    is_locked = False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Its holder may have renamed it before it was locked here: then the name is another's.
        is_locked = _is_named(descriptor, name, inside)
    finally:
        if not is_locked:
            os.close(descriptor)
    if not is_locked:
        raise FileNotFoundError(errno.ENOENT, "renamed", name)
    return descriptor


def remove_unlocked(name: str, inside: int) -> None:
    """Remove a file that a killed process has left. Raises as `lock_stale`."""
    descriptor = lock_stale(name, inside)
    try:
        os.unlink(name, dir_fd=inside)
    finally:
        os.close(descriptor)


def write_all(descriptor: int, content: bytes | bytearray) -> None:
    """Write at the end of a file, and wait for the disk. Raises OSError."""
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
    os.fsync(descriptor)


def sync(directory: int) -> None:
    """Wait for the names of a directory to be on the disk. Raises OSError."""
    os.fsync(directory)


def _is_named(descriptor: int, name: str, inside: int) -> bool:
    try:
        found = os.stat(name, dir_fd=inside, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(found, os.fstat(descriptor))
