"""Parses the headers of an untrusted tar archive.

Headers are read by offset within fixed limits. Of `tarfile` only the parser of a single block is
used, because its reader follows everything that a header can request, without limits.
"""

from __future__ import annotations

import posixpath
import tarfile
from collections.abc import Callable

from concil.config import KIB, MIB
from concil.errors import NotFound, StoreError, safe_repr
from concil.runtime.dataclass import dataclass

BLOCK_SIZE = tarfile.BLOCKSIZE
MAX_MEMBERS = 500_000
MAX_NAME_CHARACTERS = 128 * MIB  # of all names, which are kept in memory
_MAX_LINK_DEPTH = 8  # links followed for one name
_MAX_EXTENDED_HEADER = 64 * KIB  # bytes of a header that extends the next one
_REMEDY = (
    "the archive is damaged, or it is not an archive of images; write it again from its source"
)

ReadAt = Callable[[int, int], bytes]  # offset and maximum size to bytes; fewer at the end


@dataclass(frozen=True, slots=True)
class Member:
    """A regular file in an archive, or a link to one."""

    offset: int  # of the first byte; -1 if several members have the name
    size: int  # bytes
    link: str | None = None  # the link target; None for a file


@dataclass(slots=True)
class _ExtendedHeader:
    """Name, link and size that extended headers set for the next member."""

    name: str | None = None
    link: str | None = None
    size: int | None = None


class TarMembers:
    """The regular files of an archive by name; of other members only the kind is known.

    Names that lead out of the archive are dropped, so a name is never an outside path.
    """

    def __init__(self, read_at: ReadAt, length: int, subject: str) -> None:
        """Read all headers.

        Args:
            length: bytes of the archive.
            subject: name of the archive, for messages.
        Raises:
            StoreError: it is not a tar archive, is truncated, or uses features that no archive
                of images needs.
        """
        self._read_at = read_at
        self._length = length
        self._subject = subject
        self._members: dict[str, Member] = {}
        self._others: dict[str, str] = {}  # kinds of the members that are not files, by name
        self._count = 0
        self._name_characters = 0
        position: int | None = 0
        extra = _ExtendedHeader()
        while position is not None:
            position, extra = self._read_member(position, extra)

    def names(self) -> list[str]:
        """Return all names, in the order of the archive."""
        return list(self._members)

    def find(self, name: str) -> Member | None:
        """Return the file with a name, following links within the archive; None if it is missing.

        Raises:
            StoreError: several members have the name, or its links form a loop.
        """
        member = self._members.get(self._behind_links(name))
        if member is not None and member.offset < 0:
            raise self._error(f"has several members {safe_repr(name)}")
        return member

    def get(self, name: str) -> Member:
        """Return the file with a name, following links within the archive.

        Raises:
            NotFound: there is no such member.
            StoreError: it is not a file, or as for `find`.
        """
        member = self.find(name)
        if member is not None:
            return member
        target = self._behind_links(name)
        kind = self._others.get(target)
        if name != target:
            kind = f"which is {kind}" if kind else "which is not in the archive"
            kind = f"a link to {safe_repr(target)}, {kind}"
        if kind is not None:
            raise StoreError(
                f"{self._subject}: {safe_repr(name)} is {kind}, not a file",
                remedy="an archive of images holds regular files; write it again from its source",
            )
        raise NotFound(f"{self._subject} has no {safe_repr(name)}", remedy=_REMEDY)

    def _behind_links(self, name: str) -> str:
        """Follow links within the archive; return the final name, whether it exists or not."""
        for _ in range(_MAX_LINK_DEPTH):
            member = self._members.get(name)
            if member is None or member.offset < 0 or member.link is None:
                return name
            name = member.link
        raise self._error(f"has a loop of links, at {safe_repr(name)}")

    def _read_member(
        self, position: int, extended: _ExtendedHeader
    ) -> tuple[int | None, _ExtendedHeader]:
        """Read the header at ``position``; return the offset of the next one, None at the end."""
        block = self._read_at(position, BLOCK_SIZE)
        if not block.strip(b"\0"):
            if extended != _ExtendedHeader() or not (block or position):
                raise self._error("is truncated" if position else "is empty")
            return None, extended
        header = self._parse_header(block, position)
        body, size = position + BLOCK_SIZE, self._data_size(header, extended)
        if body + size > self._length:
            raise self._error(f"is truncated in {safe_repr(extended.name or header.name)}")
        self._count += 1
        if self._count > MAX_MEMBERS:
            raise self._error(f"has more than {MAX_MEMBERS} members")
        next_position = body + -(-size // BLOCK_SIZE) * BLOCK_SIZE
        if header.type in _EXTENDED_TYPES or header.type == tarfile.XGLTYPE:
            return next_position, self._read_extended_header(header, body, size, extended)
        self._add_member(header, body, size, extended)
        return next_position, _ExtendedHeader()

    def _parse_header(self, block: bytes, position: int) -> tarfile.TarInfo:
        if len(block) < BLOCK_SIZE and position:
            raise self._error("is truncated")
        try:
            header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except (tarfile.HeaderError, ValueError, OverflowError) as error:
            what = f"is damaged at byte {position}" if position else "is not a tar archive"
            raise self._error(what) from error
        if header.type == tarfile.GNUTYPE_SPARSE:
            raise self._sparse_error(header.name)
        return header

    def _data_size(self, header: tarfile.TarInfo, extended: _ExtendedHeader) -> int:
        """Return the bytes of data after the header; links and directories have none."""
        if header.type in _TYPES_WITHOUT_DATA:
            return 0
        size = header.size if extended.size is None else extended.size
        if size < 0:
            raise self._error(f"has a member of {size} bytes")
        return size

    def _add_member(
        self, header: tarfile.TarInfo, offset: int, size: int, extended: _ExtendedHeader
    ) -> None:
        name = _normalize_name(extended.name or header.name)
        if name is None:
            return
        link = other = None
        if header.islnk() or header.issym():
            target = extended.link or header.linkname
            # A hard link names a member; a symbolic link is relative to its directory.
            directory = posixpath.dirname(name) if header.issym() else ""
            link = _resolve_link(directory, target)
            if link is None:
                other = f"a link to {safe_repr(target)}, outside of the archive"
        elif not header.isreg():
            other = _KINDS.get(header.type, f"a member of the type {header.type!r}")
        self._name_characters += len(name) + len(link or other or "")
        if self._name_characters > MAX_NAME_CHARACTERS:
            raise self._error(f"has names of more than {MAX_NAME_CHARACTERS} characters")
        if other is not None:
            self._others[name] = other
            return
        is_duplicate = name in self._members
        self._members[name] = Member(
            -1 if is_duplicate else offset, size, None if is_duplicate else link
        )

    def _read_extended_header(
        self, header: tarfile.TarInfo, offset: int, size: int, extended: _ExtendedHeader
    ) -> _ExtendedHeader:
        """Read an extended header, which applies to the next member."""
        if size > _MAX_EXTENDED_HEADER:
            raise self._error(f"has a header of {size} bytes")
        content = self._read_at(offset, size)
        if header.type == tarfile.GNUTYPE_LONGNAME:
            return _ExtendedHeader(_decode_name(content), extended.link, extended.size)
        if header.type == tarfile.GNUTYPE_LONGLINK:
            return _ExtendedHeader(extended.name, _decode_name(content), extended.size)
        records = self._parse_pax_records(content)
        if any(key.startswith("GNU.sparse.") for key in records):
            raise self._sparse_error(records.get("GNU.sparse.name", header.name))
        overrides = {"path", "linkpath", "size"} & records.keys()
        if header.type == tarfile.XGLTYPE:
            if overrides:
                raise self._error(
                    f"has a global pax header that sets the {min(overrides)} of all members"
                )
            return extended
        number = records.get("size")
        if number is not None and not (number.isascii() and number.isdigit() and len(number) < 20):
            raise self._error(f"has a member of {safe_repr(number)} bytes")
        return _ExtendedHeader(
            records.get("path", extended.name),
            records.get("linkpath", extended.link),
            extended.size if number is None else int(number),
        )

    def _parse_pax_records(self, content: bytes) -> dict[str, str]:
        """Parse the records of a pax header: ``LENGTH KEY=VALUE`` and a newline each.

        Source: POSIX, pax.
        """
        records = {}
        while content.strip(b"\0"):
            number, blank, _ = content[:20].partition(b" ")
            length = int(number) if number.isdigit() else 0
            key, equals, value = content[len(number) + 1 : length - 1].partition(b"=")
            if not (blank and equals and key and content[length - 1 : length] == b"\n"):
                raise self._error("has a damaged pax header")
            records[key.decode("utf-8", "replace")] = value.decode("utf-8", "surrogateescape")
            content = content[length:]
        return records

    def _sparse_error(self, name: str) -> StoreError:
        return StoreError(
            f"{self._subject} has a sparse member, {safe_repr(name)}",
            remedy="create it again without sparse files",
        )

    def _error(self, message: str) -> StoreError:
        return StoreError(f"{self._subject} {message}", remedy=_REMEDY)


_EXTENDED_TYPES = (
    tarfile.XHDTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
_KINDS = {
    tarfile.DIRTYPE: "a directory",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a named pipe",
}
_TYPES_WITHOUT_DATA = (tarfile.LNKTYPE, tarfile.SYMTYPE, *_KINDS)


def _decode_name(content: bytes) -> str:
    return content.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _normalize_name(name: str) -> str | None:
    """Return the name without ``./`` and empty parts; None if it leads out of the archive."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    return None if name.startswith("/") or ".." in parts or not parts else "/".join(parts)


def _resolve_link(directory: str, target: str) -> str | None:
    """Return the name that a link leads to; None if it is outside of the archive."""
    if not target or target.startswith("/"):
        return None
    return _normalize_name(posixpath.normpath(posixpath.join(directory, target)))
