"""Parses rates and sizes as people write them: 20/s, 600/m, 50M, 1.5MiB."""

from __future__ import annotations

import re

from concil.defaults import MIN_BANDWIDTH
from concil.errors import UsageError

# Compiled when they are first used: the command line imports this module for every copy.
_REQUEST_RATE = r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(?:/(s|sec|second|m|min|minute|h|hour))?"
_SECONDS = {"s": 1, "m": 60, "h": 3600}
_BANDWIDTH = r"([0-9]{1,12}(?:\.[0-9]{1,9})?)([kmgKMG]?)(?:i?B)?"
_FACTORS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}


def parse_request_rate(text: str) -> float:
    """Parse ``N``, ``N/s``, ``N/m`` or ``N/h``; return requests per second.

    ``sec``, ``second``, ``min``, ``minute`` and ``hour`` are accepted as well.

    Raises:
        UsageError: it is not a rate, or less than one request per minute.
    """
    match = re.fullmatch(_REQUEST_RATE, text)
    rate = float(match[1]) / _SECONDS[(match[2] or "s")[0]] if match else 0.0
    # The minimum is one a minute, which a float of seconds does not represent exactly.
    if match is None or rate * 60 < 1 - 1e-9:
        raise UsageError(
            f"{text!a} is not a rate of at least one request per minute",
            remedy="write 20/s or 600/m",
        )
    return max(rate, 1 / 60)


def parse_bandwidth(text: str) -> int:
    """Parse bytes per second: a number with an optional k, M or G, in powers of 1024.

    ``B`` and ``iB`` may follow, and mean the same.

    Raises:
        UsageError: it is not a number of bytes, or less than 1 KiB.
    """
    rate = _parse_bytes(text)
    if rate is None or rate < MIN_BANDWIDTH:
        raise UsageError(
            f"{text!a} is not a rate of at least 1k bytes per second",
            remedy="write 500k, 50M or 1G",
        )
    return rate


def parse_size(text: str) -> int:
    """Parse a number of bytes, which may be 0, as `parse_bandwidth` does.

    Raises:
        UsageError: it is not a number of bytes.
    """
    size = _parse_bytes(text)
    if size is None:
        raise UsageError(f"{text!a} is not a size", remedy="write 500M or 10G")
    return size


def _parse_bytes(text: str) -> int | None:
    match = re.fullmatch(_BANDWIDTH, text)
    return int(float(match[1]) * _FACTORS[match[2].lower()]) if match else None
