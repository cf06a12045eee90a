"""Declares `concil blob push`, `pull` and `head`."""

from __future__ import annotations

from concil.cli.options import common, progress

TYPE_CHECKING = False  # as that of typing, which takes longer to import than this module
if TYPE_CHECKING:
    import argparse


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the verbs below the verb."""
    verbs = parser.add_subparsers(dest="blob_verb", metavar="VERB", required=True, prog=parser.prog)
    push = verbs.add_parser(
        "push", help="upload a file", description="Upload a file and print its descriptor as JSON."
    )
    push.add_argument("file", metavar="FILE")
    push.add_argument("repository", metavar="REPO", help="host/repository")
    progress.add_options(push)
    common.add_registry(push)
    push.set_defaults(command="concil.cli.commands.blob:run_push")
    pull = verbs.add_parser(
        "pull",
        help="download a blob into a file",
        description="Download a blob. The file is created once its content has been verified.",
    )
    pull.add_argument("address", metavar="REPO@DIGEST")
    pull.add_argument(
        "-o", "--output", metavar="FILE", required=True, help="output file; - is standard output"
    )
    progress.add_options(pull)
    common.add_registry(pull)
    pull.set_defaults(command="concil.cli.commands.blob:run_pull")
    head = verbs.add_parser(
        "head",
        help="check whether a blob exists",
        description="Print the descriptor of a blob as JSON; the exit code is 4 if it does not "
        "exist.",
    )
    head.add_argument("address", metavar="REPO@DIGEST")
    common.add_registry(head)
    head.set_defaults(command="concil.cli.commands.blob:run_head")
    for verb_parser in (push, pull, head):
        common.add_common(verb_parser)
