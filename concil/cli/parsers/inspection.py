"""Declares `concil ls`, `tree`, `config`, `diff` and `du`."""

from __future__ import annotations

from concil.cli.options import common

TYPE_CHECKING = False  # as that of typing, which takes longer to import than this module
if TYPE_CHECKING:
    import argparse

_COMMANDS = "concil.cli.commands.inspection"


def declare_ls(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `ls`."""
    parser.description = (
        "Print the repositories of a registry, the tags of a repository, or the names in a layout "
        "or archive, one per line."
    )
    parser.add_argument(
        "address",
        metavar="HOST|REPO",
        help="host[:port], host[:port]/repository, oci:DIR or an archive",
    )
    parser.add_argument(
        "-l",
        "--long",
        action="store_true",
        help="also print digest, size, time and platforms of each tag; reads every manifest",
    )
    _finish(parser, "ls")


def declare_tree(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `tree`."""
    parser.description = (
        "Print what belongs to an image: its platforms, its referrers (signatures, attestations, "
        "SBOMs), the tags of cosign, and what refers to these, with types and sizes."
    )
    parser.add_argument("address", metavar="REF", help=common.REF_HELP)
    _finish(parser, "tree")


def declare_config(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `config`."""
    parser.description = (
        "Print the config of an image: entrypoint, environment, labels. Of an index, that of this "
        "machine's platform unless --platform says otherwise; --format json prints all of it. "
        "`concil config show` prints the settings of concil, and where each of them comes from."
    )
    parser.add_argument(
        "address",
        metavar="REF|show",
        help=f"{common.REF_HELP}; write show:TAG for an image of that name",
    )
    common.add_platform(parser, "choose the image for this platform from an index")
    _finish(parser, "show_config")


def declare_diff(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `diff`."""
    parser.description = (
        "Print how two images differ: manifests, platforms, configs and layers, and how many bytes "
        "a copy would have to move."
    )
    parser.add_argument("first", metavar="A", help=common.REF_HELP)
    parser.add_argument("second", metavar="B", help="an address of the same form")
    common.add_platform(parser, "compare only the images for this platform")
    _finish(parser, "diff")


def declare_du(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `du`."""
    parser.description = (
        "Print how many bytes images have in all, share with each other, and have alone. Blobs and "
        "manifests of all platforms count, each once."
    )
    parser.add_argument(
        "addresses", metavar="REF|PLAN", nargs="+", help="images, or one list or plan of a mirror"
    )
    common.add_platform(parser, "count only these platforms of each index")
    _finish(parser, "du")


def _finish(parser: argparse.ArgumentParser, module: str) -> None:
    common.add_format(parser)
    common.add_registry(parser)
    parser.set_defaults(command=f"{_COMMANDS}.{module}:run")
