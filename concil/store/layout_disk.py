"""Files below a layout's directory, reached without following any link.

The directory itself may be reached through a link, because its owner named it;
everything below it may have come from a stranger in an archive.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from concil.config import MIB
from concil.errors import InvalidManifest, NotFound, StoreError, shown
from concil.fs.file_lock import lock
from concil.store.files import disk_error
from concil.store.layout_temporary import remove_unlocked, temporary_file, write_all

OWN = ".concil"  # what concil keeps in a layout beside the specification's files
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: opening a pipe would otherwise wait for somebody to write to it.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_LOCK = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
_TEMPORARY = re.compile(r"[0-9a-f]{16}\.new")
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
            raise self._refusal("cannot make", f"{directory}/", error) from error

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
            raise self._refusal("cannot open", name, error) from error
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISREG(mode):
            return descriptor
        os.close(descriptor)
        raise _wrong_kind(path, mode)

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
        try:
            with self._inside(OWN, create=True) as own, temporary_file(own) as (file, draft):
                write_all(file, content)
                with self._inside(directory, create=True) as inside:
                    os.replace(draft, leaf, src_dir_fd=own, dst_dir_fd=inside)
                    os.fsync(inside)
                return _state(os.fstat(file))
        except OSError as error:
            raise self._refusal("cannot write", name, error) from error

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
            raise self._refusal("cannot remove", name, error) from error
        return True

    def remove_stale(self) -> None:
        """Remove the temporary files of killed processes; those of living ones stay."""
        with contextlib.suppress(OSError), self._inside(OWN) as own:
            for name in filter(_TEMPORARY.fullmatch, self.names(OWN)):
                with contextlib.suppress(OSError):  # among them: somebody holds it
                    remove_unlocked(name, own)

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
            raise self._refusal("cannot lock", f"{OWN}/lock", error) from error
        try:
            # Each open file has its own flock, so it keeps out threads as well as processes.
            _acquire(descriptor, path)
            yield
        finally:
            os.close(descriptor)

    def names(self, directory: str) -> list[str]:
        """What is in a directory below the root; nothing where it cannot be read."""
        try:
            with self._inside(directory) as inside, os.scandir(inside) as entries:
                return [entry.name for entry in entries]
        except OSError:
            return []

    @contextlib.contextmanager
    def inside(self, directory: str, action: str) -> Iterator[int]:
        """Open a directory below the root, and make it if it is missing.

        Args:
            action: what is done there, for the message.
        Raises:
            StoreError: the disk refuses, there or within the block.
        """
        try:
            with self._inside(directory, create=True) as inside:
                yield inside
        except OSError as error:
            raise self._refusal(action, f"{directory}/", error) from error

    def _look(self, name: str) -> os.stat_result | None:
        directory, _, leaf = name.rpartition("/")
        try:
            with self._inside(directory) as inside:
                return os.stat(leaf, dir_fd=inside, follow_symlinks=False)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._refusal("cannot look at", name, error) from error

    def _refusal(self, action: str, name: str, error: OSError) -> StoreError:
        """Return the error for what the system refused; a link on the way is called one."""
        *directories, leaf = name.split("/")
        place = self.root
        with contextlib.suppress(OSError):
            for part in directories:
                place /= part
                mode = place.lstat().st_mode
                if not stat.S_ISDIR(mode):
                    return _wrong_kind(place, mode, is_directory=True)
            mode = (place / leaf).lstat().st_mode
            if leaf and not stat.S_ISREG(mode):
                return _wrong_kind(place / leaf, mode)
        return disk_error(action, self.root / name, error)

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


_KINDS = (
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISREG, "a regular file"),
)


def _wrong_kind(path: Path, mode: int, *, is_directory: bool = False) -> StoreError:
    """Return the error for what is in the place of a regular file or of a directory."""
    kind = next((name for is_kind, name in _KINDS if is_kind(mode)), "a device")
    wanted = "directory" if is_directory else "regular file"
    remedy = f"put the real {wanted} there"
    if stat.S_ISLNK(mode):
        remedy = "copy the layout with `cp -rL`, which copies what links lead to"
    return StoreError(f"{shown(str(path))} is {kind}, not a {wanted}", remedy=remedy)


def _state(found: os.stat_result) -> State:
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _make_directory(name: str, inside: int) -> None:
    try:
        os.mkdir(name, dir_fd=inside)
    except FileExistsError:
        return
    os.fsync(inside)


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
