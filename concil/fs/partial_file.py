"""Partial file of a download: filled in any order, hashed in order, renamed when verified."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import threading
from pathlib import Path

from concil.config import MIB
from concil.errors import StoreError
from concil.fs.file_lock import remove_unlocked, try_lock
from concil.fs.local_file import FREE_SPACE_REMEDY, disk_error
from concil.fs.resume_state import WriterState
from concil.oci.manifest import Digest, Verifier
from concil.runtime.quantities import format_size

_MAX_HASH_BATCH = 8 * MIB  # maximum bytes hashed before a thread returns to its socket
_BLOCK_SIZE = MIB


class PartialFile:
    """A local file that is filled in any order and committed by rename. Any thread.

    Writer threads also hash: the thread that gets the hash lock without waiting advances the
    in-order hash as far as contiguous bytes exist. Ranges that arrived out of order are read
    back, usually from the page cache.
    """

    def __init__(
        self,
        final_path: Path,
        digest: Digest,
        size: int,
        *,
        partial_path: Path,
        resume: WriterState | None = None,
    ) -> None:
        """Open an empty partial file, or one that an earlier process left.

        Args:
            final_path: path of the complete file.
            partial_path: path of the partial file, on the same file system. If another process
                fills it at the moment, an alternate name is used.
            resume: the earlier `state`; if it does not match, the file starts empty.
        Raises:
            StoreError: the file cannot be created, or the disk has too little free space.
        """
        self.final_path = final_path
        self.digest = digest
        self.size = size  # bytes
        self._lock = threading.Lock()  # guards _unassigned_ranges, _filled_ranges and _fd
        self._hash_lock = threading.Lock()  # guards _verifier
        # Neither filled nor reserved; sorted.
        self._unassigned_ranges: list[tuple[int, int]] = [(0, size)] if size else []
        self._filled_ranges: list[tuple[int, int]] = []  # sorted and merged
        self._verifier = Verifier(digest.algorithm)
        self._fd, self.path = _open_exclusive(partial_path, resume)
        _remove_stale_files(partial_path, self.path)
        self._restore_ranges(resume)
        self._check_free_space()

    def state(self) -> WriterState:
        """Return its path and the filled ranges."""
        with self._lock:
            filled = tuple(self._filled_ranges)
        return WriterState(str(self.path), sum(b - a for a, b in filled), 0, filled)

    @property
    def bytes_filled(self) -> int:
        """Number of bytes written so far."""
        with self._lock:
            return sum(stop - start for start, stop in self._filled_ranges)

    @property
    def is_complete(self) -> bool:
        """Whether all bytes are written."""
        return self.bytes_filled == self.size

    def reserve_range(self, max_size: int, /) -> tuple[int, int] | None:
        """Reserve the first range that is neither filled nor reserved, up to ``max_size`` bytes."""
        with self._lock:
            if not self._unassigned_ranges:
                return None
            start, stop = self._unassigned_ranges.pop(0)
            if stop - start > max_size:
                self._unassigned_ranges.insert(0, (start + max_size, stop))
                stop = start + max_size
            return start, stop

    def release_range(self, start: int, stop: int, /) -> None:
        """Return a reserved range that was not filled."""
        if start < stop:
            with self._lock:
                self._unassigned_ranges = _merge_range(self._unassigned_ranges, start, stop)

    def write_at(self, offset: int, data: memoryview, /) -> None:
        """Write bytes, and hash as far as contiguous bytes exist.

        Raises:
            StoreError: the disk is full or the write fails.
        """
        try:
            written = 0
            while written < len(data):
                written += os.pwrite(self._fd, data[written:], offset + written)
        except OSError as error:
            raise disk_error("cannot write", self.path, error) from error
        with self._lock:
            self._filled_ranges = _merge_range(self._filled_ranges, offset, offset + len(data))
        self._update_hash(offset, data)

    def restart(self) -> None:
        """Discard all bytes."""
        with self._hash_lock, self._lock:
            self._verifier = Verifier(self.digest.algorithm)
            self._unassigned_ranges = [(0, self.size)] if self.size else []
            self._filled_ranges = []
            os.ftruncate(self._fd, 0)

    def commit(self) -> None:
        """Hash the remaining bytes, verify, sync, and rename the file to its final path.

        Raises:
            SizeMismatch, DigestMismatch: nothing is visible; call `restart` or `abort`.
            StoreError: the write fails.
        """
        try:
            with self._hash_lock:
                self._hash_filled(self.size)
                self._verifier.verify(self.digest, self.size, str(self.final_path))
            os.fsync(self._fd)
            self.path.replace(self.final_path)
            _sync_directory(self.final_path.parent)
        except OSError as error:
            raise disk_error("cannot write", self.final_path, error) from error
        self.close()

    def close(self) -> None:
        """Close the file and keep its bytes."""
        with self._lock:
            if self._fd >= 0:
                os.close(self._fd)
            self._fd = -1

    def abort(self) -> None:
        """Delete the file."""
        with contextlib.suppress(OSError):
            if self._fd >= 0:
                self.path.unlink()
        self.close()

    def _restore_ranges(self, resume: WriterState | None) -> None:
        """Restore the filled ranges of an earlier process if they match the file; else empty it."""
        file_size = os.fstat(self._fd).st_size
        ranges = resume.ranges if resume and resume.location == str(self.path) else ()
        fits = all(0 <= start < stop <= self.size for start, stop in ranges)
        if not ranges or not fits or file_size > self.size:
            os.ftruncate(self._fd, 0)
            return
        for start, stop in ranges:
            if start < min(stop, file_size):
                self._filled_ranges = _merge_range(self._filled_ranges, start, min(stop, file_size))
        edges = [
            0,
            *(edge for filled_range in self._filled_ranges for edge in filled_range),
            self.size,
        ]
        gaps = zip(edges[::2], edges[1::2], strict=True)
        self._unassigned_ranges = [(start, stop) for start, stop in gaps if start < stop]

    def _check_free_space(self) -> None:
        """Check the free disk space: a registry may report any size for a blob."""
        file_system, missing = os.fstatvfs(self._fd), self.size - self.bytes_filled
        free = file_system.f_bavail * file_system.f_frsize
        # Some file systems do not report free space.
        if missing <= free or not file_system.f_blocks:
            return
        if self._filled_ranges:
            self.close()
        else:
            self.abort()
        raise StoreError(
            f"{self.final_path}: {format_size(missing)} are missing, and the disk has room for "
            f"{format_size(free)}",
            remedy=FREE_SPACE_REMEDY,
        )

    def _update_hash(self, offset: int, data: memoryview) -> None:
        if not self._hash_lock.acquire(blocking=False):
            return  # the thread that holds the lock will hash these bytes, or `commit` will
        try:
            if offset <= self._verifier.position:
                self._verifier.update(data, offset)
            self._hash_filled(_MAX_HASH_BATCH)
        finally:
            self._hash_lock.release()

    def _hash_filled(self, max_size: int) -> None:
        """Hash up to ``max_size`` contiguous bytes. The caller holds the hash lock."""
        limit = min(self._verifier.position + max_size, self._contiguous_size())
        buffer = memoryview(b"")
        while self._verifier.position < limit:
            if not buffer:
                buffer = memoryview(bytearray(_BLOCK_SIZE))
            block = buffer[: min(_BLOCK_SIZE, limit - self._verifier.position)]
            count = os.preadv(self._fd, [block], self._verifier.position)
            if count == 0:
                raise StoreError(f"{self.path}: the file was truncated while it was written")
            self._verifier.update(block[:count])

    def _contiguous_size(self) -> int:
        with self._lock:
            return (
                self._filled_ranges[0][1]
                if self._filled_ranges and self._filled_ranges[0][0] == 0
                else 0
            )


def _merge_range(ranges: list[tuple[int, int]], start: int, stop: int) -> list[tuple[int, int]]:
    """Return the ranges with one more, sorted, with touching ranges merged."""
    merged: list[tuple[int, int]] = []
    for current in sorted([*ranges, (start, stop)]):
        if merged and current[0] <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], current[1]))
        else:
            merged.append(current)
    return merged


def _open_exclusive(partial_path: Path, resume: WriterState | None) -> tuple[int, Path]:
    """Open a partial file that no other process fills; return it locked, with its path."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    alternates = (
        partial_path.with_name(f"{partial_path.name}.{os.getpid()}-{number}")
        for number in range(1, 100)
    )
    # Bytes in an alternate file of an earlier process are better than an empty file.
    earlier = [Path(resume.location)] if resume is not None else []
    earlier = [path for path in earlier if path in _list_alternate_files(partial_path)]
    for path in (*earlier, partial_path, *alternates):
        try:
            fd = os.open(path, flags, 0o666)
        except OSError as error:
            raise disk_error("cannot open", path, error) from error
        status = os.fstat(fd)
        # An unpacked layout may contain hard links to unrelated files of the user.
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            os.close(fd)
            kind = (
                "it has more than one hard link"
                if stat.S_ISREG(status.st_mode)
                else "not a regular file"
            )
            raise StoreError(f"{path}: {kind}", remedy="remove it, then try again")
        if _try_lock_path(fd, path):
            return fd, path
        os.close(fd)
    raise StoreError(f"{partial_path}: a hundred other processes are downloading it")


def _list_alternate_files(partial_path: Path) -> list[Path]:
    """Return the alternate files of processes that found ``partial_path`` in use."""
    name = re.compile(re.escape(partial_path.name) + r"\.[0-9]+-[0-9]+")
    try:
        with os.scandir(partial_path.parent) as entries:
            return [Path(entry.path) for entry in entries if name.fullmatch(entry.name)]
    except OSError:
        return []


def _remove_stale_files(partial_path: Path, kept_path: Path) -> None:
    """Remove the alternate files of ended processes, except ``kept_path``."""
    for path in _list_alternate_files(partial_path):
        if path != kept_path:
            with contextlib.suppress(OSError):  # errors include that of a file still in use
                remove_unlocked(path)


def _try_lock_path(fd: int, path: Path) -> bool:
    """Lock the file, and check that it still has its path: another owner may have renamed it.

    Without lock support (some network file systems) two processes may write to one file. The
    digest then fails in both, so a wrong blob is never committed.
    """
    try:
        return try_lock(fd) and os.path.samestat(os.fstat(fd), path.lstat())
    except FileNotFoundError:
        return False
    except OSError:
        return True


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
