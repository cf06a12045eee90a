"""Parses lengths of time as people write them: 90s, 10m, 1h30m, 7d."""

from __future__ import annotations

import re

from concil.errors import UsageError, safe_repr

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 24 * 3600, "w": 7 * 24 * 3600}
_DURATION = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?[smhdw])+")
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)([smhdw])")
_REMEDY = "write a number and s, m, h, d or w, for example 10m or 1h30m"


def parse_duration(text: str) -> float:
    """Parse a duration; return seconds.

    Raises:
        UsageError: it is none.
    """
    if _DURATION.fullmatch(text) is None:
        raise UsageError(f"not a duration: {safe_repr(text)}", remedy=_REMEDY)
    return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
