"""Headers of tar archives, byte for byte as Go's archive/tar writes them for oras."""

from __future__ import annotations

import posixpath

from concil.runtime.dataclass import dataclass

BLOCK_SIZE = 512  # bytes of a header
REGULAR, LINK, DIRECTORY = b"0", b"2", b"5"
_EXTENDED = b"x"
_NAME_SIZE, _PREFIX_SIZE = 100, 155  # bytes
_MAX_OCTAL_SIZE = 8**11 - 1  # bytes that the size field of a header can state


@dataclass(frozen=True, slots=True)
class Member:
    """One member of an archive; its owner is root."""

    name: bytes
    type: bytes
    mode: int
    mtime: int  # seconds since the epoch
    size: int = 0  # bytes
    target: bytes = b""  # of a link

    def to_bytes(self) -> bytes:
        """Return the header, with an extended header before it if it needs one.

        Source: POSIX, pax, "ustar Interchange Format" and "pax Extended Header".
        """
        split = _split_name(self.name)
        records = {}
        if len(self.target) > _NAME_SIZE or not self.target.isascii():
            records["linkpath"] = self.target
        if self.size > _MAX_OCTAL_SIZE:
            records["size"] = str(self.size).encode()
        # An extended header has the whole name even if it could be split.
        if split is None or (records and split[0]):
            records["path"] = self.name
        prefix, name = (b"", _to_ascii(self.name)) if records else split or (b"", b"")
        header = _block(
            name[:_NAME_SIZE],
            self.type,
            mode=self.mode,
            size=self.size if self.size <= _MAX_OCTAL_SIZE else 0,
            mtime=self.mtime,
            target=_to_ascii(self.target)[:_NAME_SIZE],
            prefix=prefix,
            device=b"0000000\0" * 2,
        )
        return (_extended_header(self.name, records) if records else b"") + header


def _extended_header(name: bytes, records: dict[str, bytes]) -> bytes:
    body = b"".join(_record(key, records[key]) for key in sorted(records))
    directory, leaf = posixpath.split(name)
    path = posixpath.normpath(posixpath.join(directory, b"PaxHeaders.0", leaf))
    header = _block(_to_ascii(path)[:_NAME_SIZE].rstrip(b"/"), _EXTENDED, size=len(body))
    return header + body + bytes(-len(body) % BLOCK_SIZE)


def _record(key: str, value: bytes) -> bytes:
    """Return ``LENGTH KEY=VALUE``; the length counts its own digits."""
    rest = b" " + key.encode() + b"=" + value + b"\n"
    size = len(rest)
    while len(rest) + len(str(size)) != size:
        size = len(rest) + len(str(size))
    return str(size).encode() + rest


def _block(  # noqa: PLR0913 - the fields of a header
    name: bytes,
    kind: bytes,
    *,
    mode: int = 0,
    size: int = 0,
    mtime: int = 0,
    target: bytes = b"",
    prefix: bytes = b"",
    device: bytes = b"",
) -> bytes:
    fields = (
        name.ljust(_NAME_SIZE, b"\0"),
        b"%07o\0" % mode,
        b"0000000\0" * 2,
        b"%011o\0" % size,
        b"%011o\0" % mtime,
        b" " * 8,
        kind,
        target.ljust(_NAME_SIZE, b"\0"),
        b"ustar\x0000",
        bytes(64),
        device.ljust(16, b"\0"),
        prefix,
    )
    block = b"".join(fields).ljust(BLOCK_SIZE, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def _split_name(name: bytes) -> tuple[bytes, bytes] | None:
    """Return prefix and name as two fields of a header; None if the name does not fit into them."""
    if not name.isascii():
        return None
    if len(name) <= _NAME_SIZE:
        return b"", name
    slash = name[: _PREFIX_SIZE + 1].rfind(b"/")
    if slash <= 0 or not 0 < len(name) - slash - 1 <= _NAME_SIZE:
        return None
    return name[:slash], name[slash + 1 :]


def _to_ascii(text: bytes) -> bytes:
    return bytes(byte for byte in text if byte < 0x80)
