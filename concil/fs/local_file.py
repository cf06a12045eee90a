"""Local files as sources of blobs."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from concil.config import MIB
from concil.errors import Cancelled, DigestMismatch, FileChanged, StoreError, UsageError, safe_repr
from concil.oci.manifest import Digest, Verifier
from concil.runtime import arguments
from concil.runtime.dataclass import dataclass

FREE_SPACE_REMEDY = "free some space on that disk, then try again"
_REMEDY_BY_ERRNO = {
    errno.ENOSPC: FREE_SPACE_REMEDY,
    errno.EDQUOT: "free some of your quota on that disk, then try again",
    errno.EFBIG: "raise the file size limit (ulimit -f), or choose another file system",
    errno.EACCES: "check the owner and the permissions",
    errno.EPERM: "check the owner and the permissions",
    errno.EROFS: "the file system is mounted read-only; choose another directory",
    errno.ELOOP: "links are not followed here; replace the link with the file or directory itself",
    errno.ENOTDIR: "replace it with a directory, not with a link to one",
    errno.EISDIR: "replace it with a file",
    errno.EMFILE: "raise the limit of open files (ulimit -n) or set a smaller workers=",
}


def disk_error(action: str, path: Path | str, error: OSError) -> StoreError:
    """Return the StoreError for a failed system call: action, path, cause, remedy.

    Args:
        action: the failed action, as in "cannot write".
    """
    cause = error.strerror or type(error).__name__
    remedy = _REMEDY_BY_ERRNO.get(error.errno or 0, "check the path and its disk")
    return StoreError(f"{action} {safe_repr(os.fspath(path))}: {cause}", remedy=remedy)


class FileBlobReader:
    """Reads a range of an open local file in order. One thread at a time."""

    def __init__(
        self,
        fd: int,
        path: Path,
        start: int = 0,
        stop: int | None = None,
        *,
        section: tuple[int, int] | None = None,
    ) -> None:
        """Take ownership of a file descriptor; it is closed by `close` and on an error here.

        Args:
            path: of the file, for messages.
            start: first byte to read.
            stop: the byte after the last one to read; None for the end of the file.
            section: offset and size of the part of the file that is treated as the whole.
        Raises:
            UsageError: the range is not within the file.
        """
        self._fd = fd
        self._path = path
        self._offset, self.size = section or (0, os.fstat(fd).st_size)  # bytes
        self.set_range(start, stop)

    def set_range(self, start: int, stop: int | None = None) -> Self:
        """Select another range of the same file, half-open; on an error the file is closed.

        Raises:
            UsageError: the range is not within the file.
        """
        self.start = self._position = start
        self._stop = self.size if stop is None else stop
        if not 0 <= start <= self._stop <= self.size:
            self.close()
            raise UsageError(
                f"bytes {start} to {self._stop} of {safe_repr(str(self._path))}: it has "
                f"{self.size}",
                remedy="request a range within the file",
            )
        return self

    def readinto(self, buffer: memoryview, /) -> int:
        """Read up to ``len(buffer)`` bytes; return their number, 0 at the end of the range.

        Raises:
            FileChanged: the file became shorter.
            StoreError: the read fails, or the file is closed.
        """
        section = memoryview(buffer)[: self._stop - self._position]
        if not section.nbytes:
            return 0
        try:
            count = os.preadv(self._fd, [section], self._offset + self._position)
        except OSError as error:
            raise disk_error("cannot read", self._path, error) from error
        if not count:
            raise FileChanged(
                f"{safe_repr(str(self._path))} ended at byte {self._position} of {self.size}",
                remedy="try again while no other program writes to the file",
            )
        self._position += count
        return count

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        descriptor, self._fd = self._fd, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __enter__(self) -> Self:
        """Return the reader; the end of the block closes it."""
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
    """Identity of a file, to detect changes without reading it."""

    path: str  # absolute, with links resolved
    size: int  # bytes
    mtime_ns: int  # nanoseconds since the epoch
    inode: int
    ctime_ns: int = 0  # as mtime_ns, but cannot be set by users

    @property
    def to_text(self) -> str:
        """All fields as one text, for the journal."""
        return f"file:{self.size}:{self.mtime_ns}:{self.ctime_ns}:{self.inode}:{self.path}"

    @staticmethod
    def parse_path(text: str) -> str | None:
        """Return the path in such a text; None for another kind, such as a digest."""
        # The path begins at the first slash, after four numbers (three in older journals).
        return text[text.find("/") :] if text.startswith("file:") else None


class LocalFile:
    """A local file that must not change while it is read.

    Any thread may call any method; the file is closed between calls.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Record the identity of the file.

        Raises:
            UsageError: the file is missing, or is a directory, a pipe or a device.
            StoreError: it cannot be read.
        """
        self.path = Path(arguments.to_path("path", path))
        descriptor = self._open_fd()
        try:
            status = os.fstat(descriptor)
        finally:
            os.close(descriptor)
        self.identity = FileIdentity(
            os.path.realpath(self.path),
            status.st_size,
            status.st_mtime_ns,
            status.st_ino,
            status.st_ctime_ns,
        )

    @property
    def size(self) -> int:
        """Size in bytes when the identity was recorded."""
        return self.identity.size

    def open(self, start: int = 0, stop: int | None = None) -> FileBlobReader:
        """Open the bytes from ``start`` up to ``stop``, half-open; the caller closes it.

        Raises:
            FileChanged: the file has another identity now.
            UsageError: the range is not within the file.
        """
        descriptor = self._open_fd()
        try:
            self._check_identity(os.fstat(descriptor))
        except FileChanged:
            os.close(descriptor)
            raise
        return FileBlobReader(descriptor, self.path, start, stop)

    def check_unchanged(self) -> None:
        """Compare the file with its recorded identity.

        Raises:
            FileChanged: its size, time or inode has changed, or it was removed.
        """
        try:
            status = self.path.stat()
        except OSError as error:
            raise self._changed_error("it no longer exists") from error
        self._check_identity(status)

    def compute_digest(
        self,
        algorithm: str = "sha256",
        *,
        cancel: threading.Event | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Digest:
        """Hash the file, 1 MiB at a time.

        Args:
            cancel: checked for each block.
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
                    raise Cancelled(f"stopped while hashing {safe_repr(str(self.path))}")
                verifier.update(buffer[:count])
                if progress is not None:
                    progress(verifier.position)
        self.check_unchanged()
        return verifier.digest()

    def verify(self, digest: Digest, *, cancel: threading.Event | None = None) -> None:
        """Hash the file and compare its digest.

        Raises:
            DigestMismatch: the digest is not ``digest``.
            FileChanged, Cancelled: as `compute_digest`.
        """
        actual_digest = self.compute_digest(digest.algorithm, cancel=cancel)
        if actual_digest != digest:
            raise DigestMismatch(
                f"{safe_repr(str(self.path))} hashes to {actual_digest}, not to {digest}",
                remedy="the file is damaged, or the digest belongs to another file",
            )

    def _open_fd(self) -> int:
        """Open the file; O_NONBLOCK avoids waiting for the writer of a pipe."""
        name = safe_repr(str(self.path))
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise UsageError(f"no such file: {name}", remedy="check the path") from error
        except (ValueError, NotADirectoryError) as error:
            raise UsageError(f"not a valid path: {name}", remedy="check the path") from error
        except OSError as error:
            raise disk_error("cannot read", self.path, error) from error
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISREG(mode):
            return descriptor
        os.close(descriptor)
        kind = "a directory" if stat.S_ISDIR(mode) else "not a regular file"
        raise UsageError(f"{name} is {kind}", remedy="give a regular file")

    def _check_identity(self, found: os.stat_result) -> None:
        identity = self.identity
        if found.st_size != identity.size:
            raise self._changed_error(f"it has {found.st_size} bytes instead of {identity.size}")
        if (found.st_mtime_ns, found.st_ino) != (identity.mtime_ns, identity.inode):
            raise self._changed_error("it was written to or replaced")

    def _changed_error(self, cause: str) -> FileChanged:
        return FileChanged(
            f"{safe_repr(str(self.path))} changed while it was read: {cause}",
            remedy="try again while no other program writes to the file",
        )


def check_writable(path: Path) -> Path:
    """Return the path of a file that can be created or replaced.

    Raises:
        UsageError: the path is not a regular file, or its directory is missing.
    """
    if path.is_dir():
        raise UsageError(f"{path} is a directory", remedy="give the path of a file")
    if path.exists() and not path.is_file() and not path.is_symlink():
        # A rename would replace the device or pipe by a regular file.
        raise UsageError(f"{path} is not a regular file", remedy="give the path of a file")
    if not path.parent.is_dir():
        raise UsageError(f"{path.parent} is not a directory", remedy="create it first")
    return path
