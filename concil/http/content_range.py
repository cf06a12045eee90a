"""Parses Content-Range headers."""

from __future__ import annotations

import re

__all__ = ["parse_content_range_start"]

# At most 19 digits: int() rejects numbers of thousands of digits.
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19}|\*)")


def parse_content_range_start(content_range: str) -> int | None:
    """Return the first byte position of a Content-Range; None if it is no byte range.

    Source: RFC 9110, 14.4.
    """
    match = _CONTENT_RANGE.fullmatch(content_range)
    return int(match[1]) if match else None
