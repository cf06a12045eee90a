"""Declares `concil push`, `pull`, `attach` and `referrers`."""

from __future__ import annotations

from concil.cli.options import common, progress, signature_options

TYPE_CHECKING = False  # as that of typing, which takes longer to import than this module
if TYPE_CHECKING:
    import argparse

_COMMANDS = "concil.cli.commands.artifacts"
_FILES_HELP = (
    "file or directory, optionally followed by :MEDIA/TYPE; - is standard input, which is sent "
    "while it is read"
)


def declare_push(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `push`."""
    parser.usage = "concil push [options] FILE|DIR... REF"
    parser.description = (
        "Push files and directories as an artifact, with the manifest that oras writes. Prints "
        "the address of the artifact by its digest."
    )
    _add_words(parser, "FILE|DIR... REF", f"{_FILES_HELP}; the last one is the destination")
    parser.add_argument(
        "--artifact-type", metavar="TYPE", default="", help="media type of the artifact"
    )
    parser.add_argument(
        "--config",
        metavar="FILE[:TYPE]",
        default="",
        help="file that becomes the config of the manifest, optionally followed by :MEDIA/TYPE "
        "(default: the empty config)",
    )
    _add_content(parser)
    parser.set_defaults(command=f"{_COMMANDS}:run_push")


def declare_attach(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `attach`."""
    parser.usage = "concil attach [options] FILE... --to REF --artifact-type TYPE"
    parser.description = (
        "Push files as an artifact that refers to an image, such as an SBOM or a signature. "
        "Prints the address of the artifact by its digest; `concil referrers` lists it."
    )
    _add_words(parser, "FILE", _FILES_HELP)
    parser.add_argument(
        "--to", dest="subject", metavar="REF", required=True, help="image that it refers to"
    )
    parser.add_argument(
        "--artifact-type", metavar="TYPE", required=True, help="media type of the artifact"
    )
    _add_content(parser)
    common.add_platform(parser, "attach to the image for this platform of an index")
    parser.set_defaults(command=f"{_COMMANDS}:run_attach")


def declare_pull(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `pull`."""
    parser.description = (
        "Write the files of an artifact into a directory, and print their paths. Each file "
        "appears once its content has been verified."
    )
    parser.add_argument("address", metavar="REF", help="host/repository:tag or oci:DIR:NAME")
    parser.add_argument(
        "-o", "--output", metavar="DIR", default=".", help="directory (default: the current one)"
    )
    common.add_platform(parser, "pull the artifact for this platform of an index")
    signature_options.add_options(parser)
    _add_format(parser, "the paths")
    progress.add_options(parser)
    common.add_registry(parser)
    parser.set_defaults(command=f"{_COMMANDS}:run_pull")


def declare_referrers(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `referrers`."""
    parser.description = (
        "List what refers to an image: signatures, attestations, SBOMs and attached files."
    )
    parser.add_argument("address", metavar="REF", help=common.REF_HELP)
    parser.add_argument(
        "--artifact-type", metavar="TYPE", default="", help="list only those of this type"
    )
    common.add_platform(parser, "list what refers to the image for this platform of an index")
    _add_format(parser, "a table")
    common.add_registry(parser)
    parser.set_defaults(command=f"{_COMMANDS}:run_referrers")


def _add_words(parser: argparse.ArgumentParser, metavar: str, help_text: str) -> None:
    # Not two arguments: options may stand between them.
    parser.add_argument("words", metavar=metavar, nargs="*", help=help_text)


def _add_content(parser: argparse.ArgumentParser) -> None:
    """Add the options of verbs that push files."""
    parser.add_argument(
        "--annotation",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="annotation of the manifest; may be repeated",
    )
    parser.add_argument(
        "--annotation-file",
        metavar="FILE",
        default="",
        help='annotations as JSON: {"$manifest": {KEY: VALUE}, "$config": ..., "FILE": ...}',
    )
    parser.add_argument(
        "--media-type",
        metavar="TYPE",
        default="",
        help="media type of files that have none after a colon",
    )
    parser.add_argument(
        "--title",
        metavar="NAME",
        default="",
        help="path under which `pull` writes the file; only for a single file or standard input",
    )
    _add_format(parser, "the address")
    progress.add_options(parser)
    common.add_registry(parser)


def _add_format(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument(
        "--format",
        choices=("table", "json"),
        default="table",
        help=f"table (the default) prints {default}, json a document",
    )
