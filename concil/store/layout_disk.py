"""Files below a layout's directory, reached without following any link.

The directory itself may be reached through a link, because its owner named it;
everything below it may have come from a stranger in an archive.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

from concil.config import MIB
from concil.errors import InvalidManifest, NotFound, StoreError, shown
from concil.fs.file_lock import lock
from concil.store.files import disk_error

OWN = ".concil"  # what concil keeps in a layout beside the specification's files
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: opening a pipe would otherwise wait for somebody to write to it.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_LOCK = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
_LOCK_WAIT = 60.0  # seconds; a change of the index takes milliseconds


State = tuple[int, ...]  # inode, size and times: what tells two states of a file apart


class Tree:
    """A directory and the names below it, as in ``blobs/sha256/<hex>``.

    Any thread and any process may call any method at any time.
    """

    def __init__(self, root: Path) -> None:
        """Name the directory; nothing is opened."""
        self.root = root

    def make(self, directory: str) -> None:
        """Make a directory below the root, with what is missing above it.

        Raises:
            StoreError: the disk refuses, or a link or a file is in the way.
        """
        try:
            with self._inside(directory, create=True):
                pass
        except OSError as error:
            raise disk_error("cannot make", self.root / directory, error) from error

    def size(self, name: str) -> int | None:
        """Bytes of a regular file; None for anything else. Raises as `state`."""
        found = self._look(name)
        return found.st_size if found and stat.S_ISREG(found.st_mode) else None

    def state(self, name: str) -> State | None:
        """Return what tells this state of a file from another; None if there is no file.

        Raises:
            StoreError: a directory on the way is a link or cannot be read.
        """
        found = self._look(name)
        return _state(found) if found else None

    def open(self, name: str) -> int:
        """Open a regular file for reading; the caller closes the descriptor.

        Raises:
            NotFound: there is nothing of that name.
            StoreError: it is a link, a directory, a pipe; or the disk refuses.
        """
        directory, _, leaf = name.rpartition("/")
        path = self.root / name
        try:
            with self._inside(directory) as inside:
                descriptor = os.open(leaf, _READ, dir_fd=inside)
        except FileNotFoundError as error:
            raise NotFound(
                f"there is no {shown(str(path))}",
                remedy="if the index names it, write the layout again from its source",
            ) from error
        except OSError as error:
            raise disk_error("cannot open", path, error) from error
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise StoreError(
                f"{shown(str(path))} is not a regular file",
                remedy="a layout holds regular files only; put the real file there",
            )
        return descriptor

    def read(self, name: str, limit: int) -> tuple[bytes, State]:
        """Read a whole small file.

        Returns:
            Its bytes, and its `state`.

        Raises:
            InvalidManifest: it has more than ``limit`` bytes.
            NotFound, StoreError: as `open`.
        """
        path = self.root / name
        descriptor = self.open(name)
        try:
            found = os.fstat(descriptor)
            content = _read_up_to(descriptor, limit + 1) if found.st_size <= limit else b""
        except OSError as error:
            raise disk_error("cannot read", path, error) from error
        finally:
            os.close(descriptor)
        if max(found.st_size, len(content)) > limit:
            raise InvalidManifest(
                f"{shown(str(path))} is larger than {limit} bytes",
                remedy="no registry would take this; check where the layout comes from",
            )
        return content, _state(found)

    def replace(self, name: str, content: bytes) -> State:
        """Write a whole file at once: whoever looks sees the old one or the new one.

        Returns:
            The `state` of the new one.

        Raises:
            StoreError: the disk refuses; what was there before is still there.
        """
        directory, _, leaf = name.rpartition("/")
        draft = f"{secrets.token_hex(8)}.new"
        try:
            with self._inside(OWN, create=True) as own, _new_file(draft, own) as file:
                _write(file, content)
                with self._inside(directory, create=True) as inside:
                    os.replace(draft, leaf, src_dir_fd=own, dst_dir_fd=inside)
                    os.fsync(inside)
                return _state(os.fstat(file))
        except OSError as error:
            raise disk_error("cannot write", self.root / name, error) from error

    def remove(self, name: str) -> bool:
        """Remove a file, or the link in its place; False if there is none.

        Raises:
            StoreError: the disk refuses.
        """
        directory, _, leaf = name.rpartition("/")
        try:
            with self._inside(directory) as inside:
                os.unlink(leaf, dir_fd=inside)
                os.fsync(inside)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise disk_error("cannot remove", self.root / name, error) from error
        return True

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep every other thread and process out of `locked` on this directory.

        The lock is held over disk writes on purpose: it guards a file, not memory.

        Raises:
            StoreError: somebody else held it for a minute, or the disk refuses.
        """
        path = self.root / OWN / "lock"
        try:
            with self._inside(OWN, create=True) as own:
                descriptor = os.open("lock", _LOCK, 0o666, dir_fd=own)
        except OSError as error:
            raise disk_error("cannot lock", path, error) from error
        try:
            # Each open file has its own flock, so it keeps out threads as well as processes.
            _acquire(descriptor, path)
            yield
        finally:
            os.close(descriptor)

    def _look(self, name: str) -> os.stat_result | None:
        directory, _, leaf = name.rpartition("/")
        try:
            with self._inside(directory) as inside:
                return os.stat(leaf, dir_fd=inside, follow_symlinks=False)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise disk_error("cannot look at", self.root / name, error) from error

    @contextlib.contextmanager
    def _inside(self, directory: str, *, create: bool = False) -> Iterator[int]:
        """Open a directory below the root, "" for the root, one part after the other."""
        here = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for part in filter(None, directory.split("/")):
                if create:
                    _make_directory(part, here)
                below = os.open(part, _DIRECTORY, dir_fd=here)
                os.close(here)
                here = below
            yield here
        finally:
            os.close(here)


def _state(found: os.stat_result) -> State:
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _make_directory(name: str, inside: int) -> None:
    try:
        os.mkdir(name, dir_fd=inside)
    except FileExistsError:
        return
    os.fsync(inside)


@contextlib.contextmanager
def _new_file(name: str, inside: int) -> Iterator[int]:
    """Open a new file; after an error it is removed."""
    descriptor = os.open(name, _CREATE, 0o666, dir_fd=inside)
    try:
        yield descriptor
    except BaseException:  # also on Ctrl-C no draft is left behind
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=inside)
        raise
    finally:
        os.close(descriptor)


def _write(descriptor: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
    os.fsync(descriptor)


def _read_up_to(descriptor: int, most: int) -> bytes:
    pieces = []
    while most > 0 and (piece := os.read(descriptor, min(most, MIB))):
        pieces.append(piece)
        most -= len(piece)
    return b"".join(pieces)


def _acquire(descriptor: int, path: Path) -> None:
    try:
        is_locked = lock(descriptor, _LOCK_WAIT)
    except OSError as error:
        raise disk_error("cannot lock", path, error) from error
    if not is_locked:
        raise StoreError(
            f"cannot lock {shown(str(path))}: somebody held it for {_LOCK_WAIT:.0f} s",
            remedy="end the other process that works on this layout, then run it again",
        )
