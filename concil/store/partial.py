"""A file being filled in any order, hashed in order, visible only when it is whole and right."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import threading
from pathlib import Path

from concil.config import MIB
from concil.content import Digest, Verifier
from concil.errors import StoreError
from concil.fs.file_lock import remove_unlocked, try_lock
from concil.store.files import FREE_SPACE, disk_error
from concil.store.protocol import WriterState

_CATCH_UP = 8 * MIB  # bytes hashed at most before a thread goes back to its socket
_BLOCK = MIB


class PartialFile:
    """A RangeWriter on a local file, committed by rename. Any thread may call any method.

    Whoever writes also hashes: the thread that gets the hash lock without waiting
    takes the in-order hash as far as the bytes reach; parts that came out of order
    are read back, as a rule from the page cache.
    """

    def __init__(
        self,
        final: Path,
        digest: Digest,
        size: int,
        *,
        partial: Path,
        resume: WriterState | None = None,
    ) -> None:
        """Open a partial file: an empty one, or one that an earlier process left.

        Args:
            final: where the file appears once it is whole.
            partial: where it grows, on the same file system. Another process that
                fills the same one is left alone: this one then gets a name of its own.
            resume: what `state` said of it; anything that does not fit means empty.
        Raises:
            StoreError: the directory does not take it, or the disk has no room for it.
        """
        self.final = final
        self.digest = digest
        self.size = size  # bytes
        self._lock = threading.Lock()  # guards _free, _done and _fd
        self._hashing = threading.Lock()  # guards _verifier
        self._free: list[tuple[int, int]] = [(0, size)] if size else []  # nobody's, sorted
        self._done: list[tuple[int, int]] = []  # filled, sorted, merged
        self._verifier = Verifier(digest.algorithm)
        self._fd, self.path = _open_own(partial, resume)
        _sweep(partial, self.path)
        self._take_up(resume)
        self._check_room()

    def state(self) -> WriterState:
        """Its path, and which stretches are filled."""
        with self._lock:
            done = tuple(self._done)
        return WriterState(str(self.path), sum(b - a for a, b in done), 0, done)

    @property
    def filled(self) -> int:
        """Bytes that are there."""
        with self._lock:
            return sum(stop - start for start, stop in self._done)

    @property
    def complete(self) -> bool:
        """Whether every byte is there."""
        return self.filled == self.size

    def take(self, most: int, /) -> tuple[int, int] | None:
        """Hand out the first stretch that is neither filled nor taken, at most ``most`` bytes."""
        with self._lock:
            if not self._free:
                return None
            start, stop = self._free.pop(0)
            if stop - start > most:
                self._free.insert(0, (start + most, stop))
                stop = start + most
            return start, stop

    def give_back(self, start: int, stop: int, /) -> None:
        """Let somebody else take a stretch that was not filled."""
        if start < stop:
            with self._lock:
                self._free = _merged(self._free, start, stop)

    def write_at(self, offset: int, piece: memoryview, /) -> None:
        """Write bytes, and hash as far as they now reach.

        Raises:
            StoreError: the disk is full or refuses.
        """
        try:
            written = 0
            while written < len(piece):
                written += os.pwrite(self._fd, piece[written:], offset + written)
        except OSError as error:
            raise disk_error("cannot write", self.path, error) from error
        with self._lock:
            self._done = _merged(self._done, offset, offset + len(piece))
        self._advance(offset, piece)

    def restart(self) -> None:
        """Forget every byte."""
        with self._hashing, self._lock:
            self._verifier = Verifier(self.digest.algorithm)
            self._free = [(0, self.size)] if self.size else []
            self._done = []
            os.ftruncate(self._fd, 0)

    def commit(self) -> None:
        """Hash what is left, compare, sync, and rename into place.

        Raises:
            SizeMismatch, DigestMismatch: nothing is visible; `restart` or `abort` it.
            StoreError: the disk refuses.
        """
        try:
            with self._hashing:
                self._catch_up(self.size)
                self._verifier.check(self.digest, self.size, str(self.final))
            os.fsync(self._fd)
            self.path.replace(self.final)
            _sync_directory(self.final.parent)
        except OSError as error:
            raise disk_error("cannot write", self.final, error) from error
        self.close()

    def close(self) -> None:
        """Keep what is there and let go."""
        with self._lock:
            if self._fd >= 0:
                os.close(self._fd)
            self._fd = -1

    def abort(self) -> None:
        """Throw away what is there."""
        with contextlib.suppress(OSError):
            if self._fd >= 0:
                self.path.unlink()
        self.close()

    def _take_up(self, resume: WriterState | None) -> None:
        """Keep the stretches of an earlier process that the file can have; else empty it."""
        there = os.fstat(self._fd).st_size
        stretches = resume.stretches if resume and resume.location == str(self.path) else ()
        fits = all(0 <= start < stop <= self.size for start, stop in stretches)
        if not stretches or not fits or there > self.size:
            os.ftruncate(self._fd, 0)
            return
        for start, stop in stretches:
            if start < min(stop, there):
                self._done = _merged(self._done, start, min(stop, there))
        edges = [0, *(edge for stretch in self._done for edge in stretch), self.size]
        gaps = zip(edges[::2], edges[1::2], strict=True)
        self._free = [(start, stop) for start, stop in gaps if start < stop]

    def _check_room(self) -> None:
        """Refuse what the disk cannot hold; a registry may say a blob has any size."""
        disk, missing = os.fstatvfs(self._fd), self.size - self.filled
        free = disk.f_bavail * disk.f_frsize
        if missing <= free or not disk.f_blocks:  # some file systems do not tell
            return
        if self._done:
            self.close()
        else:
            self.abort()
        raise StoreError(
            f"{self.final}: {missing} bytes are to come, and the disk has room for {free}",
            remedy=FREE_SPACE,
        )

    def _advance(self, offset: int, piece: memoryview) -> None:
        if not self._hashing.acquire(blocking=False):
            return  # somebody is at it and will come by here, or `commit` will
        try:
            if offset <= self._verifier.position:
                self._verifier.update(piece, offset)
            self._catch_up(_CATCH_UP)
        finally:
            self._hashing.release()

    def _catch_up(self, most: int) -> None:
        """Hash up to ``most`` bytes that are filled in order. The caller holds the hash lock."""
        limit = min(self._verifier.position + most, self._prefix())
        buffer = memoryview(b"")
        while self._verifier.position < limit:
            if not buffer:
                buffer = memoryview(bytearray(_BLOCK))
            want = buffer[: min(_BLOCK, limit - self._verifier.position)]
            got = os.preadv(self._fd, [want], self._verifier.position)
            if got == 0:
                raise StoreError(f"{self.path}: the file became shorter while it was filled")
            self._verifier.update(want[:got])

    def _prefix(self) -> int:
        with self._lock:
            return self._done[0][1] if self._done and self._done[0][0] == 0 else 0


def _merged(stretches: list[tuple[int, int]], start: int, stop: int) -> list[tuple[int, int]]:
    """The stretches with one more, sorted, touching ones joined."""
    merged: list[tuple[int, int]] = []
    for one in sorted([*stretches, (start, stop)]):
        if merged and one[0] <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], one[1]))
        else:
            merged.append(one)
    return merged


def _open_own(partial: Path, resume: WriterState | None) -> tuple[int, Path]:
    """Open a partial file that nobody else is filling; return it locked, with its path."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    own = (partial.with_name(f"{partial.name}.{os.getpid()}-{number}") for number in range(1, 100))
    # What an earlier process had under a name of its own is worth more than an empty file.
    earlier = [Path(resume.location)] if resume is not None else []
    earlier = [path for path in earlier if path in _left(partial)]
    for path in (*earlier, partial, *own):
        try:
            fd = os.open(path, flags, 0o666)
        except OSError as error:
            raise disk_error("cannot open", path, error) from error
        found = os.fstat(fd)
        # A layout out of an archive may hold hard links to files that are nobody's business.
        if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
            os.close(fd)
            kind = "has a second name" if stat.S_ISREG(found.st_mode) else "not a regular file"
            raise StoreError(f"{path}: {kind}", remedy="remove it and run it again")
        if _locked(fd, path):
            return fd, path
        os.close(fd)
    raise StoreError(f"{partial}: a hundred other processes are filling it")


def _left(partial: Path) -> list[Path]:
    """The files of processes that found ``partial`` taken, and took a name of their own."""
    name = re.compile(re.escape(partial.name) + r"\.[0-9]+-[0-9]+")
    try:
        with os.scandir(partial.parent) as found:
            return [Path(one.path) for one in found if name.fullmatch(one.name)]
    except OSError:
        return []


def _sweep(partial: Path, own: Path) -> None:
    """Remove what was left beside ``partial``: who comes next finds the plain name free."""
    for path in _left(partial):
        if path != own:
            with contextlib.suppress(OSError):  # among them: somebody is filling it
                remove_unlocked(path)


def _locked(fd: int, path: Path) -> bool:
    """Lock the file, and see that it still has its name: its last owner may have renamed it.

    Where locks are no good (some network file systems) two processes may share a
    file: the digest then fails in both, never a wrong blob.
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
