"""Unpacks the tar archive of a directory without ever leaving that directory."""

from __future__ import annotations

import contextlib
import io
import os
import posixpath
import shutil
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from concil.config import MIB
from concil.engine.artifacts.pack import is_link_inside
from concil.engine.artifacts.titles import TitledBlob
from concil.errors import (
    Cancelled,
    ConcilError,
    ContentError,
    DigestMismatch,
    StoreError,
    safe_repr,
)
from concil.fs.local_file import FREE_SPACE_REMEDY
from concil.fs.nofollow_tree import NoFollowTree
from concil.oci.digest import Verifier
from concil.store.archive.decompress import open_decompressed

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ_SIZE = MIB
_REMEDY = "nothing was unpacked; push the artifact again, or ask who made it"


def unpack(tree: NoFollowTree, archive: str, file: TitledBlob, cancel: threading.Event) -> None:
    """Unpack an archive into the directory that its title names.

    The whole archive is checked before the first file is written. Existing files are replaced.

    Args:
        archive: name of the archive below the root of ``tree``; its bytes are verified already.
    Raises:
        ContentError: a member leads out of the directory, or is neither a file nor a directory or
            symbolic link; nothing was written.
        DigestMismatch: the uncompressed archive has another digest; nothing was written.
        StoreError: the disk has too little free space, or a file cannot be written.
    """
    _check(tree, archive, file, cancel)
    directories: list[tuple[str, int]] = []
    tree.make_directory(file.title)
    with _open_members(tree, archive, file, cancel) as (members, _):
        for member, name in members:
            if member.isdir():
                _make_directory(tree, name, member.mode)
                directories.append((name, int(member.mtime)))
            elif member.issym():
                _make_link(tree, name, member.linkname)
            else:
                _write_file(tree, name, member, members.archive, cancel)
    # Last, because each new file changes the time of its directory.
    for name, mtime in reversed(directories):
        with tree.inside(name, "cannot set the time of") as descriptor:
            os.utime(descriptor, (mtime, mtime))


def _check(tree: NoFollowTree, archive: str, file: TitledBlob, cancel: threading.Event) -> None:
    """Check all members, and that the disk has room for their content."""
    size, free = 0, shutil.disk_usage(tree.root).free
    with _open_members(tree, archive, file, cancel) as (members, stream):
        for member, _ in members:
            size += member.size
            if size > free:
                raise StoreError(
                    f"{safe_repr(file.title)} needs {size} bytes, and the disk has room for {free}",
                    remedy=FREE_SPACE_REMEDY,
                )
        stream.read_rest()
        digest = stream.verifier.digest()
    if file.content_digest is not None and file.content_digest != digest:
        raise DigestMismatch(
            f"the archive of {safe_repr(file.title)} hashes to {digest}, not to "
            f"{file.content_digest}",
            remedy=_REMEDY,
        )


class _HashingReader(io.RawIOBase):
    """The uncompressed archive, hashed while it is read."""

    def __init__(self, source: io.RawIOBase, file: TitledBlob, cancel: threading.Event) -> None:
        super().__init__()
        digest = file.content_digest
        self.verifier = Verifier("sha256" if digest is None else digest.algorithm)
        self._source = source
        self._title = file.title
        self._cancel = cancel

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:  # noqa: ANN401 - whatever io hands over
        if self._cancel.is_set():
            raise Cancelled(f"stopped while unpacking {safe_repr(self._title)}")
        view = memoryview(buffer).cast("B")
        count = self._source.readinto(view) or 0
        self.verifier.update(view[:count])
        return count

    def read_rest(self) -> None:
        """Read what follows the last member."""
        while self.read(_READ_SIZE):
            pass


class _Members:
    """The members of an archive in order, each checked, with its path below the tree."""

    def __init__(self, archive: tarfile.TarFile, title: str) -> None:
        self.archive = archive
        self._title = title

    def __iter__(self) -> Iterator[tuple[tarfile.TarInfo, str]]:
        while (member := self.archive.next()) is not None:
            yield member, _check_member(member, self._title)
            self.archive.members.clear()  # type: ignore[attr-defined] # they would fill the memory


@contextlib.contextmanager
def _open_members(
    tree: NoFollowTree, archive: str, file: TitledBlob, cancel: threading.Event
) -> Iterator[tuple[_Members, _HashingReader]]:
    """Open an archive, compressed or not, for one pass."""
    name = f"the archive of {safe_repr(file.title)}"
    with os.fdopen(tree.open(archive), "rb", buffering=0) as raw:
        try:
            stream = _HashingReader(open_decompressed(raw, name), file, cancel)
            with tarfile.open(fileobj=stream, mode="r|", bufsize=_READ_SIZE) as members:
                yield _Members(members, file.title), stream
        except ConcilError:
            raise
        except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:
            raise ContentError(f"{name} is damaged: {error}", remedy=_REMEDY) from error


def _check_member(member: tarfile.TarInfo, title: str) -> str:
    """Return the path of a member; raise ContentError if it may not be unpacked."""
    parts = member.name.split("/")
    path = posixpath.normpath(member.name)
    reason = ""
    if member.name.startswith("/"):
        reason = "is an absolute path"
    elif ".." in parts or (path != title and not path.startswith(f"{title}/")):
        reason = "is not inside of that directory"
    elif "\0" in member.name or "\0" in member.linkname:
        reason = "contains a NUL"
    elif member.islnk():
        reason = "is a hard link"
    elif member.issym() and not is_link_inside(path, member.linkname, title):
        reason = f"is a link to {safe_repr(member.linkname)}, which leads out of it"
    elif not (member.isreg() or member.isdir() or member.issym()) or member.issparse():
        reason = "is neither a file nor a directory or link"
    elif path == title and not member.isdir():
        reason = "is not a directory"
    if reason:
        raise ContentError(
            f"the archive of {safe_repr(title)}: {safe_repr(member.name)} {reason}", remedy=_REMEDY
        )
    return path


def _make_directory(tree: NoFollowTree, name: str, mode: int) -> None:
    parent, _, leaf = name.rpartition("/")
    # Its owner has to write into it, whatever the archive says.
    allowed = mode & 0o777 | 0o700
    action = f"cannot create {safe_repr(leaf)} in"
    with tree.inside(parent, action) as descriptor, contextlib.suppress(FileExistsError):
        os.mkdir(leaf, allowed, dir_fd=descriptor)
    tree.make_directory(name)  # raises if something else has that name


def _make_link(tree: NoFollowTree, name: str, target: str) -> None:
    parent, _, leaf = name.rpartition("/")
    with tree.inside(parent, f"cannot create {safe_repr(leaf)} in") as descriptor:
        _remove(leaf, descriptor)
        os.symlink(target, leaf, dir_fd=descriptor)


def _write_file(
    tree: NoFollowTree,
    name: str,
    member: tarfile.TarInfo,
    archive: tarfile.TarFile,
    cancel: threading.Event,
) -> None:
    parent, _, leaf = name.rpartition("/")
    content = archive.extractfile(member)
    if content is None:
        raise ContentError(f"{safe_repr(name)} has no content", remedy=_REMEDY)
    with tree.inside(parent, f"cannot write {safe_repr(leaf)} in") as descriptor:
        _remove(leaf, descriptor)
        # Bits such as setuid are not taken over from an archive.
        fd = os.open(leaf, _CREATE, member.mode & 0o777, dir_fd=descriptor)
        with os.fdopen(fd, "wb", buffering=0) as file:
            while block := content.read(_READ_SIZE):
                if cancel.is_set():
                    raise Cancelled(f"stopped while unpacking {safe_repr(name)}")
                rest = memoryview(block)
                while rest:
                    rest = rest[file.write(rest) :]
            os.utime(fd, (member.mtime, member.mtime))


def _remove(name: str, directory: int) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=directory)


def remove_archive(root: Path, directory: str, archive: str) -> None:
    """Remove an archive that was unpacked, and its directory if that is empty."""
    with contextlib.suppress(OSError):
        (root / archive).unlink()
    with contextlib.suppress(OSError):
        (root / directory).rmdir()
