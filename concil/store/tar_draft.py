"""A tar archive that grows beside its place, and appears there when it is whole."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from concil.config import MIB
from concil.errors import StoreError, UsageError, shown
from concil.forking import keep_file_from_children
from concil.fs.file_lock import create_temporary, remove_stale
from concil.fs.path_lock import PathLock
from concil.store.files import FileBlob, disk_error

State = tuple[int, int, int]  # inode, size and time
_BLOCK = tarfile.BLOCKSIZE
_ENDING = ".new"  # of the name of a draft


@dataclass(eq=False, slots=True)
class Region:
    """The place of one member in a draft."""

    start: int  # of its header
    body: int  # of its first byte
    size: int  # bytes
    whole: bool = False  # every byte is there; what is not is left out in the end

    @property
    def stop(self) -> int:
        """Where the next member begins."""
        return self.body + -(-self.size // _BLOCK) * _BLOCK


class Draft:
    """A growing archive. Any thread may call any method, until `commit` or `discard`.

    Each member has its place from the beginning, so that several grow at the same time.
    Blobs of an image that failed may still be under way at the end: what they write then
    is an error of theirs, and never lands in what the archive has become.
    A draft that a killed process left is removed by the next one for the same archive.
    """

    def __init__(self, path: Path) -> None:
        """Begin a draft of the archive at ``path``.

        Raises:
            StoreError: the directory does not take it.
        """
        self.final = Path(os.path.realpath(path))  # a link stays, and leads to the new archive
        sweep(self.final)
        try:
            self._descriptor, self._growing = create_temporary(self.final, _ENDING)
        except OSError as error:
            raise disk_error("cannot write", self.final, error) from error
        self._lock = threading.Condition()  # guards the fields below
        self._users = 0  # threads that read or write at this moment
        self._over = False
        self._end = 0  # bytes
        self._regions: list[Region] = []

    def reserve(self, name: str, size: int, *, kind: bytes = tarfile.REGTYPE) -> Region:
        """Give a member its place.

        Raises:
            StoreError: the disk is full or refuses.
        """
        header = tarfile.TarInfo(name)
        header.size, header.type = size, kind
        header.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
        # Of the formats the one that has sizes above 8 GiB in the header itself.
        block = header.tobuf(tarfile.GNU_FORMAT)
        with self._lock:
            region = Region(self._end, self._end + len(block), size)
            self._end = region.stop
            self._regions.append(region)
        self._put(region.start, block)
        return region

    def write_at(self, region: Region, offset: int, piece: bytes | memoryview) -> None:
        """Write bytes of a member.

        Raises:
            StoreError: the disk is full or refuses.
        """
        self._put(region.body + offset, piece)

    def add(self, name: str, content: bytes) -> Region:
        """Write a small member at once. Raises as `write_at`."""
        region = self.reserve(name, len(content))
        self._put(region.body, content)
        region.whole = True
        return region

    def add_directory(self, name: str) -> None:
        """Write a directory: some that unpack an archive make none on their own."""
        self.reserve(name, 0, kind=tarfile.DIRTYPE).whole = True

    def open(self, region: Region) -> FileBlob:
        """Open a member that is whole; the caller closes it."""
        with self._used() as own:
            descriptor = os.dup(own)
            keep_file_from_children(descriptor)  # it has the draft's lock, too
        return FileBlob(descriptor, self.final, inside=(region.body, region.size))

    def commit(self) -> None:
        """Leave out what is not whole, sync, and let the archive appear.

        Raises:
            StoreError: the disk is full or refuses; what was there before is still there.
        """
        self._end_use()
        try:
            end = self._close_gaps()
            # Tar ends in two blocks of zeros, and fills its last record.
            records = -(-(end + 2 * _BLOCK) // tarfile.RECORDSIZE)
            os.ftruncate(self._descriptor, records * tarfile.RECORDSIZE)
            os.fsync(self._descriptor)
            self._growing.replace(self.final)
            directory = os.open(self.final.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        except OSError as error:
            with contextlib.suppress(OSError):
                self._growing.unlink()
            raise disk_error("cannot write", self.final, error) from error
        finally:
            os.close(self._descriptor)

    def discard(self) -> None:
        """Throw it away."""
        self._end_use()
        with contextlib.suppress(OSError):
            self._growing.unlink()
        os.close(self._descriptor)

    @contextlib.contextmanager
    def _used(self) -> Iterator[int]:
        """Lend the descriptor: it is not closed, and nothing is moved, meanwhile."""
        with self._lock:
            if self._over:
                raise StoreError(f"archive {shown(str(self.final))} is closed")
            self._users += 1
        try:
            yield self._descriptor
        except OSError as error:
            raise disk_error("cannot write", self.final, error) from error
        finally:
            with self._lock:
                self._users -= 1
                self._lock.notify_all()

    def _end_use(self) -> None:
        """Let nobody read or write any more; who does has at most a block under way."""
        with self._lock:
            self._over = True
            self._lock.wait_for(lambda: not self._users)

    def _close_gaps(self) -> int:
        """Move members towards the front over those that are not whole; return the end."""
        end = 0
        os.ftruncate(self._descriptor, self._end)  # so that the padding of the last one is there
        for region in self._regions:
            if not region.whole:
                continue
            if region.start > end:
                self._move(region.start, region.stop, end)
            end += region.stop - region.start
        # What stands behind the end would show in what the archive is filled up with.
        os.ftruncate(self._descriptor, end)
        return end

    def _move(self, start: int, stop: int, to: int) -> None:
        for at in range(start, stop, MIB):
            piece = os.pread(self._descriptor, min(MIB, stop - at), at)
            _write_at(self._descriptor, to + at - start, piece)

    def _put(self, offset: int, piece: bytes | memoryview) -> None:
        with self._used() as descriptor:
            _write_at(descriptor, offset, piece)


def _write_at(descriptor: int, offset: int, piece: bytes | memoryview) -> None:
    rest = memoryview(piece)
    while rest:
        written = os.pwrite(descriptor, rest, offset)
        rest, offset = rest[written:], offset + written


def sweep(final: Path) -> None:
    """Remove what killed processes left beside an archive: drafts, and its lock file."""
    remove_stale(final, rf"[0-9a-f]{{16}}{re.escape(_ENDING)}")
    PathLock(final).remove_stale()


def check_place(path: Path) -> None:
    """See that an archive can be written to a place, before anything is fetched for it.

    Raises:
        UsageError: there is something that is no regular file, or no directory for it.
    """
    name = shown(str(path))
    try:
        found: int | None = path.stat().st_mode
    except FileNotFoundError:
        found = None
    except (OSError, ValueError) as error:
        cause = error.strerror if isinstance(error, OSError) else "not a path"
        raise UsageError(f"cannot write {name}: {cause}", remedy="name another file") from error
    if found is not None and not stat.S_ISREG(found):
        kind = "a directory" if stat.S_ISDIR(found) else "not a regular file"
        raise UsageError(f"{name} is {kind}", remedy="name the file of the archive")
    if not Path(os.path.realpath(path)).parent.is_dir():
        raise UsageError(f"there is no directory for {name}", remedy="make it first")


def state_of(path: Path) -> State | None:
    """What tells a state of a file from another, None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def is_changed(path: Path, state: State | None) -> bool:
    """Whether an archive is not what it was when it was opened; None: it was not there."""
    return state_of(path) != state


def changed_meanwhile(path: Path, remedy: str) -> StoreError:
    """Return the error for an archive that was written by a program that takes no locks."""
    return StoreError(
        f"archive {shown(str(path))} was written by somebody else meanwhile", remedy=remedy
    )
