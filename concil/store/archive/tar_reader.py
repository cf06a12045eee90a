"""Reads the members of a tar archive by seeking."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
import threading
from pathlib import Path

from concil.config import MIB
from concil.errors import Cancelled, InvalidManifest, NotFound, StoreError, UsageError, safe_repr
from concil.fs.local_file import FileBlobReader, disk_error
from concil.store.archive.decompress import (
    MAGIC_SIZE,
    BoundedDecompressor,
    Compression,
    detect_compression,
)
from concil.store.archive.tar_headers import Member, TarMembers

_OPEN_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC


class TarReader:
    """An open archive. Any thread may call any method; the caller who opened it closes it.

    A compressed archive, as from ``docker save | gzip``, is decompressed once into an unnamed
    file in the temporary directory, because compressed data cannot be seeked.
    """

    def __init__(self, path: Path, cancel: threading.Event | None = None) -> None:
        """Open the archive and read its headers.

        Args:
            cancel: stops the decompression.
        Raises:
            NotFound: there is no such file.
            UsageError: it is not a regular file.
            StoreError: it is not a tar archive, truncated, or in an unsupported compression.
        """
        self.path = path
        self.display_name = f"archive {safe_repr(str(path))}"
        self._fd = _open_regular_file(path)
        try:
            status = os.fstat(self._fd)
            self.stat_signature = (status.st_ino, status.st_size, status.st_mtime_ns)
            # Compression of the whole archive; None for no compression.
            self.compression: Compression | None = self._decompress(status.st_size, cancel)
            length = os.fstat(self._fd).st_size
            self.members = TarMembers(self._read_at, length, self.display_name)
        except OSError as error:
            self.close()
            raise disk_error("cannot read", path, error) from error
        except BaseException:  # raised again: no caller could close the archive
            self.close()
            raise

    def open(self, name: str) -> FileBlobReader:
        """Open a member; the caller closes it.

        Raises:
            NotFound: there is no member with that name.
        """
        return self.open_member(self.members.get(name))

    def open_member(self, member: Member) -> FileBlobReader:
        """Open a member that was looked up; the caller closes it."""
        try:
            descriptor = os.dup(self._fd)
        except OSError as error:
            raise disk_error("cannot read", self.path, error) from error
        return FileBlobReader(descriptor, self.path, section=(member.offset, member.size))

    def read_start(self, member: Member, size: int) -> bytes:
        """Return the first bytes of a member."""
        with self.open_member(member) as blob:
            buffer = bytearray(min(size, blob.size))
            return bytes(buffer[: blob.readinto(memoryview(buffer))])

    def read(self, name: str, limit: int) -> bytes:
        """Read a small member completely.

        Raises:
            NotFound: there is no member with that name.
            InvalidManifest: it has more than ``limit`` bytes.
        """
        with self.open(name) as blob:
            return read_all(blob, limit, f"{safe_repr(name)} in {self.display_name}")

    def close(self) -> None:
        """Close the file; open blobs stay open."""
        descriptor, self._fd = self._fd, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _read_at(self, offset: int, size: int) -> bytes:
        return os.pread(self._fd, size, offset)

    def _decompress(self, size: int, cancel: threading.Event | None) -> Compression | None:
        """Replace the descriptor by one of the decompressed content; return the compression."""
        compression = detect_compression(self._read_at(0, MAGIC_SIZE))
        if compression is None:
            return None
        with tempfile.TemporaryFile() as output_file:
            remedy = f"decompress it first: {compression.program} {safe_repr(str(self.path))}"
            subject = f"archive {self.path}"
            decompressor = BoundedDecompressor(compression, subject, size=size, remedy=remedy)
            position = 0
            while piece := self._read_at(position, MIB):
                position += len(piece)
                for out in decompressor.feed(piece):
                    # A small piece may decompress to much data.
                    if cancel is not None and cancel.is_set():
                        raise Cancelled(f"stopped while {self.display_name} was decompressed")
                    write_temporary(output_file.fileno(), out, compression)
            decompressor.check_complete()
            os.close(self._fd)
            self._fd = os.dup(output_file.fileno())
        return compression


def read_all(blob: FileBlobReader, limit: int, subject: str) -> bytes:
    """Read all of a small blob.

    Raises:
        InvalidManifest: it has more than ``limit`` bytes.
    """
    if blob.size > limit:
        raise InvalidManifest(
            f"{subject} is larger than {limit} bytes",
            remedy="registries refuse content of this size; check where it comes from",
        )
    content = bytearray(blob.size)
    view, position = memoryview(content), 0
    while count := blob.readinto(view[position:]):
        position += count
    return bytes(content)


def write_temporary(fd: int, content: bytes, compression: Compression) -> None:
    """Write decompressed bytes to a file in the temporary directory.

    Raises:
        StoreError: the write fails.
    """
    rest = memoryview(content)
    try:
        while rest:
            rest = rest[os.write(fd, rest) :]
    except OSError as error:
        raise StoreError(
            f"cannot decompress the archive to {safe_repr(tempfile.gettempdir())}: "
            f"{error.strerror}",
            remedy=f"decompress it with {compression.program} first, or set TMPDIR to a "
            "directory with enough space",
        ) from error


def _open_regular_file(path: Path) -> int:
    """Open a regular file for reading, without waiting for the writer of a pipe."""
    name = safe_repr(str(path))
    try:
        descriptor = os.open(path, _OPEN_FLAGS)
    except FileNotFoundError as error:
        raise NotFound(f"there is no archive at {name}", remedy="check the path") from error
    except ValueError as error:
        raise UsageError(f"not a valid path: {name}", remedy="check the path") from error
    except OSError as error:
        raise disk_error("cannot open", path, error) from error
    with contextlib.suppress(OSError):
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return descriptor
    os.close(descriptor)
    raise UsageError(
        f"{name} is not a regular file", remedy="give a file; for a layout directory write oci:DIR"
    )
