"""Declares `concil check` and `concil gc`."""

from __future__ import annotations

from concil.cli.options import common, progress, referrers, signature_options

TYPE_CHECKING = False  # as that of typing, which takes longer to import than this module
if TYPE_CHECKING:
    import argparse

_CHECK_DESCRIPTION = """\
Check that the copies of images are complete and whole: every image of a plan or list at its
destination, compared with its source, or one image or layout by itself. Exit code 6 if an
image is not in order. Nothing is changed without --repair."""
_GC_DESCRIPTION = """\
Remove the files of a layout that no image in its index needs. Without --yes the files are only
listed. Files that were written within the last hour are kept, because another program may be
about to name them."""


def declare_check(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `check`."""
    parser.description = _CHECK_DESCRIPTION
    parser.add_argument(
        "plan",
        metavar="PLAN|REF",
        help="a plan or list, as for mirror (- reads a list from standard input); or the address "
        "of an image or layout, which is checked by itself",
    )
    parser.add_argument(
        "destination",
        metavar="DST",
        nargs="?",
        help="where the images of the plan were copied to: host[:port]/prefix, oci:DIR or "
        "oci-archive:FILE",
    )
    parser.add_argument(
        "--dest",
        metavar="DST",
        action="append",
        help="another way to give DST; may be repeated, to check several destinations",
    )
    parser.add_argument(
        "--deep",
        action="store_true",
        help="read and hash every blob; without it, blobs are only looked up",
    )
    parser.add_argument(
        "--repair",
        action="store_true",
        help="copy again what is missing, damaged or behind, and check it again",
    )
    parser.add_argument(
        "--no-resume",
        action="store_true",
        help="also read the blobs that an interrupted deep check has verified within a day",
    )
    parser.add_argument(
        "--report",
        metavar="FILE",
        action="append",
        default=[],
        help="write the result of each image as JSON, or with FILE.html a page with a timeline; "
        "may be repeated",
    )
    parser.add_argument(
        "--format",
        choices=("table", "json"),
        default="table",
        help="print lines for images that are not in order (table, the default), or one JSON "
        "object for each image",
    )
    common.add_platform(parser, "the platforms that were copied of each index")
    referrers.add_content_options(parser)
    signature_options.add_options(parser)
    progress.add_options(parser)
    common.add_registry(parser, sides=("src", "dest"))
    parser.set_defaults(command="concil.cli.commands.check:run")


def declare_gc(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `gc`."""
    parser.description = _GC_DESCRIPTION
    parser.add_argument("address", metavar="oci:DIR", help="a layout directory")
    parser.add_argument("--yes", action="store_true", help="remove the files")
    parser.add_argument(
        "--min-age",
        type=common.parse_count,
        default=60,
        metavar="MINUTES",
        help="keep files that were written within this time (default: %(default)s)",
    )
    parser.add_argument(
        "--format",
        choices=("table", "json"),
        default="table",
        help="print a line for each file (table, the default), or one JSON document",
    )
    parser.set_defaults(command="concil.cli.commands.gc:run")
