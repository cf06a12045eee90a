"""Lists of images: a file's lines as sources and the targets they are written to."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from concil.errors import ConcilError, StoreError, UsageError, shown
from concil.reference import Address, LayoutAddress, Reference, parse_address
from concil.transfer.mirror import MirrorItem

_LIMIT = 64 * 1024 * 1024  # bytes of a list
_COMMENT = re.compile(r"(?:^|\s)#.*")
_SCHEMES = ("docker://", "https://", "http://", "oci:")


@dataclass(frozen=True, slots=True)
class _Line:
    """One line of a list."""

    place: str  # file and number
    source: str
    target: str | None


def read(path: str) -> list[tuple[str, str]]:
    """Return the lines of a list that are not empty, each with its place.

    Args:
        path: a file; ``-`` is standard input.
    Raises:
        UsageError: it is no file, no text or too large.
        StoreError: it cannot be read.
    """
    name = "standard input" if path == "-" else path
    content = _content(path, name)
    if len(content) > _LIMIT:
        raise UsageError(f"{shown(name)} is larger than a list of images can be")
    try:
        lines = content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{shown(name)} is not UTF-8 text", remedy="a list has one image a line"
        ) from error
    texts = (_COMMENT.sub("", line).strip() for line in lines)
    shown_name = name if name.isprintable() else shown(name)
    return [(f"{shown_name}:{n}", text) for n, text in enumerate(texts, 1) if text]


def items(
    lines: Sequence[tuple[str, str]], destination: str, platforms: tuple[str, ...]
) -> list[MirrorItem]:
    """Return what the lines ask for; nothing is begun before all of them are good.

    Args:
        destination: ``[scheme://]host[/prefix]``, or ``oci:DIR``.
    Raises:
        UsageError: a line cannot be read, or two would write the same target.
    """
    below = Below(destination)
    found: list[MirrorItem] = []
    taken: dict[tuple[str, ...], str] = {}  # places, by what they write
    for line in _parsed(lines):
        try:
            source = parse_address(line.source)
            text = below.of(source, line.target)
            target = parse_address(text)
        except ConcilError as error:
            raise UsageError(f"{line.place}: {error}", remedy=error.remedy) from error
        other = taken.setdefault(_key(target), line.place)
        if other is not line.place:
            raise UsageError(
                f"{other} and {line.place} would both write {target}",
                remedy="give one of them another target: SOURCE -> TARGET",
            )
        found.append(MirrorItem(line.source, text, platforms))
    return found


class Below:
    """Where images go that are mirrored to one destination."""

    def __init__(self, destination: str) -> None:
        """Read the destination.

        Raises:
            UsageError: it is neither a registry's prefix nor a layout directory.
        """
        self._text = destination
        self._layout = destination.startswith("oci:")
        if self._layout:
            address = parse_address(destination)
            if not isinstance(address, LayoutAddress) or address.name or address.digest:
                raise UsageError(
                    f"a mirror goes to a whole layout, not to one image: {shown(destination)}",
                    remedy="write oci:DIR",
                )
            return
        self._base = destination.rstrip("/")
        rest = self._base.rpartition("://")[2]
        last = rest.rpartition("@")[2].partition("/")[2].rpartition("/")[2]
        if ":" in last or re.search(r"@sha\d+:", rest):
            raise UsageError(
                f"a mirror goes below a prefix, not to one tag: {shown(_hidden(destination))}",
                remedy="write host[:port]/prefix or oci:DIR",
            )
        parse_address(f"{self._base}/probe:probe")  # says what is wrong with the prefix

    def of(self, source: Address, target: str | None) -> str:
        """Return the address a source goes to, as it would be written.

        Args:
            target: a name below the destination, or an address with its scheme; None:
                the source's own name.
        Raises:
            UsageError: the source has no name to go by.
        """
        if target is not None and target.startswith(_SCHEMES):
            return target
        name = self._own_name(source) if target is None else target.strip("/")
        if self._layout:
            return f"{self._text}:{name}"
        return f"{self._base}/{name}"

    def _own_name(self, source: Address) -> str:
        if isinstance(source, Reference):
            return self._named(source)
        if source.name is None:
            raise UsageError(
                f"{source} has no name to go by", remedy="write: SOURCE -> REPOSITORY:TAG"
            )
        if self._layout:
            return source.name
        if not {":", "/"} & set(source.name):
            raise UsageError(
                f"{source} names no repository", remedy="write: SOURCE -> REPOSITORY:TAG"
            )
        return self._named(Reference.parse(source.name))

    def _named(self, source: Reference) -> str:
        """In a registry the repository's path; in a layout the source as people write it."""
        if self._layout:
            # An image of a layout that goes by its digest alone has no entry: it needs a name.
            pinned = f"sha256-{source.digest.hex}" if source.digest else "latest"
            return f"{source.host}/{source.repository}:{source.tag or pinned}"
        if source.tag or not source.digest:
            return f"{source.repository}:{source.tag or 'latest'}"
        return f"{source.repository}@{source.digest}"


def _parsed(lines: Sequence[tuple[str, str]]) -> Iterator[_Line]:
    for place, text in lines:
        source, arrow, target = (part.strip() for part in text.partition("->"))
        if arrow and (not source or not target or "->" in target):
            raise UsageError(
                f"{place}: not one image: {shown(_hidden(text))}",
                remedy="a line is SOURCE, or SOURCE -> TARGET",
            )
        yield _Line(place, source, target if arrow else None)


def _content(path: str, name: str) -> bytes:
    try:
        if path == "-":
            if sys.stdin is None:
                raise UsageError("standard input is closed", remedy="name a file")
            return sys.stdin.buffer.read(_LIMIT + 1)
        with Path(path).open("rb") as file:
            return file.read(_LIMIT + 1)
    except FileNotFoundError as error:
        raise UsageError(f"no such file: {shown(name)}", remedy="check the path") from error
    except IsADirectoryError as error:
        raise UsageError(f"{shown(name)} is a directory", remedy="name a list") from error
    except (OSError, ValueError) as error:
        cause = getattr(error, "strerror", None) or "not a path"
        raise StoreError(
            f"cannot read {shown(name)}: {cause}", remedy="check the path and its permissions"
        ) from error


def _key(address: Address) -> tuple[str, ...]:
    """What tells two targets apart, however they are written."""
    if isinstance(address, LayoutAddress):
        return ("oci", os.path.realpath(address.path), address.name or str(address.digest or ""))
    return (address.api_host, address.repository, address.target)


def _hidden(text: str) -> str:
    return re.sub(r"//[^/@\s]*@", "//", text)
