"""Options of copies: where bytes wait for slower destinations, and what is kept for later runs."""

from __future__ import annotations

from concil.cli.options import rates

TYPE_CHECKING = False  # as that of typing, which takes longer to import than this module
if TYPE_CHECKING:
    import argparse


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    group = parser.add_argument_group("several destinations")
    group.add_argument(
        "--spool",
        metavar="DIR",
        help="where to keep what slower destinations have not received yet (default: the "
        "directory of the journal)",
    )
    group.add_argument(
        "--spool-size",
        type=rates.parse_size,
        metavar="SIZE",
        help="bytes by which a destination may be ahead of the slowest one, for example 20G "
        "(default: 8G); then it waits",
    )
    group = parser.add_argument_group("cache")
    group.add_argument(
        "--cache",
        metavar="oci:DIR",
        help="keep what was read from registries, and read it from there the next time",
    )
    group.add_argument(
        "--cache-size",
        type=rates.parse_size,
        metavar="SIZE",
        help="bytes of the cache, for example 200G (default: 50G); what was not used for the "
        "longest time is removed",
    )
