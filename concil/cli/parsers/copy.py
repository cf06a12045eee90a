"""Declares `concil copy`."""

from __future__ import annotations

from concil.cli.options import common, progress, referrers, signature_options, spool_options

TYPE_CHECKING = False  # as that of typing, which takes longer to import than this module
if TYPE_CHECKING:
    import argparse


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    parser.description = (
        "Copy one image with all its platforms to one or several destinations; digests do not "
        "change. Prints the address of each copy by digest."
    )
    parser.add_argument("source", metavar="SRC", help=common.REF_HELP)
    parser.add_argument(
        "destinations",
        metavar="DST",
        nargs="+",
        help="an address of the same form; for several the source is read once",
    )
    common.add_platform(parser, "copy only these platforms of an index")
    referrers.add_options(parser)
    referrers.add_no_clobber(parser)
    signature_options.add_options(parser)
    progress.add_options(parser)
    spool_options.add_options(parser)
    common.add_registry(parser, sides=("src", "dest"))
    parser.add_argument(
        "--all",
        dest="command",
        action="store_const",
        const="concil.cli.commands.copy_all:run",
        help="copy every named image of a layout or archive to repositories below DST, or every "
        "tag of a repository to another repository; prints the address of each copy",
    )
    parser.set_defaults(command="concil.cli.commands.copy:run")
