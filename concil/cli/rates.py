"""How fast a transfer may be, as people write it: 20/s, 50M."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING

from concil.config import LEAST_BANDWIDTH

if TYPE_CHECKING:
    Group = argparse._ArgumentGroup  # noqa: SLF001  # argparse has no public name for it

_REQUESTS = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(?:/(s|sec|second|m|min|minute|h|hour))?")
_SECONDS = {"s": 1, "m": 60, "h": 3600}
_BANDWIDTH = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)([kmgKMG]?)")
_UNITS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}


def add_to(group: Group) -> None:
    """Add the options."""
    group.add_argument(
        "--limit-requests",
        type=requests_a_second,
        metavar="N/s",
        help="requests to each host, as in 20/s or 600/m (default: as many as it takes)",
    )
    group.add_argument(
        "--limit-rate",
        type=bytes_a_second,
        metavar="RATE",
        help="bytes a second of all workers together, as in 50M: k, M and G are of 1024, as curl "
        "and wget have them (default: no limit)",
    )


def requests_a_second(text: str) -> float:
    """Read ``N``, ``N/s``, ``N/m`` or ``N/h``."""
    found = _REQUESTS.fullmatch(text)
    rate = float(found[1]) / _SECONDS[(found[2] or "s")[0]] if found else 0.0
    # One a minute, as a number of seconds that no float keeps.
    if found is None or rate * 60 < 1 - 1e-9:
        raise argparse.ArgumentTypeError(
            f"{text!a} is no rate of one request a minute or more: write 20/s or 600/m"
        )
    return max(rate, 1 / 60)


def bytes_a_second(text: str) -> int:
    """Read a number of bytes with k, M or G behind it, of 1024."""
    found = _BANDWIDTH.fullmatch(text)
    rate = int(float(found[1]) * _UNITS[found[2].lower()]) if found else 0
    if rate < LEAST_BANDWIDTH:
        raise argparse.ArgumentTypeError(
            f"{text!a} is no rate of 1k bytes a second or more: write 500k, 50M or 1G"
        )
    return rate
