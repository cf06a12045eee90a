"""A tar archive on disk as a place to read from: members are opened by seek, never unpacked."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
import threading
from pathlib import Path

from concil.config import MIB
from concil.errors import Cancelled, InvalidManifest, NotFound, StoreError, UsageError, shown
from concil.store.decompress import MAGIC_SIZE, Inflater, Packing, packing_of
from concil.store.files import FileBlob, disk_error
from concil.store.tar_members import Member, Members

_OPEN = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC


class TarFile:
    """An open archive. Any thread may call any method; whoever opened it closes it.

    One that is packed, as by ``docker save | gzip``, is unpacked once into a file without name
    in the temporary directory: there is no seeking in what is packed.
    """

    def __init__(self, path: Path, cancel: threading.Event | None = None) -> None:
        """Open the archive and read its headers.

        Args:
            cancel: ends the unpacking.
        Raises:
            NotFound: there is no such file.
            UsageError: it is no regular file.
            StoreError: it is no archive, is cut off, or packed in a way that is not undone.
        """
        self.path = path
        self.subject = f"archive {shown(str(path))}"
        self._descriptor = _opened(path)
        try:
            found = os.fstat(self._descriptor)
            self.state = (found.st_ino, found.st_size, found.st_mtime_ns)
            # What it is packed with as a whole; None: nothing.
            self.packing: Packing | None = self._unpacked(found.st_size, cancel)
            length = os.fstat(self._descriptor).st_size
            self.members = Members(self._read, length, self.subject)
        except OSError as error:
            self.close()
            raise disk_error("cannot read", path, error) from error
        except BaseException:  # raised again: nobody else could close it
            self.close()
            raise

    def open(self, name: str) -> FileBlob:
        """Open a member; the caller closes it.

        Raises:
            NotFound: there is none of that name.
        """
        return self.open_member(self.members.get(name))

    def open_member(self, member: Member) -> FileBlob:
        """Open a member that was found; the caller closes it."""
        try:
            descriptor = os.dup(self._descriptor)
        except OSError as error:
            raise disk_error("cannot read", self.path, error) from error
        return FileBlob(descriptor, self.path, inside=(member.offset, member.size))

    def start_of(self, member: Member, size: int) -> bytes:
        """The first bytes of a member."""
        with self.open_member(member) as blob:
            buffer = bytearray(min(size, blob.size))
            return bytes(buffer[: blob.readinto(memoryview(buffer))])

    def read(self, name: str, limit: int) -> bytes:
        """Read a small member whole.

        Raises:
            NotFound: there is none of that name.
            InvalidManifest: it has more than ``limit`` bytes.
        """
        with self.open(name) as blob:
            return whole(blob, limit, f"{shown(name)} in {self.subject}")

    def close(self) -> None:
        """Let go of the file; blobs that are open stay open."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _read(self, offset: int, size: int) -> bytes:
        return os.pread(self._descriptor, size, offset)

    def _unpacked(self, size: int, cancel: threading.Event | None) -> Packing | None:
        """Put what is packed in the place of the file; return what it was packed with."""
        packing = packing_of(self._read(0, MAGIC_SIZE))
        if packing is None:
            return None
        with tempfile.TemporaryFile() as plain:
            otherwise = f"unpack it first: {packing.program} {shown(str(self.path))}"
            subject = f"archive {self.path}"
            inflater = Inflater(packing, subject, size=size, otherwise=otherwise)
            position = 0
            while piece := self._read(position, MIB):
                position += len(piece)
                for out in inflater.feed(piece):
                    # Much may come out of one piece.
                    if cancel is not None and cancel.is_set():
                        raise Cancelled(f"stopped while {self.subject} was unpacked")
                    write_temporary(plain.fileno(), out, packing)
            inflater.end()
            os.close(self._descriptor)
            self._descriptor = os.dup(plain.fileno())
        return packing


def whole(blob: FileBlob, limit: int, subject: str) -> bytes:
    """Read all of a small blob.

    Raises:
        InvalidManifest: it has more than ``limit`` bytes.
    """
    if blob.size > limit:
        raise InvalidManifest(
            f"{subject} is larger than {limit} bytes",
            remedy="no registry would take this; check where it comes from",
        )
    content = bytearray(blob.size)
    view, position = memoryview(content), 0
    while count := blob.readinto(view[position:]):
        position += count
    return bytes(content)


def write_temporary(descriptor: int, content: bytes, packing: Packing) -> None:
    """Write what was unpacked to a file in the temporary directory.

    Raises:
        StoreError: the disk does not take it.
    """
    rest = memoryview(content)
    try:
        while rest:
            rest = rest[os.write(descriptor, rest) :]
    except OSError as error:
        raise StoreError(
            f"cannot unpack the archive to {shown(tempfile.gettempdir())}: {error.strerror}",
            remedy=f"unpack it yourself with {packing.program}, or set TMPDIR to a directory "
            "with room",
        ) from error


def _opened(path: Path) -> int:
    """Open a regular file for reading; a pipe answers instead of waiting for a writer."""
    name = shown(str(path))
    try:
        descriptor = os.open(path, _OPEN)
    except FileNotFoundError as error:
        raise NotFound(f"there is no archive {name}", remedy="check the path") from error
    except ValueError as error:
        raise UsageError(f"not a path of a file: {name}", remedy="check the path") from error
    except OSError as error:
        raise disk_error("cannot open", path, error) from error
    with contextlib.suppress(OSError):
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return descriptor
    os.close(descriptor)
    raise UsageError(
        f"{name} is not a regular file", remedy="an archive is a file; a directory is oci:DIR"
    )
