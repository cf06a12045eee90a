"""Builds a tar archive in a temporary file and renames it when complete."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

from concil.config import MIB
from concil.errors import StoreError, UsageError, safe_repr
from concil.fs.file_lock import create_temporary, remove_stale
from concil.fs.local_file import FileBlobReader, disk_error
from concil.fs.path_lock import PathLock
from concil.runtime.dataclass import dataclass
from concil.runtime.forking import detach_file_in_child

StatSignature = tuple[int, int, int]  # inode, size and time
_BLOCK_SIZE = tarfile.BLOCKSIZE
_SUFFIX = ".new"  # of the temporary file


@dataclass(eq=False, slots=True)
class Region:
    """Position of one member in the archive."""

    header_offset: int  # of its header
    data_offset: int  # of its first byte
    size: int  # bytes
    is_complete: bool = False  # all bytes are written; `commit` leaves out incomplete members

    @property
    def end_offset(self) -> int:
        """Offset of the next member."""
        return self.data_offset + -(-self.size // _BLOCK_SIZE) * _BLOCK_SIZE


class TarBuilder:
    """A growing archive. Any thread may call any method, until `commit` or `abort`.

    Each member gets its position when it is reserved, so several members can grow in parallel.
    Workers of a failed image may still write at the end; they then get an error, and their
    bytes never reach the committed archive.
    The temporary file of a killed process is removed by the next builder for the same archive.
    """

    def __init__(self, path: Path) -> None:
        """Create the temporary file of the archive at ``path``.

        Raises:
            StoreError: the directory is not writable.
        """
        self.final_path = Path(os.path.realpath(path))  # follows a symbolic link
        remove_stale_files(self.final_path)
        try:
            self._fd, self._temporary_path = create_temporary(self.final_path, _SUFFIX)
        except OSError as error:
            raise disk_error("cannot write", self.final_path, error) from error
        self._lock = threading.Condition()  # guards the fields below
        self._user_count = 0  # threads that are reading or writing
        self._is_closed = False
        self._size = 0  # bytes
        self._regions: list[Region] = []

    def reserve(self, name: str, size: int, *, type_flag: bytes = tarfile.REGTYPE) -> Region:
        """Write the header of a member and reserve space for its content.

        Raises:
            StoreError: the disk is full or the write fails.
        """
        header = tarfile.TarInfo(name)
        header.size, header.type = size, type_flag
        header.mode = 0o755 if type_flag == tarfile.DIRTYPE else 0o644
        # The GNU format can store sizes above 8 GiB in the header itself.
        block = header.tobuf(tarfile.GNU_FORMAT)
        with self._lock:
            region = Region(self._size, self._size + len(block), size)
            self._size = region.end_offset
            self._regions.append(region)
        self._write(region.header_offset, block)
        return region

    def write_at(self, region: Region, offset: int, data: bytes | memoryview) -> None:
        """Write bytes of a member.

        Raises:
            StoreError: the disk is full or the write fails.
        """
        self._write(region.data_offset + offset, data)

    def add_file(self, name: str, content: bytes) -> Region:
        """Write a small member. Raises as `write_at`."""
        region = self.reserve(name, len(content))
        self._write(region.data_offset, content)
        region.is_complete = True
        return region

    def add_directory(self, name: str) -> None:
        """Add a directory: some tools do not create missing directories when they unpack."""
        self.reserve(name, 0, type_flag=tarfile.DIRTYPE).is_complete = True

    def open_region(self, region: Region) -> FileBlobReader:
        """Open a complete member; the caller closes it."""
        with self._borrow_fd() as fd:
            descriptor = os.dup(fd)
            detach_file_in_child(descriptor)  # it shares the lock of the temporary file
        return FileBlobReader(
            descriptor, self.final_path, section=(region.data_offset, region.size)
        )

    def commit(self) -> None:
        """Leave out incomplete members, sync, and rename the archive to its final path.

        Raises:
            StoreError: the disk is full or the write fails; the existing file is unchanged.
        """
        self._wait_for_users()
        try:
            end = self._compact()
            # A tar archive ends with two blocks of zeros and is padded to a full record.
            records = -(-(end + 2 * _BLOCK_SIZE) // tarfile.RECORDSIZE)
            os.ftruncate(self._fd, records * tarfile.RECORDSIZE)
            os.fsync(self._fd)
            self._temporary_path.replace(self.final_path)
            directory = os.open(self.final_path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        except OSError as error:
            with contextlib.suppress(OSError):
                self._temporary_path.unlink()
            raise disk_error("cannot write", self.final_path, error) from error
        finally:
            os.close(self._fd)

    def abort(self) -> None:
        """Delete the temporary file."""
        self._wait_for_users()
        with contextlib.suppress(OSError):
            self._temporary_path.unlink()
        os.close(self._fd)

    @contextlib.contextmanager
    def _borrow_fd(self) -> Iterator[int]:
        """Yield the descriptor; meanwhile it is not closed and no member is moved."""
        with self._lock:
            if self._is_closed:
                raise StoreError(f"archive {safe_repr(str(self.final_path))} is closed")
            self._user_count += 1
        try:
            yield self._fd
        except OSError as error:
            raise disk_error("cannot write", self.final_path, error) from error
        finally:
            with self._lock:
                self._user_count -= 1
                self._lock.notify_all()

    def _wait_for_users(self) -> None:
        """Reject new readers and writers and wait for the current ones, at most one block each."""
        with self._lock:
            self._is_closed = True
            self._lock.wait_for(lambda: not self._user_count)

    def _compact(self) -> int:
        """Move complete members over the gaps of incomplete ones; return the end offset."""
        end = 0
        os.ftruncate(self._fd, self._size)  # adds the padding of the last member
        for region in self._regions:
            if not region.is_complete:
                continue
            if region.header_offset > end:
                self._move_bytes(region.header_offset, region.end_offset, end)
            end += region.end_offset - region.header_offset
        # Otherwise leftover bytes after the end would appear in the padding.
        os.ftruncate(self._fd, end)
        return end

    def _move_bytes(self, start: int, stop: int, to: int) -> None:
        for position in range(start, stop, MIB):
            piece = os.pread(self._fd, min(MIB, stop - position), position)
            _write_all(self._fd, to + position - start, piece)

    def _write(self, offset: int, data: bytes | memoryview) -> None:
        with self._borrow_fd() as descriptor:
            _write_all(descriptor, offset, data)


def _write_all(fd: int, offset: int, data: bytes | memoryview) -> None:
    rest = memoryview(data)
    while rest:
        written = os.pwrite(fd, rest, offset)
        rest, offset = rest[written:], offset + written


def remove_stale_files(final_path: Path) -> None:
    """Remove the temporary files and the lock file that killed processes left beside an archive."""
    remove_stale(final_path, rf"[0-9a-f]{{16}}{re.escape(_SUFFIX)}")
    PathLock(final_path).remove_stale()


def check_writable(path: Path) -> None:
    """Check that an archive can be written to a path, before anything is fetched for it.

    Raises:
        UsageError: the path is not a regular file, or its directory is missing.
    """
    name = safe_repr(str(path))
    try:
        mode: int | None = path.stat().st_mode
    except FileNotFoundError:
        mode = None
    except (OSError, ValueError) as error:
        cause = error.strerror if isinstance(error, OSError) else "not a valid path"
        raise UsageError(f"cannot write {name}: {cause}", remedy="choose another file") from error
    if mode is not None and not stat.S_ISREG(mode):
        kind = "a directory" if stat.S_ISDIR(mode) else "not a regular file"
        raise UsageError(f"{name} is {kind}", remedy="give the path of the archive file")
    if not Path(os.path.realpath(path)).parent.is_dir():
        raise UsageError(f"the directory of {name} does not exist", remedy="create it first")


def stat_signature(path: Path) -> StatSignature | None:
    """Return inode, size and time of a file, to detect changes; None if there is no file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def is_changed(path: Path, signature: StatSignature | None) -> bool:
    """Return whether an archive has changed since ``signature`` was taken; None for no file."""
    return stat_signature(path) != signature


def concurrent_write_error(path: Path, remedy: str) -> StoreError:
    """Return the error for an archive that was written by a program that takes no locks."""
    return StoreError(
        f"archive {safe_repr(str(path))} was replaced by another program", remedy=remedy
    )
