"""Declares `concil transfers`."""

from __future__ import annotations

from concil.cli.options import common

TYPE_CHECKING = False  # as that of typing, which takes longer to import than this module
if TYPE_CHECKING:
    import argparse


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the actions of the verb."""
    parser.description = (
        "List the interrupted transfers that resume when the same command is run again."
    )
    parser.set_defaults(command="concil.cli.commands.transfers:run_list")
    actions = parser.add_subparsers(metavar="ACTION", prog=parser.prog)
    listing = actions.add_parser("list", help="list interrupted transfers (the default)")
    listing.set_defaults(command="concil.cli.commands.transfers:run_list")
    forget = actions.add_parser(
        "forget",
        help="discard some of them: the next run starts over",
        description="Discard interrupted transfers: cancels their upload sessions if the "
        "registry permits it, and removes their partial files.",
    )
    forget.add_argument("number", metavar="ID", type=int, nargs="*", help="IDs as listed")
    forget.add_argument(
        "--all", action="store_true", help="discard every transfer that is not running"
    )
    forget.add_argument(
        "--older-than",
        metavar="AGE",
        help="discard transfers that have not progressed for AGE, for example 7d, 12h or 30m",
    )
    common.add_registry(forget)
    forget.set_defaults(command="concil.cli.commands.transfers:run_forget")
