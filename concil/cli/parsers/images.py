"""Declares `concil tags`, `tag`, `digest`, `manifest`, `delete` and `inspect`."""

from __future__ import annotations

from concil.cli.options import common

TYPE_CHECKING = False  # as that of typing, which takes longer to import than this module
if TYPE_CHECKING:
    import argparse

_COMMANDS = "concil.cli.commands.images"


def declare_tags(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `tags`."""
    parser.description = "Print the tags of a repository, or the names in a layout, one per line."
    parser.add_argument("address", metavar="REPO", help="host/repository, oci:DIR or an archive")
    common.add_registry(parser)
    parser.set_defaults(command=f"{_COMMANDS}:run_tags")


def declare_tag(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `tag`."""
    parser.description = (
        "Let more tags name an image in its own repository. No blob is moved. Prints the address "
        "of each tag."
    )
    parser.add_argument("address", metavar="REF", help="host/repository:tag or oci:DIR:NAME")
    parser.add_argument(
        "new_tags", metavar="NEW", nargs="+", help="a tag, or an address in the same repository"
    )
    common.add_registry(parser)
    parser.set_defaults(command=f"{_COMMANDS}:run_tag")


def declare_digest(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `digest`."""
    parser.description = "Print the digest of an image."
    _add_image(parser)
    parser.set_defaults(command=f"{_COMMANDS}:run_digest")


def declare_manifest(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `manifest`."""
    parser.usage = "concil manifest [options] REF\n       concil manifest push [options] FILE REF"
    parser.description = (
        "Print the manifest or index of an image, byte for byte; or push a manifest from a file, "
        "and print its address by digest. Push its blobs first."
    )
    parser.add_argument(
        "words",
        metavar="REF | push FILE REF",
        nargs="*",
        help=f"{common.REF_HELP}; FILE may be - for standard input",
    )
    parser.add_argument(
        "--media-type", metavar="TYPE", default="", help="of a pushed manifest that states none"
    )
    common.add_platform(parser, "choose the image for this platform from an index")
    common.add_registry(parser)
    parser.set_defaults(command=f"{_COMMANDS}:run_manifest")


def declare_delete(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `delete`."""
    parser.description = (
        "Delete an image by tag or digest. A registry deletes the manifest, and with "
        "it all tags that point to it; a layout deletes only the name."
    )
    parser.add_argument("address", metavar="REF", help="host/repository:tag or oci:DIR:NAME")
    parser.add_argument(
        "--tag-only",
        action="store_true",
        help="delete the tag and keep the image, if the registry supports that",
    )
    common.add_registry(parser)
    parser.set_defaults(command=f"{_COMMANDS}:run_delete")


def declare_inspect(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `inspect`."""
    parser.description = (
        "Print a description of an image as JSON: the platforms of an index, or the "
        "layers and main config fields of an image."
    )
    _add_image(parser)
    parser.set_defaults(command="concil.cli.commands.inspect:run")


def _add_image(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("address", metavar="REF", help=common.REF_HELP)
    common.add_platform(parser, "choose the image for this platform from an index")
    common.add_registry(parser)
