"""Declares `concil completion`."""

from __future__ import annotations

TYPE_CHECKING = False  # as that of typing, which takes longer to import than this module
if TYPE_CHECKING:
    import argparse

SHELLS = ("bash", "zsh", "fish")
_DESCRIPTION = """\
Print a script that lets a shell complete verbs, options, and the tags of repositories. Needs the
extra "completion". For example, in ~/.bashrc: source <(concil completion bash)"""


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    parser.description = _DESCRIPTION
    parser.add_argument("shell", choices=SHELLS, help="the shell that reads the script")
    parser.set_defaults(command="concil.cli.commands.completion:run")
