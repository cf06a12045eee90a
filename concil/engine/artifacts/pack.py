"""Packs a directory as tar+gzip, with the same members as oras writes."""

from __future__ import annotations

import contextlib
import os
import posixpath
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

from concil.config import MIB
from concil.engine.artifacts.gzip_writer import GzipWriter
from concil.engine.artifacts.tar_header import BLOCK_SIZE, DIRECTORY, LINK, REGULAR, Member
from concil.engine.blobs.temporary import open_temporary, temporary_source
from concil.errors import Cancelled, UsageError, safe_repr
from concil.fs.local_file import LocalFile, disk_error
from concil.oci.digest import Digest
from concil.runtime.dataclass import dataclass
from concil.transfer.blob.source import BlobSource

_READ_SIZE = MIB
_HALF_SECOND = 5 * 10**8  # nanoseconds; times are rounded
_LAST_TIME = 8**11 - 1  # seconds since the epoch; the largest that a tar header can store


@dataclass(frozen=True, slots=True)
class PackedDirectory:
    """A directory as tar+gzip in a temporary file."""

    source: BlobSource
    content_digest: Digest  # of the tar archive


@contextlib.contextmanager
def packed_directory(path: Path, title: str, cancel: threading.Event) -> Iterator[PackedDirectory]:
    """Pack a directory into a temporary file that ends with the block.

    The same directory always gives the same bytes, so that an interrupted upload can be resumed
    by another process: members are sorted, owners are left out, times are whole seconds.

    Args:
        title: first part of the names of all members.
    Raises:
        UsageError: it contains a pipe, socket or device, or a link that leads out of it.
        StoreError: it cannot be read, or the disk is full.
    """
    with open_temporary() as file:
        writer = GzipWriter(file)
        for member, content in _members(path, title):
            if cancel.is_set():
                raise Cancelled(f"stopped while packing {safe_repr(str(path))}")
            writer.write(member.to_bytes())
            if content is not None:
                _copy_file(content, writer, cancel)
        writer.write(bytes(2 * BLOCK_SIZE))
        writer.finish()
        compressed = writer.compressed
        yield PackedDirectory(
            temporary_source(file, compressed.position, compressed.digest(), str(path)),
            writer.plain.digest(),
        )


def _members(root: Path, title: str) -> Iterator[tuple[Member, LocalFile | None]]:
    """Yield the headers in the order of their names, each with its file if it has content."""
    stack = [(Path(os.path.realpath(root)), title)]
    while stack:
        path, name = stack.pop()
        try:
            status = path.lstat()
            if stat.S_ISDIR(status.st_mode):
                children = sorted(path.iterdir(), key=os.fsencode, reverse=True)
                stack += [(child, f"{name}/{child.name}") for child in children]
            target = str(path.readlink()) if stat.S_ISLNK(status.st_mode) else ""
        except OSError as error:
            raise disk_error("cannot read", path, error) from error
        yield _create_member(path, name, title, status, target)


def _create_member(
    path: Path, name: str, title: str, status: os.stat_result, target: str
) -> tuple[Member, LocalFile | None]:
    content, kind = None, REGULAR
    if stat.S_ISDIR(status.st_mode):
        kind = DIRECTORY
    elif stat.S_ISLNK(status.st_mode):
        kind = LINK
        if not is_link_inside(name, target, title):
            raise UsageError(
                f"{safe_repr(str(path))} is a link that leads out of its directory",
                remedy="replace it with what it points to; oras and concil refuse to unpack it",
            )
    elif stat.S_ISREG(status.st_mode):
        content = LocalFile(path)
    else:
        raise UsageError(
            f"{safe_repr(str(path))} is neither a file nor a directory or link",
            remedy="remove it: an artifact cannot contain pipes, sockets and devices",
        )
    member = Member(
        os.fsencode(name),
        kind,
        stat.S_IMODE(status.st_mode),
        min(max((status.st_mtime_ns + _HALF_SECOND) // 10**9, 0), _LAST_TIME),
        0 if content is None else content.size,
        os.fsencode(target),
    )
    return member, content


def is_link_inside(name: str, target: str, title: str) -> bool:
    """Return whether a symbolic link leads to a path inside of its directory.

    A target may go upwards only at its beginning: behind another link the path would be another
    one than its text says.

    Args:
        name: of the link in the archive.
        target: what it points to.
        title: of the directory, with which all names begin.
    """
    parts = [part for part in target.split("/") if part not in ("", ".")]
    while parts and parts[0] == "..":
        parts.pop(0)
    if not target or target.startswith("/") or ".." in parts:
        return False
    resolved = posixpath.normpath(posixpath.join(posixpath.dirname(name), target))
    return resolved == title or resolved.startswith(f"{title}/")


def _copy_file(file: LocalFile, writer: GzipWriter, cancel: threading.Event) -> None:
    buffer = memoryview(bytearray(min(_READ_SIZE, max(1, file.size))))
    with file.open() as reader:
        while count := reader.readinto(buffer):
            if cancel.is_set():
                raise Cancelled(f"stopped while packing {safe_repr(str(file.path))}")
            writer.write(buffer[:count])
    file.check_unchanged()
    writer.write(bytes(-file.size % BLOCK_SIZE))
