"""Options of copies to several destinations: where their bytes wait."""

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
