"""Files of logins on disk: read with a limit, replaced whole, by one writer at a time."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

from concil.config import MIB
from concil.errors import AccessDenied, StoreError, shown
from concil.fs.file_lock import create_temporary, lock, remove_stale
from concil.registry.auth_file import AuthFile

_LIMIT = MIB  # bytes; a login has some hundred
_LOCK_WAIT = 10.0  # seconds; a writer needs milliseconds
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC  # a pipe without a writer would hang
_TEMPORARY = "[0-9a-f]{16}"  # behind the name of the file
_MOST_TRIES = 50
_State = tuple[int, ...]
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


def change(path: Path, changed: Callable[[AuthFile], bytes], *, create: bool = True) -> None:
    """Change a file of logins, whoever else changes it at the same time.

    Writers of concil wait for each other. docker, podman and skopeo take no lock: each puts a
    new file in the place of the old one. So the file is looked at once more when the new one
    is ready, and if it is not what was read, it is read again.

    A link is not replaced but what it leads to, for people keep such files elsewhere.
    Missing directories are made, for the user alone.

    Args:
        changed: returns the content of the new file; may be called several times.
        create: make the file if it is not there.
    Raises:
        AccessDenied: what is there cannot be read; nothing has changed.
        StoreError: it cannot be written there.
    """
    try:
        real = Path(os.path.realpath(path))
        real.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory = os.open(real.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _acquire(directory, path)
            remove_stale(real, _TEMPORARY)
            for _ in range(_MOST_TRIES):
                before = _state(real)
                file = read(real)
                if file is None and not create:
                    return
                if _replace(real, changed(file or AuthFile.parse(b"", str(path))), before):
                    return
        finally:
            os.close(directory)
    except (OSError, ValueError) as error:
        cause = getattr(error, "strerror", None) or "not a file name"
        raise StoreError(
            f"cannot write the login to {shown(str(path))}: {cause}",
            remedy="make its directory writable, or name another file with authfile=",
        ) from error
    raise StoreError(
        f"cannot write the login to {shown(str(path))}: others write to it all the time",
        remedy="run it again when they have ended",
    )


def _replace(real: Path, content: bytes, before: _State | None) -> bool:
    """Put a file in the place of another at once; nobody but its owner may read it.

    Args:
        before: the state of the other.
    Returns:
        False if it is in another state; then nothing has changed.
    Raises:
        OSError: nothing has changed.
    """
    descriptor, temporary = create_temporary(real, mode=0o600)
    try:
        with contextlib.suppress(OSError):  # root, who logs in for somebody else
            owner = real.stat()
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
        is_unchanged = _state(real) == before
        if is_unchanged:
            temporary.replace(real)
    except BaseException:  # raised again: no file with a password is left behind
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    finally:
        os.close(descriptor)
    if not is_unchanged:
        temporary.unlink()
    return is_unchanged


def _state(path: Path) -> _State | None:
    """Return what tells one file of a name from the next; None: there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


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
