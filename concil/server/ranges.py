"""Which stretch of a blob a Range header asks for."""

from __future__ import annotations

import re

from concil.server.refusal import Refusal

_RANGE = re.compile(r"bytes=[ \t]*([0-9]{0,18})-([0-9]{0,18})[ \t]*")


def read_range(header: str, size: int) -> tuple[int, int] | None:
    """Return the stretch of a blob that a Range header asks for, half-open.

    Returns:
        None for all of it: another unit, several ranges, an empty blob.

    Raises:
        Refusal: 416; the range has no sense or lies behind the end.

    Source: RFC 9110, 14.2; a range that ends before it begins is 416 in the
    conformance suite of the distribution specification.
    """
    if not header.startswith("bytes=") or "," in header:
        return None
    found = _RANGE.fullmatch(header)
    first, last = found.groups() if found else ("", "")
    if first:
        start, stop = int(first), min(int(last) + 1, size) if last else size
    else:
        start, stop = size - min(int(last), size) if last else size, size
    if found and not size:
        return None
    if start >= stop:
        raise Refusal(
            "RANGE_INVALID", "no such range", headers={"Content-Range": f"bytes */{size}"}
        )
    return start, stop
