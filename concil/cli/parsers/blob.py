"""Declares `concil blob push`, `pull`, `head`, `mount` and `delete`."""

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
    push.add_argument(
        "file", metavar="FILE", help="- is standard input, which is sent while it is read"
    )
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
    mount = verbs.add_parser(
        "mount",
        help="mount a blob into another repository",
        description="Mount a blob into another repository of the same registry, without moving "
        "its bytes. Print its descriptor as JSON.",
    )
    mount.add_argument("address", metavar="REPO@DIGEST")
    mount.add_argument("repository", metavar="REPO", help="host/repository")
    common.add_registry(mount)
    mount.set_defaults(command="concil.cli.commands.blob:run_mount")
    delete = verbs.add_parser(
        "delete",
        help="delete a blob",
        description="Delete a blob from a repository and print its address. Images that contain "
        "it break. Many registries do not support it.",
    )
    delete.add_argument("address", metavar="REPO@DIGEST")
    common.add_registry(delete)
    delete.set_defaults(command="concil.cli.commands.blob:run_delete")
    for verb_parser in (push, pull, head, mount, delete):
        common.add_common(verb_parser)
