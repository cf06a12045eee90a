"""Opens, creates and replaces files below a directory without following links.

The directory itself may be reached through a symbolic link, because its owner chose the path.
Everything below it may come from an untrusted archive.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from concil.config import MIB
from concil.errors import InvalidManifest, NotFound, StoreError, safe_repr
from concil.fs.file_lock import lock
from concil.fs.local_file import disk_error
from concil.fs.temporary_file import remove_unlocked, temporary_file, write_all

PRIVATE_DIRECTORY = ".concil"  # concil's own files in a layout
_DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: opening a pipe would otherwise wait for a writer.
_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_LOCK_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
_TEMPORARY = re.compile(r"[0-9a-f]{16}\.new")
_LOCK_TIMEOUT = 60.0  # seconds; a change of the index takes milliseconds


StatSignature = tuple[int, ...]  # inode, size and times: to detect changes of a file


class NoFollowTree:
    """A directory and the names below it, as in ``blobs/sha256/<hex>``.

    Any thread and any process may call any method at any time.
    """

    def __init__(self, root: Path) -> None:
        """Set the root directory; nothing is opened."""
        self.root = root

    def make_directory(self, directory: str) -> None:
        """Create a directory below the root, including its parents.

        Raises:
            StoreError: it cannot be created, or a link or a file is in the way.
        """
        try:
            with self._open_directory(directory, create=True):
                pass
        except OSError as error:
            raise self._refusal("cannot create", f"{directory}/", error) from error

    def file_size(self, name: str) -> int | None:
        """Return the size of a regular file, None for anything else. Raises as `stat_signature`."""
        status = self._stat(name)
        return status.st_size if status and stat.S_ISREG(status.st_mode) else None

    def stat_signature(self, name: str) -> StatSignature | None:
        """Return inode, size and times of a file, to detect changes; None if it is missing.

        Raises:
            StoreError: a parent directory is a link or cannot be read.
        """
        status = self._stat(name)
        return _stat_signature(status) if status else None

    def mode(self, name: str) -> int | None:
        """Return type and mode of a name, as in ``st_mode``; None if it is missing.

        Raises:
            StoreError: a parent directory is a link or a file, or cannot be read.
        """
        status = self._stat(name)
        return status.st_mode if status else None

    def open(self, name: str) -> int:
        """Open a regular file for reading; the caller closes the descriptor.

        Raises:
            NotFound: the file is missing.
            StoreError: it is a link, a directory or a pipe, or cannot be opened.
        """
        directory, _, leaf = name.rpartition("/")
        path = self.root / name
        try:
            with self._open_directory(directory) as dir_fd:
                descriptor = os.open(leaf, _READ_FLAGS, dir_fd=dir_fd)
        except FileNotFoundError as error:
            raise NotFound(
                f"{safe_repr(str(path))} does not exist",
                remedy="if the index names it, write the layout again from its source",
            ) from error
        except OSError as error:
            raise self._refusal("cannot open", name, error) from error
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISREG(mode):
            return descriptor
        os.close(descriptor)
        raise _wrong_kind(path, mode)

    def read(self, name: str, limit: int) -> tuple[bytes, StatSignature]:
        """Read a small file completely.

        Returns:
            Its bytes, and its `stat_signature`.

        Raises:
            InvalidManifest: it has more than ``limit`` bytes.
            NotFound, StoreError: as `open`.
        """
        path = self.root / name
        descriptor = self.open(name)
        try:
            status = os.fstat(descriptor)
            content = _read_up_to(descriptor, limit + 1) if status.st_size <= limit else b""
        except OSError as error:
            raise disk_error("cannot read", path, error) from error
        finally:
            os.close(descriptor)
        if max(status.st_size, len(content)) > limit:
            raise InvalidManifest(
                f"{safe_repr(str(path))} is larger than {limit} bytes",
                remedy="registries refuse content of this size; check where the layout comes from",
            )
        return content, _stat_signature(status)

    def replace(self, name: str, content: bytes) -> StatSignature:
        """Replace a file atomically: readers see either the old or the new content.

        Returns:
            The `stat_signature` of the new file.

        Raises:
            StoreError: the write fails; the existing file is unchanged.
        """
        directory, _, leaf = name.rpartition("/")
        try:
            with (
                self._open_directory(PRIVATE_DIRECTORY, create=True) as private_fd,
                temporary_file(private_fd) as (file, temporary_name),
            ):
                write_all(file, content)
                with self._open_directory(directory, create=True) as dir_fd:
                    os.replace(temporary_name, leaf, src_dir_fd=private_fd, dst_dir_fd=dir_fd)
                    os.fsync(dir_fd)
                return _stat_signature(os.fstat(file))
        except OSError as error:
            raise self._refusal("cannot write", name, error) from error

    def remove(self, name: str) -> bool:
        """Remove a file, or a link with that name; return False if there is none.

        Raises:
            StoreError: it cannot be removed.
        """
        directory, _, leaf = name.rpartition("/")
        try:
            with self._open_directory(directory) as dir_fd:
                os.unlink(leaf, dir_fd=dir_fd)
                os.fsync(dir_fd)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise self._refusal("cannot remove", name, error) from error
        return True

    def remove_all(self, directory: str, names: Iterable[str]) -> None:
        """Remove files of one directory; those that are missing are skipped.

        Raises:
            StoreError: one cannot be removed; those before it are gone.
        """
        name = ""
        try:
            with self._open_directory(directory) as dir_fd:
                for name in names:
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(name, dir_fd=dir_fd)
                os.fsync(dir_fd)
        except OSError as error:
            raise self._refusal("cannot remove", f"{directory}/{name}", error) from error

    def remove_stale(self) -> None:
        """Remove the temporary files of killed processes, but not those still in use."""
        with contextlib.suppress(OSError), self._open_directory(PRIVATE_DIRECTORY) as dir_fd:
            for name in filter(_TEMPORARY.fullmatch, self.names(PRIVATE_DIRECTORY)):
                with contextlib.suppress(OSError):  # errors include that of a file still in use
                    remove_unlocked(name, dir_fd)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold an exclusive lock on this directory, against other threads and processes.

        The lock is held over disk writes on purpose: it guards a file, not memory.

        Raises:
            StoreError: the lock was not free within a minute, or the lock file cannot be created.
        """
        path = self.root / PRIVATE_DIRECTORY / "lock"
        try:
            with self._open_directory(PRIVATE_DIRECTORY, create=True) as dir_fd:
                descriptor = os.open("lock", _LOCK_FLAGS, 0o666, dir_fd=dir_fd)
        except OSError as error:
            raise self._refusal("cannot lock", f"{PRIVATE_DIRECTORY}/lock", error) from error
        try:
            # Each open file has its own flock, so it excludes threads as well as processes.
            _acquire_lock(descriptor, path)
            yield
        finally:
            os.close(descriptor)

    def names(self, directory: str) -> list[str]:
        """Return the names in a directory below the root; empty if it cannot be read."""
        try:
            with self._open_directory(directory) as dir_fd, os.scandir(dir_fd) as entries:
                return [entry.name for entry in entries]
        except OSError:
            return []

    @contextlib.contextmanager
    def inside(self, directory: str, action: str) -> Iterator[int]:
        """Open a directory below the root, creating it if it is missing.

        Args:
            action: what the block does, for the error message.
        Raises:
            StoreError: the directory cannot be opened, or the block raises an OSError.
        """
        try:
            with self._open_directory(directory, create=True) as dir_fd:
                yield dir_fd
        except OSError as error:
            raise self._refusal(action, f"{directory}/", error) from error

    def _stat(self, name: str) -> os.stat_result | None:
        directory, _, leaf = name.rpartition("/")
        try:
            with self._open_directory(directory) as dir_fd:
                return os.stat(leaf, dir_fd=dir_fd, follow_symlinks=False)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._refusal("cannot check", name, error) from error

    def _refusal(self, action: str, name: str, error: OSError) -> StoreError:
        """Return the error for a failed system call; a link in the path is named as the cause."""
        *directories, leaf = name.split("/")
        path = self.root
        with contextlib.suppress(OSError):
            for part in directories:
                path /= part
                mode = path.lstat().st_mode
                if not stat.S_ISDIR(mode):
                    return _wrong_kind(path, mode, is_directory=True)
            mode = (path / leaf).lstat().st_mode
            if leaf and not stat.S_ISREG(mode):
                return _wrong_kind(path / leaf, mode)
        return disk_error(action, self.root / name, error)

    @contextlib.contextmanager
    def _open_directory(self, directory: str, *, create: bool = False) -> Iterator[int]:
        """Open a directory below the root component by component; "" is the root."""
        dir_fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for part in filter(None, directory.split("/")):
                if create:
                    _create_directory(part, dir_fd)
                child_fd = os.open(part, _DIRECTORY_FLAGS, dir_fd=dir_fd)
                os.close(dir_fd)
                dir_fd = child_fd
            yield dir_fd
        finally:
            os.close(dir_fd)


_KINDS = (
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISREG, "a regular file"),
)


def _wrong_kind(path: Path, mode: int, *, is_directory: bool = False) -> StoreError:
    """Return the error for a file that has the wrong type."""
    kind = next((name for is_kind, name in _KINDS if is_kind(mode)), "a device")
    expected = "directory" if is_directory else "regular file"
    remedy = f"replace it with a {expected}"
    if stat.S_ISLNK(mode):
        remedy = "copy the layout with `cp -rL`, which copies the targets of links"
    return StoreError(f"{safe_repr(str(path))} is {kind}, not a {expected}", remedy=remedy)


def _stat_signature(found: os.stat_result) -> StatSignature:
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _create_directory(name: str, dir_fd: int) -> None:
    try:
        os.mkdir(name, dir_fd=dir_fd)
    except FileExistsError:
        return
    os.fsync(dir_fd)


def _read_up_to(fd: int, limit: int) -> bytes:
    pieces = []
    while limit > 0 and (piece := os.read(fd, min(limit, MIB))):
        pieces.append(piece)
        limit -= len(piece)
    return b"".join(pieces)


def _acquire_lock(fd: int, path: Path) -> None:
    try:
        is_locked = lock(fd, _LOCK_TIMEOUT)
    except OSError as error:
        raise disk_error("cannot lock", path, error) from error
    if not is_locked:
        raise StoreError(
            f"cannot lock {safe_repr(str(path))}: another process held it for "
            f"{_LOCK_TIMEOUT:.0f} s",
            remedy="end the other process that uses this layout, then try again",
        )
