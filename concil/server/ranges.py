"""Parses Range headers."""

from __future__ import annotations

import re

from concil.server.errors import ErrorResponse

_RANGE = re.compile(r"bytes=[ \t]*([0-9]{0,18})-([0-9]{0,18})[ \t]*")


def parse_range(header: str, size: int) -> tuple[int, int] | None:
    """Return the half-open range of a blob that a Range header selects.

    Returns:
        None for the whole blob: another unit, several ranges, or an empty blob.

    Raises:
        ErrorResponse: 416; the range is malformed or beyond the end.

    Source: RFC 9110, 14.2; the conformance suite of the distribution specification
    requires 416 for a range that ends before it starts.
    """
    if not header.startswith("bytes=") or "," in header:
        return None
    match = _RANGE.fullmatch(header)
    first, last = match.groups() if match else ("", "")
    if first:
        start, stop = int(first), min(int(last) + 1, size) if last else size
    else:
        start, stop = size - min(int(last), size) if last else size, size
    if match and not size:
        return None
    if start >= stop:
        raise ErrorResponse(
            "RANGE_INVALID",
            "the range is outside the blob",
            headers={"Content-Range": f"bytes */{size}"},
        )
    return start, stop
