"""Temporary files that are locked while their process lives."""

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
    """Create a locked temporary file; yield its descriptor and name. Removed after an error.

    Args:
        inside: descriptor of the directory.
    """
    while True:
        name = f"{secrets.token_hex(8)}.new"
        descriptor = create_locked(name, inside)
        if _is_named(descriptor, name, inside):
            break
        # Another process removed it as stale before it was locked.
        os.close(descriptor)
    try:
        yield descriptor, name
    except BaseException:  # also on Ctrl-C the file is removed
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=inside)
        raise
    finally:
        os.close(descriptor)


def create_locked(name: str, inside: int) -> int:
    """Create a file, and lock it if the file system supports locks; the caller closes it.

    Raises:
        OSError: the file cannot be created.
    """
    descriptor = os.open(name, _CREATE, 0o666, dir_fd=inside)
    # Without locks no process can treat it as stale.
    with contextlib.suppress(OSError):
        try_lock(descriptor)
    return descriptor


def lock_stale(name: str, inside: int) -> int:
    """Open the file of a killed process and lock it; the caller closes it.

    Raises:
        OSError: its process is still running, or the file cannot be opened.
    """
    descriptor = os.open(name, _STALE, dir_fd=inside)
    is_locked = False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The holder may have renamed it before this lock; the name then is another file.
        is_locked = _is_named(descriptor, name, inside)
    finally:
        if not is_locked:
            os.close(descriptor)
    if not is_locked:
        raise FileNotFoundError(errno.ENOENT, "renamed", name)
    return descriptor


def remove_unlocked(name: str, inside: int) -> None:
    """Remove the file of a killed process. Raises as `lock_stale`."""
    descriptor = lock_stale(name, inside)
    try:
        os.unlink(name, dir_fd=inside)
    finally:
        os.close(descriptor)


def write_all(descriptor: int, content: bytes | bytearray) -> None:
    """Append to a file and sync it to disk. Raises OSError."""
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
    os.fsync(descriptor)


def sync(directory: int) -> None:
    """Sync the entries of a directory to disk. Raises OSError."""
    os.fsync(directory)


def _is_named(descriptor: int, name: str, inside: int) -> bool:
    try:
        status = os.stat(name, dir_fd=inside, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(status, os.fstat(descriptor))
