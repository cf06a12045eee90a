"""Options for request rates and bandwidth: 20/s, 50M."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING

from concil.config import MIN_BANDWIDTH

if TYPE_CHECKING:
    Group = argparse._ArgumentGroup  # noqa: SLF001  # argparse has no public name for it

_REQUEST_RATE = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(?:/(s|sec|second|m|min|minute|h|hour))?")
_SECONDS = {"s": 1, "m": 60, "h": 3600}
_BANDWIDTH = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)([kmgKMG]?)")
_UNITS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}


def add_options(group: Group) -> None:
    """Add the options."""
    group.add_argument(
        "--limit-requests",
        type=parse_request_rate,
        metavar="N/s",
        help="requests to each host, as in 20/s or 600/m (default: as many as it takes)",
    )
    group.add_argument(
        "--limit-rate",
        type=parse_bandwidth,
        metavar="RATE",
        help="bytes a second of all workers together, as in 50M: k, M and G are of 1024, as curl "
        "and wget have them (default: no limit)",
    )


def parse_request_rate(text: str) -> float:
    """Parse ``N``, ``N/s``, ``N/m`` or ``N/h``; return requests per second."""
    match = _REQUEST_RATE.fullmatch(text)
    rate = float(match[1]) / _SECONDS[(match[2] or "s")[0]] if match else 0.0
    # The minimum is one a minute, which a float of seconds does not represent exactly.
    if match is None or rate * 60 < 1 - 1e-9:
        raise argparse.ArgumentTypeError(
            f"{text!a} is no rate of one request a minute or more: write 20/s or 600/m"
        )
    return max(rate, 1 / 60)


def parse_bandwidth(text: str) -> int:
    """Parse a number of bytes with an optional k, M or G, in powers of 1024."""
    match = _BANDWIDTH.fullmatch(text)
    rate = int(float(match[1]) * _UNITS[match[2].lower()]) if match else 0
    if rate < MIN_BANDWIDTH:
        raise argparse.ArgumentTypeError(
            f"{text!a} is no rate of 1k bytes a second or more: write 500k, 50M or 1G"
        )
    return rate
