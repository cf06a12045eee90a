"""Options for request rates, bandwidth and sizes: 20/s, 50M."""

from __future__ import annotations

import argparse

from concil.errors import UsageError
from concil.ratelimit import units

TYPE_CHECKING = False  # as that of typing, which takes longer to import than this module
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    Group = argparse._ArgumentGroup  # noqa: SLF001  # argparse has no public name for it
    Number = TypeVar("Number", int, float)


def add_options(group: Group) -> None:
    """Add the options."""
    group.add_argument(
        "--limit-requests",
        type=parse_request_rate,
        metavar="N/s",
        help="maximum request rate for each host, for example 20/s or 600/m "
        "(default: no fixed limit)",
    )
    group.add_argument(
        "--limit-rate",
        type=parse_bandwidth,
        metavar="RATE",
        help="maximum bytes per second of all workers together, for example 50M; k, M and G are "
        "powers of 1024, as for curl and wget (default: no limit)",
    )


def parse_request_rate(text: str) -> float:
    """Parse the value of ``--limit-requests``; return requests per second."""
    return _parse(units.parse_request_rate, text)


def parse_bandwidth(text: str) -> int:
    """Parse the value of ``--limit-rate``; return bytes per second."""
    return _parse(units.parse_bandwidth, text)


def parse_size(text: str) -> int:
    """Parse the value of ``--spool-size``; return bytes."""
    return _parse(units.parse_size, text)


def _parse(parse: Callable[[str], Number], text: str) -> Number:
    try:
        return parse(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(f"{error}: {error.remedy}") from error
