"""Declares `concil demo`."""

from __future__ import annotations

from concil.cli.options import progress

TYPE_CHECKING = False  # as that of typing, which takes longer to import than this module
if TYPE_CHECKING:
    import argparse


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    parser.description = (
        "Start two registries, fill one with generated images, mirror them to the "
        "other over a slow link on which one connection is cut, and verify everything. Needs no "
        "network and removes everything it has created."
    )
    progress.add_options(parser)
    parser.set_defaults(command="concil.cli.demo.command:run", retry=5)
