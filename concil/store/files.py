"""Local files as a place that content is read from."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from concil import arguments
from concil.config import MIB
from concil.content import Digest, Verifier
from concil.errors import Cancelled, DigestMismatch, FileChanged, StoreError, UsageError, shown

FREE_SPACE = "free some space on that disk, then run it again"
_REMEDIES = {
    errno.ENOSPC: FREE_SPACE,
    errno.EDQUOT: "free some of your quota on that disk, then run it again",
    errno.EFBIG: "raise the limit of file sizes (ulimit -f), or choose another file system",
    errno.EACCES: "check the owner and the permissions",
    errno.EPERM: "check the owner and the permissions",
    errno.EROFS: "the file system is mounted read-only; choose another place",
    errno.ELOOP: "links are not followed there; put the real file or directory in its place",
    errno.ENOTDIR: "a directory is needed there, and no link to one",
    errno.EISDIR: "a file is needed there",
    errno.EMFILE: "raise the limit of open files (ulimit -n) or set a smaller workers=",
}


def disk_error(action: str, path: Path | str, error: OSError) -> StoreError:
    """Return the StoreError for what the system refused: action, path, cause, remedy.

    Args:
        action: what was being done, as in "cannot write".
    """
    cause = error.strerror or type(error).__name__
    remedy = _REMEDIES.get(error.errno or 0, "check that the path and its disk are in order")
    return StoreError(f"{action} {shown(os.fspath(path))}: {cause}", remedy=remedy)


class FileBlob:
    """Some bytes of an open local file, read in order. One thread at a time."""

    def __init__(
        self,
        descriptor: int,
        path: Path,
        start: int = 0,
        stop: int | None = None,
        *,
        inside: tuple[int, int] | None = None,
    ) -> None:
        """Take over an open file descriptor; `close` closes it, and so does an error here.

        Args:
            path: the file's name, for messages.
            start: first byte to read.
            stop: the byte behind the last one to read; None: the file's end.
            inside: offset and size of a part of the file that stands for the whole.
        Raises:
            UsageError: the range does not lie within the file.
        """
        self._descriptor = descriptor
        self._path = path
        self._offset, self.size = inside or (0, os.fstat(descriptor).st_size)  # bytes
        self.between(start, stop)

    def between(self, start: int, stop: int | None = None) -> Self:
        """Go to another range of the same file, half-open; an error closes it.

        Raises:
            UsageError: the range does not lie within the file.
        """
        self.start = self._position = start
        self._stop = self.size if stop is None else stop
        if not 0 <= start <= self._stop <= self.size:
            self.close()
            raise UsageError(
                f"bytes {start} to {self._stop} of {shown(str(self._path))}: it has {self.size}",
                remedy="ask for a range within the file",
            )
        return self

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill some of ``buffer``; return the number of bytes, 0 at the end of the range.

        Raises:
            FileChanged: the file became shorter than it was.
            StoreError: the disk failed, or the file is closed.
        """
        wanted = memoryview(buffer)[: self._stop - self._position]
        if not wanted.nbytes:
            return 0
        try:
            count = os.preadv(self._descriptor, [wanted], self._offset + self._position)
        except OSError as error:
            raise disk_error("cannot read", self._path, error) from error
        if not count:
            raise FileChanged(
                f"{shown(str(self._path))} ended at byte {self._position} of {self.size}",
                remedy="let nothing write to the file meanwhile, then run it again",
            )
        self._position += count
        return count

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __enter__(self) -> Self:
        """Return itself; the end of the block closes it."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the file."""
        self.close()


@dataclass(frozen=True, slots=True)
class FileIdentity:
    """What tells, without reading, that a file is still the one it was."""

    path: str  # absolute, links resolved
    size: int  # bytes
    mtime_ns: int  # nanoseconds since the epoch
    inode: int
    ctime_ns: int = 0  # as mtime_ns; unlike that nobody can set it back

    @property
    def text(self) -> str:
        """All of it as one text, for the journal."""
        return f"file:{self.size}:{self.mtime_ns}:{self.ctime_ns}:{self.inode}:{self.path}"

    @staticmethod
    def path_in(text: str) -> str | None:
        """The path in such a text; None: it is another one, as of a digest."""
        # The path begins at the first slash; before it, there are four numbers, once three.
        return text[text.find("/") :] if text.startswith("file:") else None


class LocalFile:
    """A local file that is meant to stay as it is while it is read.

    Any thread may call any method; nothing is kept open between calls.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Look at the file.

        Raises:
            UsageError: there is none, or it is a directory, a pipe or a device.
            StoreError: it cannot be read.
        """
        self.path = Path(arguments.path("path", path))
        descriptor = self._descriptor()
        try:
            found = os.fstat(descriptor)
        finally:
            os.close(descriptor)
        self.identity = FileIdentity(
            os.path.realpath(self.path),
            found.st_size,
            found.st_mtime_ns,
            found.st_ino,
            found.st_ctime_ns,
        )

    @property
    def size(self) -> int:
        """Bytes, when it was first looked at."""
        return self.identity.size

    def open(self, start: int = 0, stop: int | None = None) -> FileBlob:
        """Open the bytes from ``start`` up to ``stop``, half-open; the caller closes it.

        Raises:
            FileChanged: it is not the file that was looked at.
            UsageError: the range does not lie within the file.
        """
        descriptor = self._descriptor()
        try:
            self._compare(os.fstat(descriptor))
        except FileChanged:
            os.close(descriptor)
            raise
        return FileBlob(descriptor, self.path, start, stop)

    def check_unchanged(self) -> None:
        """Compare the file with what it was when it was first looked at.

        Raises:
            FileChanged: another size, time or inode, or it is gone.
        """
        try:
            found = self.path.stat()
        except OSError as error:
            raise self._changed("it cannot be found any more") from error
        self._compare(found)

    def digest(
        self,
        algorithm: str = "sha256",
        *,
        cancel: threading.Event | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Digest:
        """Hash the file, a MiB at a time.

        Args:
            cancel: looked at once a block.
            progress: called after each block with the position in bytes.
        Raises:
            FileChanged: the file changed meanwhile.
            Cancelled: ``cancel`` was set.
        """
        verifier = Verifier(algorithm)
        buffer = memoryview(bytearray(min(MIB, max(1, self.size))))
        with self.open() as blob:
            while count := blob.readinto(buffer):
                if cancel is not None and cancel.is_set():
                    raise Cancelled(f"stopped while hashing {shown(str(self.path))}")
                verifier.update(buffer[:count])
                if progress is not None:
                    progress(verifier.position)
        self.check_unchanged()
        return verifier.digest()

    def verify(self, digest: Digest, *, cancel: threading.Event | None = None) -> None:
        """Hash the file and compare.

        Raises:
            DigestMismatch: it does not hash to ``digest``.
            FileChanged, Cancelled: as `digest`.
        """
        found = self.digest(digest.algorithm, cancel=cancel)
        if found != digest:
            raise DigestMismatch(
                f"{shown(str(self.path))} hashes to {found}, not to {digest}",
                remedy="the file is damaged or is another one, or the digest is of another file",
            )

    def _descriptor(self) -> int:
        """Open the file; O_NONBLOCK so that a pipe answers instead of waiting for a writer."""
        name = shown(str(self.path))
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise UsageError(f"no such file: {name}", remedy="check the path") from error
        except (ValueError, NotADirectoryError) as error:
            raise UsageError(f"not a path of a file: {name}", remedy="check the path") from error
        except OSError as error:
            raise disk_error("cannot read", self.path, error) from error
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISREG(mode):
            return descriptor
        os.close(descriptor)
        kind = "a directory" if stat.S_ISDIR(mode) else "not a regular file"
        raise UsageError(f"{name} is {kind}", remedy="name one regular file")

    def _compare(self, found: os.stat_result) -> None:
        known = self.identity
        if found.st_size != known.size:
            raise self._changed(f"it has {found.st_size} bytes instead of {known.size}")
        if (found.st_mtime_ns, found.st_ino) != (known.mtime_ns, known.inode):
            raise self._changed("it was written to or replaced")

    def _changed(self, cause: str) -> FileChanged:
        return FileChanged(
            f"{shown(str(self.path))} changed while it was read: {cause}",
            remedy="let nothing write to the file meanwhile, then run it again",
        )


def writable(path: Path) -> Path:
    """Return the path of a file that can be made, or put in the place of another file.

    Raises:
        UsageError: there is something else, or no directory for it.
    """
    if path.is_dir():
        raise UsageError(f"{path} is a directory", remedy="name the file to write")
    if path.exists() and not path.is_file() and not path.is_symlink():
        # A rename would put a file in the place of the device or pipe.
        raise UsageError(f"{path} is not a regular file", remedy="name the file to write")
    if not path.parent.is_dir():
        raise UsageError(f"{path.parent} is not a directory", remedy="make it first")
    return path
