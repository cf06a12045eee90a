"""Files of logins on disk: read with a limit, replaced whole, by one writer at a time."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

from concil.config import MIB
from concil.errors import AccessDenied, StoreError, shown
from concil.fs.file_lock import lock
from concil.registry.auth_file import AuthFile

_LIMIT = MIB  # bytes; a login has some hundred
_LOCK_WAIT = 10.0  # seconds; a writer needs milliseconds
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC  # a pipe without a writer would hang
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_ABSENT = (errno.ENOENT, errno.ENOTDIR)


def read(path: Path) -> AuthFile | None:
    """Read a file of logins; None: it is not there.

    Raises:
        AccessDenied: it cannot be read, or is no such file.
    """
    name = shown(str(path))
    try:
        descriptor = os.open(path, _READ)
        try:
            is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
            content = _up_to(descriptor, _LIMIT + 1) if is_file or path == Path(os.devnull) else b""
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno in _ABSENT:
            return None
        raise AccessDenied(
            f"cannot read the logins in {name}: {error.strerror}",
            remedy="make it readable, or name another file with authfile=",
        ) from error
    except ValueError as error:  # a name with a NUL in it
        raise AccessDenied(f"cannot read the logins in {name}: not a file name") from error
    if (not is_file and path != Path(os.devnull)) or len(content) > _LIMIT:
        cause = f"larger than {_LIMIT} bytes" if is_file else "not a regular file"
        raise AccessDenied(
            f"cannot read the logins in {name}: it is {cause}",
            remedy="name another file with authfile=",
        )
    return AuthFile.parse(content, name)


@contextlib.contextmanager
def changing(path: Path) -> Iterator[Path]:
    """Keep other writers of concil out, and yield where the file is to be replaced.

    A link is not replaced but what it leads to, for people keep such files elsewhere.
    Missing directories are made, for the user alone.

    Raises:
        StoreError: it cannot be written there.
    """
    try:
        real = Path(os.path.realpath(path))
        real.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory = os.open(real.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _acquire(directory, path)
            yield real
        finally:
            os.close(directory)
    except (OSError, ValueError) as error:
        cause = getattr(error, "strerror", None) or "not a file name"
        raise StoreError(
            f"cannot write the login to {shown(str(path))}: {cause}",
            remedy="make its directory writable, or name another file with authfile=",
        ) from error


def replace(real: Path, content: bytes) -> None:
    """Put a file in the place of another at once; nobody but its owner may read it.

    Raises:
        OSError: nothing has changed.
    """
    draft = real.with_name(f".{real.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, _CREATE, 0o600)
    try:
        try:
            with contextlib.suppress(OSError):  # root, who logs in for somebody else
                before = real.stat()
                os.fchown(descriptor, before.st_uid, before.st_gid)
            rest = memoryview(content)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        draft.replace(real)
    except BaseException:  # raised again: no draft with a password is left behind
        with contextlib.suppress(OSError):
            draft.unlink()
        raise


def _up_to(descriptor: int, most: int) -> bytes:
    pieces = []
    while most > 0 and (piece := os.read(descriptor, most)):
        pieces.append(piece)
        most -= len(piece)
    return b"".join(pieces)


def _acquire(directory: int, path: Path) -> None:
    if not lock(directory, _LOCK_WAIT):
        raise StoreError(
            f"cannot write the login to {shown(str(path))}: its directory is locked",
            remedy="end the other login that is under way",
        )
