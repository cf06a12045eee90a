"""Reads auth files and replaces them atomically, one writer at a time."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

from concil.auth.credentials.docker_config import AuthFile
from concil.config import MIB
from concil.errors import AccessDenied, StoreError, safe_repr
from concil.fs.file_lock import create_temporary, lock, remove_stale

_MAX_FILE_SIZE = MIB  # bytes; one login takes a few hundred
_LOCK_TIMEOUT = 10.0  # seconds; a write takes milliseconds
_READ_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC  # opening a FIFO would block
_TEMPORARY_PATTERN = "[0-9a-f]{16}"  # suffix of the file name
_MAX_ATTEMPTS = 50
_StatSignature = tuple[int, ...]
_ABSENT_ERRNOS = (errno.ENOENT, errno.ENOTDIR)


def read_auth_file(path: Path) -> AuthFile | None:
    """Read an auth file; return None if it does not exist.

    Raises:
        AccessDenied: it cannot be read, or is not an auth file.
    """
    name = safe_repr(str(path))
    try:
        descriptor = os.open(path, _READ_FLAGS)
        try:
            is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
            content = (
                _read_up_to(descriptor, _MAX_FILE_SIZE + 1)
                if is_file or path == Path(os.devnull)
                else b""
            )
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno in _ABSENT_ERRNOS:
            return None
        raise AccessDenied(
            f"cannot read the logins in {name}: {error.strerror}",
            remedy="make it readable, or name another file with authfile=",
        ) from error
    except ValueError as error:  # a name with a NUL in it
        raise AccessDenied(f"cannot read the logins in {name}: not a file name") from error
    if (not is_file and path != Path(os.devnull)) or len(content) > _MAX_FILE_SIZE:
        cause = f"larger than {_MAX_FILE_SIZE} bytes" if is_file else "not a regular file"
        raise AccessDenied(
            f"cannot read the logins in {name}: it is {cause}",
            remedy="name another file with authfile=",
        )
    return AuthFile.parse(content, name)


def update_auth_file(
    path: Path, transform: Callable[[AuthFile], bytes], *, create: bool = True
) -> None:
    """Change an auth file safely, even if other programs write it at the same time.

    concil's writers use a lock. docker, podman and skopeo do not: each replaces the file with
    a new one. Therefore the file is checked again when the new content is ready, and if it
    has changed, it is read and transformed again.

    A symbolic link is followed, not replaced: users link auth files to other directories.
    Missing directories are created, accessible to the user only.

    Args:
        transform: returns the new content; may be called several times.
        create: whether to create a missing file.
    Raises:
        AccessDenied: the existing file cannot be read; nothing has changed.
        StoreError: the file cannot be written.
    """
    try:
        real_path = Path(os.path.realpath(path))
        real_path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory = os.open(real_path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _acquire_lock(directory, path)
            remove_stale(real_path, _TEMPORARY_PATTERN)
            for _ in range(_MAX_ATTEMPTS):
                signature = _stat_signature(real_path)
                file = read_auth_file(real_path)
                if file is None and not create:
                    return
                if _replace(
                    real_path, transform(file or AuthFile.parse(b"", str(path))), signature
                ):
                    return
        finally:
            os.close(directory)
    except (OSError, ValueError) as error:
        cause = getattr(error, "strerror", None) or "not a file name"
        raise StoreError(
            f"cannot write the login to {safe_repr(str(path))}: {cause}",
            remedy="make its directory writable, or name another file with authfile=",
        ) from error
    raise StoreError(
        f"cannot write the login to {safe_repr(str(path))}: other processes keep writing to it",
        remedy="run it again after they have finished",
    )


def _replace(path: Path, content: bytes, expected: _StatSignature | None) -> bool:
    """Replace a file atomically with one that only its owner may read.

    Args:
        expected: signature of the file to replace; None if there was none.
    Returns:
        False if the file has another signature; it is then unchanged.
    Raises:
        OSError: the file is unchanged.
    """
    descriptor, temporary = create_temporary(path, mode=0o600)
    try:
        with contextlib.suppress(OSError):  # for root, who writes another user's file
            owner = path.stat()
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
        is_unchanged = _stat_signature(path) == expected
        if is_unchanged:
            temporary.replace(path)
    except BaseException:  # raised again: remove the file, which holds a password
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    finally:
        os.close(descriptor)
    if not is_unchanged:
        temporary.unlink()
    return is_unchanged


def _stat_signature(path: Path) -> _StatSignature | None:
    """Return inode, size and times, which change with each write; None if there is no file."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _read_up_to(fd: int, limit: int) -> bytes:
    pieces = []
    while limit > 0 and (piece := os.read(fd, limit)):
        pieces.append(piece)
        limit -= len(piece)
    return b"".join(pieces)


def _acquire_lock(directory: int, path: Path) -> None:
    if not lock(directory, _LOCK_TIMEOUT):
        raise StoreError(
            f"cannot write the login to {safe_repr(str(path))}: its directory is locked",
            remedy="wait until the other login has finished, or end it",
        )
