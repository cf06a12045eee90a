"""The members of a tar archive that a stranger packed: where each begins, nothing unpacked.

Headers are read by offset with bounds of their own; of `tarfile` only the reading of one
block is used, for a reader that follows everything a header can ask for has none.
"""

from __future__ import annotations

import posixpath
import tarfile
from collections.abc import Callable
from dataclasses import dataclass

from concil.config import KIB, MIB
from concil.errors import NotFound, StoreError, shown

BLOCK = tarfile.BLOCKSIZE
MOST_MEMBERS = 500_000
MOST_NAMES = 128 * MIB  # characters of all names, which are in memory
_MOST_HOPS = 8  # links that lead to one another
_EXTRA_LIMIT = 64 * KIB  # bytes of a header that belongs to the next one
_REMEDY = "the archive is damaged or no archive of images; write it again from its source"

Read = Callable[[int, int], bytes]  # at an offset, so many bytes or what there is


@dataclass(frozen=True, slots=True)
class Member:
    """A regular file in an archive, or a link to one."""

    offset: int  # of its first byte; -1: there are several of its name
    size: int  # bytes
    link: str | None = None  # the name it leads to; None: it is a file


@dataclass(slots=True)
class _Extra:
    """What headers in front of a member say of it."""

    name: str | None = None
    link: str | None = None
    size: int | None = None


class Members:
    """The regular files of an archive by name. Of anything else only the kind is known.

    No name is ever a path outside of the archive: names that lead upwards are not kept.
    """

    def __init__(self, read: Read, length: int, subject: str) -> None:
        """Read all headers.

        Args:
            length: bytes of the archive.
            subject: what it is called in messages.
        Raises:
            StoreError: it is no tar archive, is cut off, or asks for what no archive of
                images needs.
        """
        self._read = read
        self._length = length
        self._subject = subject
        self._members: dict[str, Member] = {}
        self._others: dict[str, str] = {}  # what is no file, and what it is instead
        self._count = 0
        self._named = 0  # characters
        position: int | None = 0
        extra = _Extra()
        while position is not None:
            position, extra = self._one(position, extra)

    def names(self) -> list[str]:
        """All names, in the order of the archive."""
        return list(self._members)

    def find(self, name: str) -> Member | None:
        """Return the file of a name, behind links within the archive; None if there is none.

        Raises:
            StoreError: there are several, or its links lead in a circle.
        """
        member = self._members.get(self._behind_links(name))
        if member is not None and member.offset < 0:
            raise self._bad(f"has several members {shown(name)}")
        return member

    def get(self, name: str) -> Member:
        """Return the file of a name, behind links within the archive.

        Raises:
            NotFound: there is none.
            StoreError: it is something else than a file, or as `find`.
        """
        member = self.find(name)
        if member is not None:
            return member
        end = self._behind_links(name)
        kind = self._others.get(end)
        if name != end:
            kind = f"which is {kind}" if kind else "which is not in the archive"
            kind = f"a link to {shown(end)}, {kind}"
        if kind is not None:
            raise StoreError(
                f"{self._subject}: {shown(name)} is {kind}, not a file",
                remedy="an archive of images holds regular files; write it again from its source",
            )
        raise NotFound(f"{self._subject} has no {shown(name)}", remedy=_REMEDY)

    def _behind_links(self, name: str) -> str:
        """Return the name that links within the archive lead to, be it there or not."""
        for _ in range(_MOST_HOPS):
            member = self._members.get(name)
            if member is None or member.offset < 0 or member.link is None:
                return name
            name = member.link
        raise self._bad(f"has links that lead to one another, at {shown(name)}")

    def _one(self, position: int, extra: _Extra) -> tuple[int | None, _Extra]:
        """Read the header at ``position``; return where the next one is, None at the end."""
        block = self._read(position, BLOCK)
        if not block.strip(b"\0"):
            if extra != _Extra() or not (block or position):
                raise self._bad("is cut off" if position else "is empty")
            return None, extra
        header = self._header(block, position)
        body, size = position + BLOCK, self._size(header, extra)
        if body + size > self._length:
            raise self._bad(f"is cut off in {shown(extra.name or header.name)}")
        self._count += 1
        if self._count > MOST_MEMBERS:
            raise self._bad(f"has more than {MOST_MEMBERS} members")
        after = body + -(-size // BLOCK) * BLOCK
        if header.type in _EXTRAS or header.type == tarfile.XGLTYPE:
            return after, self._extra(header, body, size, extra)
        self._keep(header, body, size, extra)
        return after, _Extra()

    def _header(self, block: bytes, position: int) -> tarfile.TarInfo:
        if len(block) < BLOCK and position:
            raise self._bad("is cut off")
        try:
            header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except (tarfile.HeaderError, ValueError, OverflowError) as error:
            what = f"is damaged at byte {position}" if position else "is not a tar archive"
            raise self._bad(what) from error
        if header.type == tarfile.GNUTYPE_SPARSE:
            raise self._sparse(header.name)
        return header

    def _size(self, header: tarfile.TarInfo, extra: _Extra) -> int:
        """Bytes that follow the header; links and directories have none, whatever they say."""
        if header.type in _WITHOUT_BODY:
            return 0
        size = header.size if extra.size is None else extra.size
        if size < 0:
            raise self._bad(f"has a member of {size} bytes")
        return size

    def _keep(self, header: tarfile.TarInfo, body: int, size: int, extra: _Extra) -> None:
        name = _inside(extra.name or header.name)
        if name is None:
            return
        link = other = None
        if header.islnk() or header.issym():
            target = extra.link or header.linkname
            # A hard link names a member, a symbolic one is seen from its directory.
            above = posixpath.dirname(name) if header.issym() else ""
            link = _resolved(above, target)
            if link is None:
                other = f"a link to {shown(target)}, outside of the archive"
        elif not header.isreg():
            other = _KINDS.get(header.type, f"a member of the type {header.type!r}")
        self._named += len(name) + len(link or other or "")
        if self._named > MOST_NAMES:
            raise self._bad(f"has names of more than {MOST_NAMES} characters")
        if other is not None:
            self._others[name] = other
            return
        several = name in self._members
        self._members[name] = Member(-1 if several else body, size, None if several else link)

    def _extra(self, header: tarfile.TarInfo, body: int, size: int, extra: _Extra) -> _Extra:
        """Read a header that is about the next member."""
        if size > _EXTRA_LIMIT:
            raise self._bad(f"has a header of {size} bytes")
        content = self._read(body, size)
        if header.type == tarfile.GNUTYPE_LONGNAME:
            return _Extra(_text(content), extra.link, extra.size)
        if header.type == tarfile.GNUTYPE_LONGLINK:
            return _Extra(extra.name, _text(content), extra.size)
        records = self._records(content)
        if any(key.startswith("GNU.sparse.") for key in records):
            raise self._sparse(records.get("GNU.sparse.name", header.name))
        told = {"path", "linkpath", "size"} & records.keys()
        if header.type == tarfile.XGLTYPE:
            if told:
                raise self._bad(f"gives all its members one {min(told)}")
            return extra
        number = records.get("size")
        if number is not None and not (number.isascii() and number.isdigit() and len(number) < 20):
            raise self._bad(f"has a member of {shown(number)} bytes")
        return _Extra(
            records.get("path", extra.name),
            records.get("linkpath", extra.link),
            extra.size if number is None else int(number),
        )

    def _records(self, content: bytes) -> dict[str, str]:
        """Read the records of a pax header, each ``LENGTH KEY=VALUE`` and a newline.

        Source: POSIX, pax.
        """
        found = {}
        while content.strip(b"\0"):
            number, blank, _ = content[:20].partition(b" ")
            length = int(number) if number.isdigit() else 0
            key, mark, value = content[len(number) + 1 : length - 1].partition(b"=")
            if not (blank and mark and key and content[length - 1 : length] == b"\n"):
                raise self._bad("has a damaged pax header")
            found[key.decode("utf-8", "replace")] = value.decode("utf-8", "surrogateescape")
            content = content[length:]
        return found

    def _sparse(self, name: str) -> StoreError:
        return StoreError(
            f"{self._subject} has a sparse member, {shown(name)}",
            remedy="pack it again without sparse files",
        )

    def _bad(self, what: str) -> StoreError:
        return StoreError(f"{self._subject} {what}", remedy=_REMEDY)


_EXTRAS = (
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
_WITHOUT_BODY = (tarfile.LNKTYPE, tarfile.SYMTYPE, *_KINDS)


def _text(content: bytes) -> str:
    return content.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _inside(name: str) -> str | None:
    """The name without what says nothing, as ``./``; None if it is none within the archive."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    return None if name.startswith("/") or ".." in parts or not parts else "/".join(parts)


def _resolved(above: str, target: str) -> str | None:
    """The name a link leads to; None if that is not within the archive."""
    if not target or target.startswith("/"):
        return None
    return _inside(posixpath.normpath(posixpath.join(above, target)))
